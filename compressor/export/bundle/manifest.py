"""The list of what a bundle holds: checksums, shapes, sizes, agreement, plan. No dates, no times."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.export.files.fidelity import Fidelity
from compressor.export.low_precision.accepting import LowPrecisionReport
from compressor.export.onnx import OnnxReport
from compressor.export.ort_mobile.ort_format import OrtReport
from compressor.profiling import Profile
from compressor.version import __version__

__all__ = ["FORMAT", "MANIFEST", "manifest_of"]

MANIFEST, FORMAT = "manifest.json", "compressor mobile bundle"


def manifest_of(
    folder: Path,
    profile: Profile,
    onnx: OnnxReport,
    int8: LowPrecisionReport | None,
    ort: tuple[OrtReport, ...],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """The manifest of the files in `folder` as plain data; what was timed is not in it."""
    said = onnx.metadata
    agreement: dict[str, Any] = {onnx.path.name: _exactness(onnx)}
    if int8 is not None:
        agreement[int8.path.name] = {"against": onnx.path.name, **_plain(int8.fidelity)}
    for report in ort:
        for file in report.files:
            agreement[file.path.name] = {"against": report.source.name, **_plain(file.fidelity)}
    return {
        "format": FORMAT,
        "version": 1,
        "library": __version__,
        "model": profile.model,
        "plan_digest": said.plan_digest,
        "opset": onnx.opset,
        "inputs": {name: list(dims) for name, dims in onnx.inputs.items()},
        "outputs": {name: list(dims) for name, dims in onnx.outputs.items()},
        "mean": None if said.mean is None else list(said.mean),
        "std": None if said.std is None else list(said.std),
        "classes": list(said.classes),
        "costs": profile.to_dict()["totals"],
        "agreement": agreement,
        "usability": {provider.provider: provider.verdict.value for provider in ort[0].usability.providers},
        "left_out": dict(left_out),
        "files": {name: _checked(folder / name) for name in names_in(folder)},
    }


def names_in(folder: Path) -> list[str]:
    """The files in a folder and the folders in it, by their names from there, in order."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _checked(path: Path) -> Mapping[str, object]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _exactness(onnx: OnnxReport) -> Mapping[str, object]:
    ran = onnx.agreement
    return {
        "against": "PyTorch",
        "relative_error": max(ran.error, ran.second_error),
        "shapes": [{name: list(dims) for name, dims in at.items()} for at in (ran.shapes, ran.second_shapes)],
    }


def _plain(found: Fidelity) -> Mapping[str, object]:
    # JSON knows no infinity: files that compute the same to the bit have no noise.
    noise = {name: None if value == float("inf") else value for name, value in found.sqnr_db.items()}
    return {"examples": found.examples, "sqnr_db": noise, "top1_agreement": dict(found.agreement)}
