"""The README's accuracies: without training, by searched ratios, on rare classes, after sparse training."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks import imbalanced
from benchmarks.accuracy_tables import accuracy_of
from benchmarks.readme.statement import Content, percent, row_of

__all__ = ["dead", "one_shot", "rare", "search", "sparse"]

_SHOWN = {
    "`ReconstructionError`, per MAC": ("ours", "ReconstructionError", "inner", "per MAC"),
    '`Norm(power=2, normalize="max")`': ("ours", "Norm(2, power=2, normalize='max')", "inner", "global"),
    "`Norm(power=2)`, the default": ("ours", "Norm(2, power=2)", "inner", "global"),
    "`BetaRank`": ("ours", "BetaRank", "inner", "global"),
    "Torch-Pruning, magnitude": ("torch-pruning", "Norm(2)", "inner", "global"),
    "Torch-Pruning, Taylor": ("torch-pruning", "Taylor", "inner", "global"),
}


def one_shot(few: Content, many: Content) -> Iterable[str]:
    """The table of scorers and what more images bring."""
    whole = _of(few, ("none", "dense", "-", "-"), 1.0)
    yield f"| the network as it is | {accuracy_of(whole, 'as_cut').split()[0]} | | |"
    best = max(accuracy_of(_of(few, method, 0.5), "reconstructed") for method in _ours())
    for name, method in _SHOWN.items():
        found = _of(few, method, 0.5)
        stages = [stage for stage in ("as_cut", "norms", "reconstructed") if stage in found[0]["right"]]
        cells = [accuracy_of(found, stage) for stage in stages]
        cells = [f"**{cell}**" if cell == best else cell for cell in cells]
        yield f"| {' | '.join([name, *cells, *([''] * (3 - len(cells)))])} |".replace("|  |", "| |")
    images = few["rows"][0]["images"]
    yield (f"{images['calibration']} images, ± standard error over {images['test']:,} test images")
    ours = _SHOWN["`ReconstructionError`, per MAC"]
    half, third = (accuracy_of(_of(many, ours, left), "reconstructed") for left in (0.5, 0.3))
    more = (
        f"[{many['rows'][0]['images']['calibration']:,} images](benchmarks/results/one_shot-1500-images.md)"
    )
    yield (f"With {more} it is at {half.split()[0]} %, and at {third} % with 70 % of the MACs removed")


def _ours() -> list[tuple[str, ...]]:
    return [method for method in _SHOWN.values() if method[0] == "ours"]


def _of(content: Content, method: Sequence[str], fraction: float) -> list[dict[str, Any]]:
    names = ("library", "scorer", "scope", "order")
    return [
        row
        for row in content["rows"]
        if row["fraction"] == fraction and tuple(row[name] for name in names) == tuple(method)
    ]


def rare(content: Content) -> Iterable[str]:
    """How far criteria lie apart on imbalanced images."""
    rows = [row for row in content["rows"] if "failure" not in row]
    apart, least = [], min(row["fraction"] for row in rows)
    for name in {row["set"] for row in rows}:
        runs: dict[str, dict[int, Content]] = {}
        for row in rows:
            if row["set"] == name and row["fraction"] == least:
                runs.setdefault(row["method"], {})[row["seed"]] = row
        base = runs.pop(imbalanced.REFERENCE)
        criteria = [own for method, own in runs.items() if method not in imbalanced.RESCALED]
        apart += [statistics.mean(imbalanced.differences(own, base, "test")[0]) for own in criteria]
    furthest = max(map(abs, apart))
    yield (
        f"every criterion lies within {100 * furthest:.1f} points of balanced accuracy of the L1 norm at "
        f"{100 * (1 - least):.0f} % of the MACs removed"
    )


def sparse(content: Content) -> Iterable[str]:
    """What MaskSparsity leaves of the scales, and how little the cut changes."""

    def kept(method: str) -> str:
        runs = [row for row in content["rows"]["runs"] if row["method"] == method]
        return f"{statistics.mean(row['kept_scale'] / row['kept_scale_before'] for row in runs):.2f}"

    masks = [row for row in content["rows"]["runs"] if row["method"] == "mask, proximal"]
    moved = max(row["logit_change"] for row in masks)
    yield f"({kept('mask, proximal')} of them; {kept('slimming, push 0.1')} by slimming)"
    yield f"the cut moves no logit by more than {math.ceil(1e6 * moved)}e-6"


def search(content: Content) -> Iterable[str]:
    """Accuracy as cut by who chooses the ratios."""

    def at(method: str) -> str:
        found = [row for row in content["rows"] if (row["method"], row["fraction"]) == (method, 0.7)]
        return accuracy_of(found, "as cut").split()[0]

    yield f"keeps ResNet-56 at {at('least drop, outputs')} % with 70 % of its MACs"
    yield f"all channels ranked together {at('global')} %, uniform {at('uniform')} %"


def dead(content: Content) -> Iterable[str]:
    """Dead filters and what they cost."""
    row = row_of(content["rows"], network="resnet56_cifar")
    folded, plain = (row["dead"][kind]["inside"] for kind in ("folded", "as they are"))
    assert row["changed"] == 0
    yield (
        f"In ResNet-56 {folded} filters inside blocks are dead ({plain} without folding its batch norms): "
        f"without them {percent(1 - row['macs_left'])} % of the MACs are gone and no answer changes."
    )
