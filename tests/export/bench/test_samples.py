"""What a bench runs its models on, and what it says of inputs that do not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto

from compressor.errors import InputError
from compressor.export.bench.candidates import read_candidates
from compressor.export.bench.samples import Samples, samples_of

from .nets import write_net


def samples(path: Path, *others: Path, given: Any = None, count: int | None = None, seed: int = 0) -> Samples:
    return samples_of(read_candidates([path, *others]), given, count=count, seed=seed)


def test_by_default_there_are_32_of_batch_1_the_same_for_a_seed(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx")
    found = samples(path)
    assert (found.count, found.seed, found.arrays[0].shape) == (32, 0, (32, 1, 3, 8, 8))
    np.testing.assert_array_equal(found.arrays[0], samples(path).arrays[0])
    assert not np.array_equal(found.arrays[0], samples(path, seed=1).arrays[0])
    assert abs(found.arrays[0].mean()) < 0.05
    assert abs(found.arrays[0].std() - 1) < 0.05


def test_large_ones_are_fewer_so_that_they_stay_within_4_mib(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", dims=("batch", 3, 256, 256))  # 0.75 MiB each
    assert samples(path).count == 5
    assert samples(path, count=7).count == 7


def test_a_fixed_batch_is_fed_whole(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", dims=(2, 3, 8, 8))
    assert samples(path, count=3).arrays[0].shape == (3, 2, 3, 8, 8)
    given = np.arange(6 * 192, dtype=np.float32).reshape(6, 3, 8, 8)
    found = samples(path, given=given)
    np.testing.assert_array_equal(found.arrays[0].reshape(given.shape), given)
    assert found.count == 3


def test_a_size_that_only_one_model_fixes_holds_for_all(tmp_path: Path) -> None:
    free = write_net(tmp_path / "free.onnx", dims=("batch", 3, "height", "width"))
    fixed = write_net(tmp_path / "fixed.onnx", dims=(1, 3, 8, 6))
    assert samples(free, fixed, count=2).arrays[0].shape == (2, 1, 3, 8, 6)


def test_given_inputs_are_taken_alone_in_order_or_by_name(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", dims=("batch", 3, "height", "width"))
    given = torch.rand(4, 3, 5, 7)
    for form in (given, given.numpy(), [given], {"x": given}):
        found = samples(path, given=form)
        np.testing.assert_array_equal(found.arrays[0][:, 0], given.numpy())
        assert (found.count, found.seed) == (4, None)
    assert samples(path, given=given, count=2).count == 2


def test_a_model_of_integers_runs_on_given_ones(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", kind=TensorProto.INT64)
    assert samples(path, given=np.ones((1, 3, 8, 8), np.int64)).arrays[0].dtype == np.int64
    with pytest.raises(InputError, match=r"random ones may mean nothing.*array.*of int64"):
        samples(path)


def test_a_free_size_is_asked_for(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", dims=("batch", 3, "height", "width"))
    with pytest.raises(InputError, match=r"leaves its axis 2 free \(height\).*give inputs="):
        samples(path)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (np.zeros((2, 3, 8, 8)), "are float64; convert them by astype('float32')"),
        (np.zeros((3, 8, 8), np.float32), "have shape [3, 8, 8]: expected as many axes"),
        (np.zeros((2, 3, 8, 9), np.float32), "have shape [2, 3, 8, 9], but"),
        (np.zeros((0, 3, 8, 8), np.float32), "have 0 rows"),
        (np.full((2, 3, 8, 8), np.nan, np.float32), "hold NaN or infinity"),
        ({"y": np.zeros((2, 3, 8, 8), np.float32)}, "inputs names ['y'], but the model takes x float32"),
        ([], "inputs holds 0 arrays"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(tmp_path: Path, given: Any, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        samples(write_net(tmp_path / "net.onnx"), given=given)


@pytest.mark.parametrize("count", [0, 3])
def test_more_samples_than_given_are_refused(tmp_path: Path, count: int) -> None:
    given = np.zeros((2, 3, 8, 8), np.float32)
    with pytest.raises(InputError, match=f"samples={count}"):
        samples(write_net(tmp_path / "net.onnx"), given=given, count=count)


def test_part_of_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    path = write_net(tmp_path / "net.onnx", dims=(4, 3, 8, 8))
    with pytest.raises(InputError, match="have 6 rows; the model takes 4 at a time"):
        samples(path, given=np.zeros((6, 3, 8, 8), np.float32))


@pytest.mark.parametrize("change", [{"dims": ("batch", 3, 9, 8)}, {"kind": TensorProto.FLOAT16}])
def test_models_of_other_inputs_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    base = write_net(tmp_path / "base.onnx")
    with pytest.raises(InputError, match=r"other\.onnx takes .*, but the baseline .*base\.onnx takes"):
        samples(base, write_net(tmp_path / "other.onnx", **change))


def test_models_of_other_outputs_are_refused(tmp_path: Path) -> None:
    base, other = write_net(tmp_path / "base.onnx"), write_net(tmp_path / "other.onnx", classes=7)
    with pytest.raises(InputError, match=r"an output of \[1, 7\], the baseline .* of \[1, 5\]"):
        samples(base, other)
