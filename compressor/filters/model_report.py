"""A report on the filters of a model: a table, what stands out, and figures."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from compressor.core.graph import Graph
from compressor.errors import InputError
from compressor.filters.bank import FilterBank
from compressor.filters.basis import Basis
from compressor.filters.figures.of_report import write_figures
from compressor.filters.findings import CAVEAT, Finding, findings, trend
from compressor.filters.kernel_sizes import KernelSize
from compressor.filters.modules import banks
from compressor.filters.quality import Quality, quality
from compressor.filters.report_layers import LayerReport
from compressor.filters.report_tables import markdown_table, text_table
from compressor.filters.standing import Standing, standing

__all__ = ["FilterReport", "report", "report_of"]

_WIDTH = 110


@dataclass(frozen=True, eq=False, repr=False)
class FilterReport:
    """One row for each convolution of a model; `str()` is a table with what stands out under it.

    Columns: S the share of kernels that are small beside the largest weight of the layer, at several bounds;
    H the variance entropy, H / T_H its ratio to random kernels, `shapes` 10^H; `orth` 1 for filters at right
    angles, 0 for parallel ones; `dead` filters and, of its input channels, those that no filter looks at;
    `pairs` of about parallel filters and the largest |cos| of any two; D how far the kernels' shapes are from
    those of the reference, noise below `floor`. See `quality` and `divergence`.

    `standing` says which basis shapes are told in, and what D is taken to; it is None where no kernels have a
    shape.
    """

    model: str
    layers: tuple[LayerReport, ...]
    standing: Standing | None = None

    def __repr__(self) -> str:
        count = len(self.layers)
        return f"FilterReport({self.model}: {count} layer{'' if count == 1 else 's'})"

    def __str__(self) -> str:
        return self.summary()

    def __getitem__(self, name: str) -> LayerReport:
        """The layer of that name; InputError where there is none, or several (a module called twice)."""
        found = [layer for layer in self.layers if layer.bank.name == name]
        if len(found) != 1:
            known = ", ".join(layer.bank.name for layer in self.layers[:8])
            what = f"{len(found)} layers" if found else "no layer"
            raise InputError(f"the report has {what} {name!r}; `layers` has them all: {known}, ...")
        return found[0]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What stands out in which layers, and what it suggests."""
        return findings(self.layers)

    @property
    def farthest(self) -> LayerReport | None:
        """The layer whose kernels are farthest from the reference, D counted in noise floors; or None."""
        drifts = [(layer.drift, layer) for layer in self.layers if layer.drift]
        placed = [(d.value / d.noise.high, layer) for d, layer in drifts if d.noise.high > 0]
        return max(placed, key=lambda pair: pair[0])[1] if placed else None

    @property
    def folded(self) -> int:
        """In how many layers a batch norm was folded."""
        return sum(layer.bank.folded for layer in self.layers)

    def summary(self) -> str:
        """The table and the findings as text."""
        lines = [self._title(), *text_table(self.layers)]
        for text in self._texts():
            lines += textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """The same as Markdown, with the sparsity at every ε and the norms."""
        notes = [f"- {text}" for text in self._texts()]
        return "\n".join([f"**{self._title()}**", "", *markdown_table(self.layers), "", *notes, ""])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON: None where something is not defined, never NaN."""
        return {
            "model": self.model,
            "basis": None if self.standing is None else self.standing.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "findings": [
                {"what": f.what, "layers": list(f.layers), "details": list(f.details), "advice": f.advice}
                for f in self.findings
            ],
        }

    def figures(
        self, folder: str | os.PathLike[str], *, formats: Sequence[str] = ("png",)
    ) -> tuple[Path, ...]:
        """The paths of the figures, written to a folder that is made where it is missing.

        `depth`: measures by layer. Where there is a basis: `basis`, its shapes; `coefficients`, how the
        kernels of the first, middle and last third of the layers are distributed along each, and those of the
        layer that is farthest from the reference; `phenotypes`, a cloud of kernels for each layer, 49 to a
        file. Formats are "png", "svg" and "pdf". Raises MissingExtraError without Matplotlib.

        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in report(nn.Conv2d(3, 8, 3)).figures(folder)]
        ['depth.png', 'basis.png', 'coefficients.png', 'phenotypes.png']
        """
        return write_figures(self, folder, formats=formats)

    def _title(self) -> str:
        weights = sum(layer.bank.weight.numel() for layer in self.layers)
        kernels = sum(layer.bank.count for layer in self.layers)
        folded = f"batch norm folded into {self.folded}" if self.folded else "weights as they are"
        counts = f"{len(self.layers)} convolutions, {kernels:,} kernels, {weights:,} weights"
        return f"{self.model}: {counts}; {folded}"

    def _texts(self) -> Iterable[str]:
        found = self.findings
        if self.standing is not None:
            yield str(self.standing)
        yield from filter(None, [trend(self.layers)])
        yield from map(str, found)
        if not found:
            yield "Nothing stands out: no layer is sparse, random or of low diversity, no filter is dead."
        yield CAVEAT


def report(
    model: nn.Module,
    x: Tensor | tuple[Any, ...] | Mapping[str, Any] | Graph | None = None,
    *,
    fold_batch_norm: bool = False,
    kernel_size: KernelSize = None,
    include_transposed: bool = False,
    model_name: str = "",
    basis: Basis | None = None,
    reference: Iterable[FilterBank] | None = None,
    measure: Callable[[FilterBank], Quality] = quality,
) -> FilterReport:
    """What the filters of a model are like, layer by layer, and what stands out.

    The model is left as it was. `x` and the next three options are those of `banks`, whose errors are raised:
    with example inputs layers come in the order in which they run, with their depth. Batch norms folded in
    say what the network computes with: a norm's scale revives filters, and kills them.

    - `basis`: the shapes that kernels are told in, say those of a data base; else the principal axes of the
      reference's kernels. Numbers in different bases do not compare.
    - `reference`: banks, of another model say, that each layer's kernels are compared with; else with those
      of the other layers.
    - `measure`: what is measured of a layer, such as `partial(quality, epsilon=0.02)`.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3))
    >>> with torch.no_grad():
    ...     _ = net[0].weight[4].zero_()
    >>> print(report(net).findings[0])
    Dead filters (27 weights): 0 4 of 16. They can be cut; where their output is added to others', with those
    only. But a batch norm behind that is not folded in may scale them up.
    """
    name = model_name or type(model).__name__
    found = banks(
        model,
        x,
        kernel_size=kernel_size,
        include_transposed=include_transposed,
        fold_batch_norm=fold_batch_norm,
        model_name=name,
    )
    return report_of(found, model=name, basis=basis, reference=reference, measure=measure)


def report_of(
    found: Iterable[FilterBank],
    *,
    model: str = "",
    basis: Basis | None = None,
    reference: Iterable[FilterBank] | None = None,
    measure: Callable[[FilterBank], Quality] = quality,
) -> FilterReport:
    """The same of banks from anywhere: ONNX files, a store, another model's.

    `model` stands in the title; the banks' own where they agree, if it is left out. Raises InputError for no
    bank, and where no kernels fit the basis or the reference.

    >>> import torch
    >>> report_of([FilterBank(torch.randn(8, 4, 3, 3), "conv1")], model="net")
    FilterReport(net: 1 layer)
    """
    layers = tuple(LayerReport(bank, measure(bank)) for bank in _checked(found, "report_of"))
    if not layers:
        raise InputError("report_of takes one bank or more, got none")
    names = {layer.bank.model for layer in layers}
    title = model or (names.pop() if len(names) == 1 else f"{len(names)} models")
    compared = None if reference is None else _checked(reference, "a reference")
    found_standing, layers = standing(layers, basis=basis, reference=compared)
    return FilterReport(title, layers, found_standing)


def _checked(found: Iterable[FilterBank], named: str) -> tuple[FilterBank, ...]:
    kept = tuple(found) if isinstance(found, Iterable) else (found,)
    for bank in kept:
        if not isinstance(bank, FilterBank) or not isinstance(found, Iterable):
            raise InputError(
                f"{named} takes filter banks, as banks(model) gives them, got {type(found).__name__} of "
                f"{type(bank).__name__}: FilterBank(weight, name) makes one, and one goes into a list"
            )
    return kept
