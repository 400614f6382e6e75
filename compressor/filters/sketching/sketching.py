"""The sketch of one layer."""

from __future__ import annotations

from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import FilterBank
from compressor.filters.sketching.layers import BankPart, Part
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.sketching.tally import Peak, Tally

__all__ = ["sketch", "sketch_part"]


def sketch(bank: FilterBank, setting: SketchSetting) -> Sketch:
    """The sketch of a bank's kernels; see `Sketch`.

    Raises InputError where kernels have another number of elements than those of the setting's basis.

    >>> import torch
    >>> from compressor.filters.basis import Basis
    >>> setting = SketchSetting(Basis.cosines((3, 3)))
    >>> sketch(FilterBank(torch.eye(9).reshape(9, 1, 3, 3), "conv1"), setting)
    Sketch(9 kernels of 1 layer, peak 1)
    """
    return sketch_part(BankPart(bank), setting)


def sketch_part(part: Part, setting: SketchSetting) -> Sketch:
    """The sketch of one layer of a source, read in chunks: its peak first, where it is not known."""
    layer, named = part.layer, str(part.layer)
    peak = part.peak if part.peak is not None else _peak(part, named)
    shape = None
    if layer.out_channels is not None and layer.in_channels is not None:
        shape = layer.out_channels, layer.in_channels
    tally = Tally(setting, peak, named=named, shape=shape, groups=layer.groups)
    for chunk_NK in part.chunks():
        tally.add(chunk_NK)
    made = tally.sketch()
    if made.count != layer.count:
        raise InputError(
            f"{named}: its source announced {layer.count} kernels and gave {made.count}: the file changed "
            "or is cut short"
        )
    return made


def _peak(part: Part, named: str) -> Tensor:
    peak = Peak(named)
    for chunk_NK in part.chunks():
        peak.add(chunk_NK)
    return peak.value
