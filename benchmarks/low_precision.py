"""Pruning and int8 together: a CIFAR-10 network and half of it, float32, int8 and half precision.

    python -m benchmarks.low_precision [--quick] [--network NAME] [--fraction F] [--round-to N]

The network is cut to a fraction of its MACs and reconstructed from unlabelled training images, nothing is
trained. Every file is held against the unpruned float32 file on test images: bytes, SQNR, agreement,
accuracy, and speed in onnxruntime, once with its blocked layout for x86 and once without, as phones run it.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

import compressor as cp
from benchmarks import cifar, results, zoo
from benchmarks.cifar import Data
from compressor.errors import QuantisationWarning
from compressor.export import FileComparison
from compressor.runtimes import OnnxRuntime, Optimization

_LAYOUTS = {
    Optimization.ALL: "onnxruntime as it comes, blocked layout on x86",
    Optimization.EXTENDED: "onnxruntime without blocked layout",
}


def main() -> int:
    """The exit code after the files were made and held against each other."""
    options = _options()
    torch.set_num_threads(1)
    try:
        folder = zoo.shared_folder(options.shared)
        net, data = cifar.load(folder, train=options.calibration, test=options.test, name=options.network)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    seconds = 1.0 if options.quick else 8.0
    test = list(zip(data.x_test.split(100), data.y_test.split(100), strict=True))
    with tempfile.TemporaryDirectory() as out:
        files = _files(net, data, Path(out), options)
        found = {
            layout: cp.export.compare_files(
                files, test, runtime=OnnxRuntime(optimization=layout), seconds=seconds
            )
            for layout in _LAYOUTS
        }
    tables = [_table(title, found[layout]) for layout, title in _LAYOUTS.items()]
    for table in tables:
        print(f"\n{table.text()}")
    facts = results.context("low_precision", vars(options), seeds=[])
    rows = {layout.name: _plain(comparison) for layout, comparison in found.items()}
    kind = "low_precision-quick" if options.quick else f"low_precision-{options.network}"
    print(f"\nwritten to {results.save(kind, facts, rows, tables)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.low_precision", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="64 calibration and 200 test images")
    parser.add_argument("--network", choices=cifar.CHECKPOINTS, default="resnet20_cifar")
    parser.add_argument("--fraction", type=float, default=0.5, help="of MACs left")
    parser.add_argument("--round-to", type=int, default=8, help="channels are left in multiples of it")
    parser.add_argument("--calibration", type=int, default=None, help="images; default 512, with --quick 64")
    parser.add_argument("--test", type=int, default=None, help="default 1000, with --quick 200")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    options.calibration = options.calibration or (64 if options.quick else 512)
    options.test = options.test or (200 if options.quick else 1000)
    return options


def _files(net: torch.nn.Module, data: Data, out: Path, options: argparse.Namespace) -> list[Path]:
    """The network and its pruned copy, each in three precisions; the network in float32 first."""
    x, batches = data.x_test[:1], data.batches(options.calibration)
    small = cp.prune(
        net,
        x,
        budget=cp.budget.Macs(options.fraction, round_to=options.round_to),
        recover=cp.recovery.Reconstruction([images for images, _ in batches]),
    )
    files = []
    for name, model in (("base", net), ("pruned", small)):
        source = cp.export.onnx(model, x, out / f"{name}.onnx").path
        quick = cp.export.Acceptance(seconds=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantisationWarning)  # the tables say it better
            int8 = cp.export.int8(source, batches, out / f"{name}.int8.onnx", checks=quick).path
        fp16 = cp.export.fp16(source, batches, out / f"{name}.fp16.onnx", checks=quick).path
        files += [source, int8, fp16]
    return files


def _table(title: str, found: FileComparison) -> results.Table:
    columns = (
        "file",
        "bytes",
        "size",
        "SQNR dB",
        "top-1 agreement %",
        "accuracy %",
        "ms",
        "speed-up",
        "range",
    )
    first, lines = found.rows[0], []
    for row, timing in zip(found.rows, found.latency.timings, strict=True):
        assert row.accuracy is not None
        lines.append(
            (
                row.path.name,
                f"{row.file_bytes:,}",
                f"{row.file_bytes / first.file_bytes:.2f}",
                f"{min(row.fidelity.sqnr_db.values()):.1f}",
                f"{100 * min(row.fidelity.agreement.values()):.1f}",
                f"{100 * row.accuracy:.1f}",
                f"{timing.ms:.3f}",
                f"{timing.speedup:.2f}",
                f"{timing.speedup_p10:.2f}-{timing.speedup_p90:.2f}",
            )
        )
    note = (
        f"{first.fidelity.examples} test images, one image at a time for speed: {found.latency.clock}, "
        f"{found.latency.rounds} interleaved rounds (10-90 %). Nothing was trained."
    )
    return results.Table(title, columns, tuple(lines), (note,))


def _plain(found: FileComparison) -> dict[str, Any]:
    """The numbers for JSON, which knows no infinity: the first file's noise is none."""
    rows = [{**asdict(row), "path": row.path.name} for row in found.rows]
    for row in rows:
        noise = row["fidelity"]["sqnr_db"]
        row["fidelity"]["sqnr_db"] = {k: v if math.isfinite(v) else None for k, v in noise.items()}
    return {"files": rows, "latency": asdict(found.latency)}


if __name__ == "__main__":
    sys.exit(main())
