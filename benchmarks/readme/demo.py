"""The README's numbers of the demo and of its examples."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks import zoo
from benchmarks.readme.statement import Content, percent

__all__ = ["demo", "lines"]


def demo(content: Content) -> Iterable[str]:
    """Every number of `make demo`."""
    rows = content["rows"]
    accuracy, before, after = rows["accuracy"], rows["costs"]["before"], rows["costs"]["after"]
    whole, small, int8 = (rows["files"][name] for name in ("baseline.onnx", "model.onnx", "model.int8.onnx"))
    removed = 100 * (1 - after["macs"] / before["macs"])
    yield f"removes {removed:.0f} % of its MACs"
    yield (
        f"Right after the cut it guesses ({percent(accuracy['as cut'])} %); fitted anew to 512 images "
        f"without labels it is at {percent(accuracy['reconstructed'])} %."
    )
    yield f"(int8: {percent(int8['accuracy'])} %, too)"
    yield f"| accuracy | {percent(accuracy['before'])} % | {percent(accuracy['fine-tuned'])} % | |"
    for name, key in (("MACs", "macs"), ("parameters", "params")):
        factor = before[key] / after[key]
        yield f"| {name} | {before[key]:,} | {after[key]:,} | {factor:.2f}x fewer |"
    held = [costs["peak_activation_bytes"] for costs in (before, after)]
    yield (
        f"| activations held at once | {held[0] / 1e3:.1f} kB | {held[1] / 1e3:.1f} kB | "
        f"{held[0] / held[1]:.2f}x fewer |"
    )
    yield (
        f"| ONNX file; in int8 | {whole['bytes'] / 1e6:.2f} MB | {small['bytes'] / 1e3:.0f} kB; "
        f"{int8['bytes'] / 1e3:.0f} kB | {whole['bytes'] / small['bytes']:.2f}x; "
        f"{whole['bytes'] / int8['bytes']:.2f}x smaller |"
    )
    spread = [
        f"{file['speedup']:.2f}x ({file['speedup_p10']:.2f}-{file['speedup_p90']:.2f}x)"
        for file in (small, int8)
    ]
    yield (
        f"| time in onnxruntime, one thread; in int8 | {whole['ms']:.3f} ms | {small['ms']:.3f} ms; "
        f"{int8['ms']:.3f} ms | {spread[0]}; {spread[1]} faster |"
    )


def lines() -> Iterable[str]:
    """How short the shortest example is."""
    example = zoo.ROOT / "examples" / "phone_bundle.py"
    yield f"to a phone bundle in {len(example.read_text(encoding='utf-8').splitlines())} lines"
