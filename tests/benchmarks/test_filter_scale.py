"""The benchmark of sketches in its small mode, and its baselines against a sketch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import filter_scale, results
from benchmarks import filter_scale_runs as runs
from benchmarks.filter_plain import BASELINES
from compressor.filters import FilterBank, sketch


@pytest.mark.parametrize("which", list(BASELINES))
def test_what_ours_is_timed_against_does_the_same(which: str) -> None:
    kernels, setting = runs.kernels(3, 0, 40_000, sparse=1 / 16), runs.setting()
    made = sketch(FilterBank(kernels.reshape(200, 200, 3, 3), "layer"), setting)
    mean, components = setting.basis.mean_K.numpy(), setting.basis.components_KK.numpy()
    zeros, counters, dead, moments, counts = BASELINES[which](kernels.numpy(), mean, components, 200)
    assert zeros == made.zeros and dead == (made.dead_filters, made.dead_channels)
    assert np.array_equal(np.asarray(counters).T, made.sparse_2E.numpy())
    assert np.abs(counts - made.counts_KB.numpy()).sum() <= 4  # a product decides about edges there
    if which == "NumPy":
        names = ("raw", "clean", "scaled", "scaled_clean")
        for (count, mean_K, covariance), name in zip(moments, names, strict=True):
            found = getattr(made, name)
            assert count == found.count
            np.testing.assert_allclose(mean_K, found.mean_K, atol=1e-6)
            np.testing.assert_allclose(covariance, found.covariance, atol=1e-6)


def test_small_mode(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["filter_scale", "--quick"])
    assert filter_scale.main() == 0
    content = results.read("filter_scale-quick")
    assert content is not None
    rows = content["rows"]
    assert rows["chunkings"]["identical counts"] is True
    assert rows["chunkings"]["largest difference of covariances"] < 1e-10
    assert [row["layers"] for row in rows["sizes"]] == [3, 1]
    assert 30 < rows["parquet"]["bytes"] / rows["parquet"]["kernels"] < 40
    assert "What 1.46 billion kernels would take" in capsys.readouterr().out
    assert not list((tmp_path / "out" / "filter_scale").iterdir())
