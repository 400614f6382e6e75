"""The rows of a filter report as aligned text and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compressor.filters.quality import Quality
from compressor.filters.report_layers import LayerReport
from compressor.tables import aligned

__all__ = ["markdown_table", "text_table"]


@dataclass(frozen=True)
class _Column:
    """A title, and what stands under it for a layer."""

    title: str
    cell: Callable[[LayerReport], str]


def text_table(layers: Sequence[LayerReport]) -> list[str]:
    """The lines of a table with a row for each layer; a dash where something is not defined."""
    columns = [*_FIRST, *_sparsities(_few(layers[0].quality)), *_REST, *_drift(layers), _VERDICT]
    rows = [[column.title for column in columns], *([c.cell(layer) for c in columns] for layer in layers)]
    lines = aligned(rows, words_last=True)
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def markdown_table(layers: Sequence[LayerReport]) -> list[str]:
    """The lines of a Markdown table, with the sparsity at every ε and the norms."""
    epsilons = tuple(layers[0].quality.sparsities)
    columns = [*_FIRST, *_sparsities(epsilons), *_REST, *_NORMS, *_drift(layers), _VERDICT]
    rows = [[column.title for column in columns], *([c.cell(layer) for c in columns] for layer in layers)]
    rule = ["---" if place in (0, len(columns) - 1) else "---:" for place in range(len(columns))]
    return [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]


def _number(value: float | None, places: int = 3) -> str:
    return "-" if value is None else f"{value:.{places}f}"


def _shape(layer: LayerReport) -> str:
    filters, kernels = layer.bank.weight.shape[:2]
    groups = f" g{layer.bank.groups}" if layer.bank.groups > 1 else ""
    return f"{filters}x{kernels}{groups}"


def _few(quality: Quality) -> list[float]:
    """The smallest ε, that of the verdicts, and the largest."""
    wanted = {min(quality.sparsities), quality.epsilon, max(quality.sparsities)}
    return [epsilon for epsilon in quality.sparsities if epsilon in wanted]


def _sparsities(epsilons: Sequence[float]) -> list[_Column]:
    def column(epsilon: float) -> _Column:
        return _Column(f"S {100 * epsilon:g}%", lambda layer: _number(layer.quality.sparsities[epsilon]))

    return [column(epsilon) for epsilon in epsilons]


def _drift(layers: Sequence[LayerReport]) -> list[_Column]:
    if all(layer.drift is None for layer in layers):
        return []
    return [
        _Column("D", lambda layer: _number(layer.drift.value if layer.drift else None)),
        _Column("floor", lambda layer: _number(layer.drift.noise.high if layer.drift else None)),
    ]


_FIRST = (
    _Column("layer", lambda layer: layer.bank.name),
    _Column("filters", _shape),
    _Column("kernel", lambda layer: "x".join(map(str, layer.bank.kernel_size))),
    _Column("n", lambda layer: f"{layer.bank.count:,}"),
)
_REST = (
    _Column("H", lambda layer: _number(layer.entropy)),
    _Column("H/T_H", lambda layer: _number(layer.entropy_ratio)),
    _Column("shapes", lambda layer: _number(layer.effective_shapes, 1)),
    _Column("orth", lambda layer: _number(layer.quality.orthogonality)),
    _Column("dead", lambda layer: str(len(layer.quality.dead_filters))),
    _Column("dead in", lambda layer: str(len(layer.quality.dead_channels))),
    _Column("pairs", lambda layer: str(layer.quality.duplicates.count)),
    _Column("max cos", lambda layer: _number(layer.largest_cosine, 2)),
)
_NORMS = (
    _Column("L1", lambda layer: f"{layer.quality.norms.l1:.4g}"),
    _Column("L2", lambda layer: f"{layer.quality.norms.l2:.4g}"),
)
_VERDICT = _Column("verdict", lambda layer: layer.verdict_words)
