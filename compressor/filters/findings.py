"""What stands out in which layers of a report, and what that suggests, in words."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from compressor.filters.quality import Verdict
from compressor.filters.report_layers import LayerReport

__all__ = ["CAVEAT", "Finding", "findings", "trend"]

CAVEAT = (
    "S, H and the verdicts describe weights; they are no scores of quality. A simple, sparse or random layer "
    "may be all that its task needs: cut, measure accuracy, and compare with cutting as much by norm or at "
    "random."
)
_NAMED = 6  # layers, filters and pairs that are named one by one
_CUT = "They can be cut; where their output is added to others', with those only."
_APART = 2.0  # times the median D of all layers, and times the noise floor


@dataclass(frozen=True)
class Finding:
    """What was found, in which layers (each with what is to say of it alone), and what it suggests."""

    what: str
    layers: tuple[str, ...]
    details: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        named = [" ".join(filter(None, pair)) for pair in zip(self.layers, self.details, strict=True)]
        return f"{self.what}: {_listed(named, '; ')}. {self.advice}"


def findings(layers: Sequence[LayerReport]) -> tuple[Finding, ...]:
    """What stands out in these layers, what can be cut at once first."""
    return tuple(finding for look in _LOOKS for finding in look(layers))


def trend(layers: Sequence[LayerReport]) -> str:
    """How diversity and sparsity go from input to output: medians of thirds of the layers, or nothing.

    Where depths are not known the layers come in their order. Layers whose diversity is not judged are left
    out; fewer than six make no trend.
    """
    judged = [(layer, layer.entropy_ratio) for layer in layers if layer.entropy_ratio is not None]
    if len(judged) < 6:
        return ""
    judged.sort(key=lambda pair: _place(pair[0]))
    cuts = [round(len(judged) * part / 3) for part in range(4)]
    thirds = [judged[start:end] for start, end in pairwise(cuts)]
    ratios = " | ".join(f"{statistics.median(ratio for _, ratio in third):.3f}" for third in thirds)
    shares = " | ".join(f"{statistics.median(x.quality.sparsity for x, _ in third):.3f}" for third in thirds)
    (weakest, ratio) = min(judged, key=lambda pair: pair[1])
    order = "From input to output" if all(x.bank.conv_depth is not None for x, _ in judged) else "As defined"
    return (
        f"{order}, medians of thirds of the layers: H/T_H {ratios}; S {shares}. "
        f"Least diverse: {weakest.bank.name} ({ratio:.3f})."
    )


def _place(layer: LayerReport) -> float:
    return layer.bank.conv_depth if layer.bank.conv_depth is not None else 0


# -- looks -----------------------------------------------------------------------------------------


def _dead(layers: Sequence[LayerReport]) -> Iterator[Finding]:
    """Filters that write next to nothing, apart for those whose batch norm is folded in."""
    for folded, advice in (
        (True, f"Their batch norm is folded in: they write a constant and next to nothing else. {_CUT}"),
        (False, f"{_CUT} But a batch norm behind that is not folded in may scale them up."),
    ):
        found = [x for x in layers if x.quality.dead_filters and x.bank.folded is folded]
        details = [f"{_listed(x.quality.dead_filters)} of {len(x.bank.weight)}" for x in found]
        weights = sum(len(x.quality.dead_filters) * x.bank.weight[0].numel() for x in found)
        yield from _found(f"Dead filters ({weights:,} weights)", found, details, advice)


def _unread(layers: Sequence[LayerReport]) -> Iterator[Finding]:
    found = [x for x in layers if x.quality.dead_channels]
    details = [f"{_listed(x.quality.dead_channels)} of {x.quality.channels}" for x in found]
    weights = sum(len(x.quality.dead_channels) * x.bank.weight[:, 0].numel() // x.bank.groups for x in found)
    yield from _found(
        f"Input channels that no filter looks at ({weights:,} weights)",
        found,
        details,
        "What writes them can be cut where no other layer reads them.",
    )


def _twins(layers: Sequence[LayerReport]) -> Iterator[Finding]:
    found = [x for x in layers if x.quality.duplicates.count]
    details = []
    for layer in found:
        (i, j, cosine), more = layer.quality.duplicates.pairs[0], layer.quality.duplicates.count - 1
        details.append(f"({i}, {j}) cos {cosine:.3f}{f' and {more} more' if more else ''}")
    yield from _found(
        "Pairs of filters that are about parallel",
        found,
        details,
        "With cos near 1 and biases alike up to the same factor, one of a pair can stand in for both, its "
        "reader's weights added up; with cos near -1 not behind a ReLU.",
    )


def _judged(layers: Sequence[LayerReport]) -> Iterator[Finding]:
    for verdict, detail, advice in _JUDGEMENTS:
        found = [layer for layer in layers if verdict in layer.quality.verdicts]
        yield from _found(verdict.value.capitalize(), found, [detail(layer) for layer in found], advice)


def _apart(layers: Sequence[LayerReport]) -> Iterator[Finding]:
    drifts = [(x, x.drift) for x in layers if x.drift is not None and x.drift.above_noise]
    if len(drifts) < 4:
        return
    usual = statistics.median(drift.value for _, drift in drifts)
    found = [(x, d) for x, d in drifts if d.value > _APART * max(usual, d.noise.high)]
    yield from _found(
        f"Other kernels than the reference (D above {_APART:g} times the noise and the median, {usual:.3f})",
        [x for x, _ in found],
        [f"(D {d.value:.2f}, noise {d.noise.high:.2f})" for _, d in found],
        "They do another kind of work; look at their panels before cutting them as the others.",
    )


# What a verdict is said with of each layer, and what it suggests.
_JUDGEMENTS: tuple[tuple[Verdict, Callable[[LayerReport], str], str], ...] = (
    (
        Verdict.SPARSE,
        lambda layer: f"(S {layer.quality.sparsity:.2f})",
        "Many of their kernels do next to nothing: wider than needed, worth cutting first.",
    ),
    (
        Verdict.RANDOM,
        lambda layer: f"(H/T_H {layer.entropy_ratio:.3f})",
        "Their kernels vary in all directions alike, as untrained ones do: trained too short, or wider than "
        "what there was to learn. Train on, or cut there and look again.",
    ),
    (
        Verdict.LOW_DIVERSITY,
        lambda layer: f"({layer.effective_shapes:.1f} shapes)",
        "All their kernels are about mixtures of so many shapes: a few shared shapes and a 1 x 1 convolution "
        "may do.",
    ),
)
_LOOKS: tuple[Callable[[Sequence[LayerReport]], Iterator[Finding]], ...] = (
    _dead,
    _unread,
    _twins,
    _judged,
    _apart,
)


def _found(
    what: str, layers: Sequence[LayerReport], details: Sequence[str], advice: str
) -> Iterator[Finding]:
    if layers:
        yield Finding(what, tuple(layer.bank.name for layer in layers), tuple(details), advice)


def _listed(items: Sequence[object], separator: str = ", ") -> str:
    named = separator.join(map(str, items[:_NAMED]))
    more = len(items) - _NAMED
    return named if more <= 0 else f"{named}{separator}and {more} more"
