"""Inputs from shapes and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.cli.inputs import InputOptions, Inputs, InputSpec, example_inputs, parse_input
from compressor.errors import FileError

CPU = torch.device("cpu")


def inputs(*texts: str, seed: int = 0) -> Inputs:
    return example_inputs(InputOptions(input=list(texts)), seed=seed, device=CPU)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("7", InputSpec((7,))),
        ("1x3x224x224", InputSpec((1, 3, 224, 224))),
        ("1x16:int64", InputSpec((1, 16), torch.int64)),
        ("1x16:int32:1000", InputSpec((1, 16), torch.int32, 1000)),
        ("mask=1x16:bool", InputSpec((1, 16), torch.bool, 2, "mask")),
        ("2x4:bfloat16", InputSpec((2, 4), torch.bfloat16)),
    ],
)
def test_a_shape_is_read(text: str, spec: InputSpec) -> None:
    assert parse_input(text) == spec


@pytest.mark.parametrize("text", ["2x3:int64:7", "2x3:float16", "2x3:bool", "2x3:uint8:256"])
def test_a_tensor_has_the_shape_and_type_of_its_text(text: str) -> None:
    ((tensor,), kwargs) = (lambda found: (found.args, found.kwargs))(inputs(text))
    assert tensor.shape == (2, 3)
    assert f"torch.{text.split(':')[1]}" == str(tensor.dtype)
    assert kwargs == {}


def test_integers_reach_their_limit_and_stay_below() -> None:
    (tensor,) = inputs("1000:int64:5").args
    assert tensor.unique().tolist() == [0, 1, 2, 3, 4]


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, again, other = (inputs("4x4", seed=seed).args[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_two_inputs_of_one_shape_differ() -> None:
    a, b = inputs("4x4", "4x4").args
    assert not torch.equal(a, b)


def test_named_inputs_are_keyword_arguments() -> None:
    found = inputs("2x3", "scale=1")
    assert len(found.args) == 1
    assert list(found.kwargs) == ["scale"]


def test_files_give_their_arrays_by_position_and_name(tmp_path: Path) -> None:
    a, b, mask = np.ones((1, 2), np.float32), np.arange(3), np.array([True])
    np.savez(tmp_path / "x.npz", a, b, mask=mask)
    np.save(tmp_path / "y.npy", a)
    options = InputOptions(input_file=[tmp_path / "x.npz", tmp_path / "y.npy"])
    found = example_inputs(options, seed=0, device=CPU)
    assert [tensor.tolist() for tensor in found.args] == [a.tolist(), b.tolist(), a.tolist()]
    assert found.kwargs["mask"].tolist() == [True]


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str) -> None:
    whole = tmp_path / name
    if name.endswith("z"):
        np.savez(whole, np.ones((50, 50)))
    else:
        np.save(whole, np.ones((50, 50)))
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(FileError, match=name):
        example_inputs(InputOptions(input_file=[whole]), seed=0, device=CPU)


def test_words_are_no_input(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array(["a", "b"]))
    with pytest.raises(FileError, match="plain numbers"):
        example_inputs(InputOptions(input_file=[tmp_path / "x.npy"]), seed=0, device=CPU)
