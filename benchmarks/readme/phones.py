"""The README's numbers of files for phones."""

from __future__ import annotations

import math
from collections.abc import Iterable

from benchmarks import app_tables
from benchmarks.readme.statement import Content, percent, row_of

__all__ = ["app", "phone"]

_NETWORKS = {
    "resnet20_cifar": "ResNet-20, 32 px",
    "resnet56_cifar": "ResNet-56, 32 px",
    "vgg16_bn_cifar": "VGG-16-BN, 32 px",
    "mobilenet_v2": "MobileNetV2, 224 px",
    "espcn": "ESPCN, 96 px",
}
_BY_TABLE, _ANY_WIDTHS = "pruned, default", "unrounded, default"


def phone(content: Content) -> Iterable[str]:
    """The table of files, and what layers chosen by time cost."""
    for row in content["rows"]:
        files, measured = row["variants"], row["measured"]
        whole, int8 = files["baseline"]["bytes"], f"{_BY_TABLE}, int8"
        smaller = [f"{whole / files[name]['bytes']:.1f}x" for name in (_BY_TABLE, int8)]
        faster = [f"{measured['default'][name]['speedup']:.2f}x" for name in (_BY_TABLE, _ANY_WIDTHS, int8)]
        fewer = [f"{measured['arm64'][name]['fewer']:.2f}x" for name in (_BY_TABLE, int8)]
        wasm = f"{measured['wasm'][_BY_TABLE]['speedup']:.2f}x"
        cells = (_NETWORKS[row["network"]], "; ".join(smaller), *faster, wasm, "; ".join(fewer))
        yield f"| {' | '.join(cells)} |"
    named = row_of(content["rows"], network="resnet56_cifar")["measured"]["accuracy"]
    table, scores = (percent(named[name]["share"], 0) for name in (_BY_TABLE, _ANY_WIDTHS))
    yield f"ResNet-56 is at {table} % then, at {scores} % where scores alone choose"


def app(content: Content) -> Iterable[str]:
    """The claim of the app: memory, time and accuracy."""
    rows = [row for row in content["rows"] if row["key"] == "HAM10000"]
    less = {m.name: app_tables.reduction(m, rows, "small") for m in app_tables.MEASURES}
    heap, process = (
        less[f"memory: {what}"] for what in ("WebAssembly heap", "onnxruntime process, with its fixed cost")
    )
    least = min(share for name, share in less.items() if name.startswith("memory") and share is not None)
    time = min(share for name, share in less.items() if name.startswith("time") and share is not None)
    assert heap is not None and process is not None
    yield (
        f"at least {_floor(least)} % less by every definition of memory we know ({_floor(heap)} % less "
        f"WebAssembly heap, {_floor(process)} % less of the process) and {_floor(time)} % less time"
    )
    changes = [app_tables.accuracy_change(row, "small").change for row in rows]
    first, second = ([f"{100 * value:+.1f}" for value in (c.value, c.low, c.high)] for c in changes)
    yield (
        f"change accuracy by {first[0]} ({first[1]} to {first[2]}) and {second[0]} points "
        f"({second[1]} to {second[2]})"
    )


def _floor(share: float) -> str:
    """Whole per cent, rounded down: what is claimed is reached."""
    return f"{math.floor(100 * share)}"
