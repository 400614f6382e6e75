"""What was proved of the small model, of which inputs and plan, and with what."""

from __future__ import annotations

import json
import platform

import numpy
import torch

from compressor.reporting.blocks import Facts, Text
from compressor.reporting.case import Case
from compressor.reporting.document import Section
from compressor.version import __version__

__all__ = ["certificate"]


def certificate(case: Case) -> Section:
    """The result of `verify`, which ran when the report was made."""
    proof = case.proof
    digest = str(json.loads(case.plan.to_json())["digest"])
    versions = {
        "compressor": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
    }
    inputs = ", ".join(case.before.inputs) or "no tensors"
    facts = [
        ("result", f"relative error {proof.error:.1e}, allowed {case.tolerance:.0e}"),
        ("compared", f"{_count(proof.outputs, 'output')} and {_count(proof.layers, 'layer')}"),
        ("arithmetic", f"float64, weights scrambled with seed {case.seed}"),
        ("inputs", inputs),
        ("plan, SHA-256", digest),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    if proof.statistics:
        facts.insert(
            3,
            (
                "statistics",
                f"{_count(proof.statistics, 'norm or reduction', 'norms and reductions')} over the kept "
                "channels only, in the reference too",
            ),
        )
    text = Text(
        "The original, with every reader of a removed channel silenced, and the small model give the same. "
        "That proves the cut, whatever was trained since; it says nothing of accuracy.",
        soft=True,
    )
    data = {
        "error": proof.error,
        "tolerance": case.tolerance,
        "outputs": proof.outputs,
        "layers": proof.layers,
        "statistics": proof.statistics,
        "dtype": "float64",
        "seed": case.seed,
        "inputs": list(case.before.inputs),
        "plan_sha256": digest,
        "versions": versions,
    }
    return Section("certificate", "Verification", (text, Facts(tuple(facts))), data)


def _count(number: int, word: str, several: str = "") -> str:
    return f"{number} {word}" if number == 1 else f"{number} {several or f'{word}s'}"
