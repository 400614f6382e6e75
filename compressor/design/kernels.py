"""Which convolutions could do with smaller kernels, or few shared ones: a proposal that can be applied."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from compressor.design.kernel_basis import BasisSize, ByEntropy
from compressor.design.kernel_changes import KernelChange, SharedBasis, SmallerKernel
from compressor.design.kernel_rewriting import convolutions, output_error, rewrite_kernels, untouchable
from compressor.design.rings import energy_outside, n_rings
from compressor.errors import InputError
from compressor.filters import FilterBank
from compressor.profiling import profile
from compressor.tables import aligned

__all__ = ["KernelProposal", "LayerKernels", "suggest_kernels"]

_BY_ENTROPY = ByEntropy()


@dataclass(frozen=True)
class LayerKernels:
    """One convolution of a proposal; `change` is None where it stays, for the reason in `note`.

    `outside` is the share of Σ w² in the outermost ring, `shapes` the number of basis kernels that the rule
    asks for (None where a basis makes no sense), `energy_lost` the share of Σ w² that the change loses.
    """

    layer: str
    kernel_size: tuple[int, ...]
    outside: float
    shapes: int | None
    change: KernelChange | None
    energy_lost: float
    macs: int
    suggested_macs: int
    note: str = ""


@dataclass(frozen=True, repr=False)
class KernelProposal:
    """Changes of kernels and what they save; `str()` is a table.

    `output_error` is how far the outputs move on the example inputs when all are made, see `output_error` of
    this package; nothing is trained for that. MACs are of the whole model.
    """

    model: str
    layers: tuple[LayerKernels, ...]
    macs: int
    suggested_macs: int
    output_error: float

    @property
    def changes(self) -> dict[str, KernelChange]:
        """The proposed changes by layer, as `rewrite_kernels` takes them."""
        return {row.layer: row.change for row in self.layers if row.change is not None}

    def apply(self, model: nn.Module) -> nn.Module:
        """A copy of the model (or of another of the same architecture) with the changes made."""
        return rewrite_kernels(model, self.changes)

    def __repr__(self) -> str:
        return (
            f"KernelProposal({self.model}: {len(self.changes)} of {len(self.layers)} convolutions, "
            f"{self.suggested_macs:,} of {self.macs:,} MACs)"
        )

    def __str__(self) -> str:
        head = ("layer", "suggestion", "kernel", "outer ring", "shapes", "lost", "MACs", "suggested MACs")
        total = ("total", "", "", "", "", "", f"{self.macs:,}", f"{self.suggested_macs:,}")
        lines = aligned([head, *map(_cells, self.layers), total], left=2)
        rule = "-" * max(map(len, lines))
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
        saved = 1 - self.suggested_macs / self.macs if self.macs else 0.0
        error = (
            f"{saved:.1%} of the MACs saved; relative error of the outputs {self.output_error:.2g}, untrained"
        )
        return "\n".join([self.model, *lines, error, *self._notes()])

    def _notes(self) -> Iterator[str]:
        reasons: dict[str, list[str]] = {}
        for row in self.layers:
            if row.note:
                reasons.setdefault(row.note, []).append(row.layer)
        for reason, layers in reasons.items():
            more = f" and {len(layers) - 3} more" if len(layers) > 3 else ""
            yield f"{', '.join(layers[:3])}{more}: {reason}"


def suggest_kernels(
    model: nn.Module,
    *args: Any,
    discard: float = 0.05,
    basis: BasisSize | None = _BY_ENTROPY,
    least_saving: float = 0.1,
    **kwargs: Any,
) -> KernelProposal:
    """Smaller kernels where the outer rings are almost empty, and few shared kernels where shapes repeat.

    `args` and `kwargs` are example inputs. Outer rings go as long as they hold at most the share `discard` of
    a layer's Σ w² together: 5x5 to 3x3, and 3x3 to 1x1 where the centres hold 95 %. `basis` says how many
    kernels all of a layer could share (see `SharedBasis`); None leaves that out. Of both the one with fewer
    MACs is proposed, if it saves the share `least_saving` of the layer's: two convolutions in place of one
    take more time for the same MACs. The model is left as it is; the error of its outputs with all changes
    made, and nothing trained, is measured on the example inputs.

    Fewer MACs are not less time: in onnxruntime on x86 a ResNet-20 with a few layers on shared kernels (6 %
    of the MACs less, as accurate) took 1.2 times as long, with depthwise convolutions in it (`python
    -m benchmarks.filter_widths`). Hold a proposal to `profiling.latency` where it is to run.

    *Source: A. Hirani, W. H. Abdulla, 2024, arXiv 2410.21644, section 2 on sizes; few mixed kernels: arXiv
    2301.11360. The rules are this library's.*

    Raises InputError where the model has no convolution that runs, or a weight is not finite, CaptureError
    where it does not run on the inputs.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(4, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    >>> net[0].weight.data *= torch.nn.functional.pad(torch.ones(3, 3), (1, 1, 1, 1))
    >>> proposal = suggest_kernels(net, torch.ones(1, 4, 8, 8))
    >>> proposal
    KernelProposal(Sequential: 1 of 2 convolutions, 55,296 of 88,064 MACs)
    >>> proposal.apply(net)[0]
    Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    """
    if isinstance(discard, bool) or not 0 <= discard < 1:
        raise InputError(f"suggest_kernels(discard={discard!r}): a share of the energy, 0 to 1, is expected")
    if isinstance(least_saving, bool) or not 0 <= least_saving < 1:
        raise InputError(f"suggest_kernels(least_saving={least_saving!r}): a share of the MACs, 0 to 1")
    whole = profile(model, *args, **kwargs)
    found = convolutions(model)
    work = {row.module: row.macs for row in whole.rows}
    if not any(work.get(name) for name in found):
        raise InputError(
            f"suggest_kernels: {whole.model} has no convolution (Conv1d, Conv2d, Conv3d) that runs on the "
            "example inputs"
        )
    layers = []
    for name, conv in found.items():
        FilterBank(conv.weight.detach(), name or "(model)")  # its checks, with the name
        macs = work.get(name, 0)
        why = untouchable(model, conv) or (None if macs else "it does not run on the example inputs")
        offers, shapes, note = ([], None, why) if why else _offers(conv, discard, basis)
        layers.append(_best(name, conv, macs, offers, shapes, note, (1 - least_saving) * macs))
    changes = {row.layer: row.change for row in layers if row.change is not None}
    return KernelProposal(
        model=whole.model,
        layers=tuple(layers),
        macs=whole.macs,
        suggested_macs=whole.macs - sum(row.macs - row.suggested_macs for row in layers),
        output_error=_error(model, rewrite_kernels(model, changes), *args, **kwargs),
    )


def _error(model: nn.Module, small: nn.Module, *args: Any, **kwargs: Any) -> float:
    try:
        return output_error(model, small, *args, **kwargs)
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} does not run with its kernels changed: {type(error).__name__}: {error}. "
            "Where forward reads attributes of a convolution itself, keep it one: suggest_kernels(..., "
            "basis=None), or rewrite_kernels with the changes of your choice"
        ) from error


def _offers(
    conv: _ConvNd, discard: float, basis: BasisSize | None
) -> tuple[list[KernelChange], int | None, str]:
    """What a convolution could become, how many kernels the basis would have, and what stands in the way."""
    crops = (SmallerKernel(rings) for rings in range(n_rings(conv.kernel_size), 0, -1))
    empty: list[KernelChange] = [crop for crop in crops if crop.energy_lost(conv) <= discard]
    offers = [crop for crop in empty if crop.hindrance(conv) is None][:1]
    note = (empty[0].hindrance(conv) or "") if empty else ""
    if basis is None or SharedBasis(1).hindrance(conv) is not None:
        return offers, None, note
    shapes = basis(conv.weight.detach())
    return [*offers, SharedBasis(shapes)], shapes, note


def _best(
    name: str,
    conv: _ConvNd,
    macs: int,
    offers: Sequence[KernelChange],
    shapes: int | None,
    note: str,
    most: float,
) -> LayerKernels:
    """The offer with the fewest MACs, if they are at most `most` and fewer than now."""
    places, rest = divmod(macs, conv.weight.numel())
    assert not rest, f"{name}: {macs} MACs of a weight of {conv.weight.numel()}"
    fitting = [o for o in offers if o.macs_at(conv) * places <= most and o.macs_at(conv) * places < macs]
    best = min(fitting, key=lambda offer: offer.macs_at(conv), default=None)
    notes = [note] if note else []
    if not conv.weight.detach().any():
        notes.append("nothing but zeros")
    return LayerKernels(
        layer=name,
        kernel_size=tuple(conv.kernel_size),
        outside=energy_outside(conv.weight.detach(), 1),
        shapes=shapes,
        change=best,
        energy_lost=best.energy_lost(conv) if best else 0.0,
        macs=macs,
        suggested_macs=best.macs_at(conv) * places if best else macs,
        note="; ".join(notes),
    )


def _cells(row: LayerKernels) -> tuple[str, ...]:
    return (
        row.layer or "(model)",
        "-" if row.change is None else repr(row.change),
        "x".join(map(str, row.kernel_size)),
        f"{row.outside:.1%}" if math.prod(row.kernel_size) > 1 else "-",
        "-" if row.shapes is None else str(row.shapes),
        "-" if row.change is None else f"{row.energy_lost:.1%}",
        f"{row.macs:,}",
        f"{row.suggested_macs:,}",
    )
