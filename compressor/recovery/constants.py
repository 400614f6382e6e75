"""What silenced channels emit: the constants that their readers see, and what comes of them there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from compressor.core.plan import Cut
from compressor.errors import InputError
from compressor.observing.layers import LayerCall, rerun

__all__ = ["Constant", "ConstantWatch"]


@dataclass(frozen=True, eq=False)
class Constant:
    """What the removed channels add to every output channel of a reader: `added` [out], float64.

    It is their share in the middle of the reader's output; `border` is how far it is from that
    elsewhere, at most: where zero padding meets a constant.
    """

    reader: str
    bias: Tensor | None
    channels: int
    added: Tensor
    border: float


@dataclass(eq=False)
class _Seen:
    """One call of a reader in a forward pass: its removed inputs [channels, *positions], over examples."""

    call: LayerCall
    first: Tensor
    lowest: Tensor
    highest: Tensor
    size: float


@dataclass(eq=False)
class ConstantWatch:
    """Sees the calls of a model's layers, and keeps what they read from the channels that `readers` lose.

    `readers` are a plan's cuts by tensor and axis. Nothing but two numbers for each channel and position
    is kept, however many batches there are.
    """

    readers: dict[tuple[str, int], Cut]
    tolerance: float
    examples: int = 0
    seen: dict[tuple[str, int, tuple[int, ...]], _Seen] = field(default_factory=dict)
    _calls: dict[str, int] = field(default_factory=dict)

    def start_batch(self) -> None:
        """Calls are counted from the first again."""
        self._calls.clear()

    def __call__(self, call: LayerCall) -> None:
        """Note one call; raises InputError for a channel that is not the same for all examples."""
        cut = self.readers.get((call.weight, call.reader_axis))
        if cut is None:
            return
        number = self._calls[call.weight] = self._calls.get(call.weight, 0) + 1
        if not self._calls.keys() - {call.weight} and number == 1:
            self.examples += len(call.input) if call.input.dim() > 1 else 1
        rows = call.input.detach()
        rows = rows[None] if rows.dim() == 1 else rows.movedim(call.channel_dim, 1)
        read = rows.index_select(1, torch.tensor(cut.removed, device=rows.device))
        low, high, size = read.amin(dim=0), read.amax(dim=0), float(rows.square().mean().sqrt())
        key = (call.weight, number, tuple(read.shape[2:]))
        known = self.seen.get(key)
        if known is None:
            small = replace(call, input=low, output=low)  # activations are not kept
            known = self.seen[key] = _Seen(small, read[0].clone(), low, high, size)
        else:
            known.lowest, known.highest = torch.minimum(known.lowest, low), torch.maximum(known.highest, high)
            known.size = max(known.size, size)
        self._check(known, cut)

    def _check(self, seen: _Seen, cut: Cut) -> None:
        spread = (seen.highest - seen.lowest).reshape(len(seen.lowest), -1).amax(dim=1)
        worst = int(spread.argmax())
        if not float(spread[worst]) <= self.tolerance * seen.size:
            raise InputError(
                f"channel {cut.removed[worst]} that {seen.call.weight!r} reads is not silent: from example "
                f"to example it differs by up to {float(spread[worst]):.3g}, where inputs there are of size "
                f"{seen.size:.3g} (allowed {self.tolerance:g} of it). Train it to zero first "
                f"(sparsity.silenced says how far it is, sparsity.silence_ goes the last bit); where a gate "
                f"multiplies the constant, its shift, too (MaskSparsity(shift=Decay(steps)))"
            )

    def constants(self) -> list[Constant]:
        """What is to be folded, for each reader once; raises InputError where its calls disagree."""
        found: dict[tuple[str, int | None], Constant] = {}
        for (reader, _, _), seen in self.seen.items():
            cut = self.readers[reader, seen.call.reader_axis]
            bias = seen.call.bias
            new = _constant(reader, seen, cut)
            key = (reader, None if bias is None else id(bias))
            known = found.setdefault(key, new)
            apart = float((known.added - new.added).abs().max())
            if not apart <= 1e-4 * (1 + float(new.added.abs().max())):
                raise InputError(
                    f"{reader!r} is called several times in a forward pass, and the removed channels add "
                    f"different constants each time (up to {apart:.3g} apart), which no bias can hold; train "
                    f"the shifts to zero, too (MaskSparsity(shift=Decay(steps)))"
                )
            if new.border > known.border:
                found[key] = new
        return list(found.values())


def _constant(reader: str, seen: _Seen, cut: Cut) -> Constant:
    """The share of the removed channels in a reader's output, from one example: they are all alike."""
    call = seen.call
    filters = call.filters.detach().double()
    index = torch.tensor(cut.removed, device=filters.device)
    if call.kind == "linear":
        # [channels, *positions] times [out, channels].
        share = torch.tensordot(filters.index_select(1, index), seen.first.double(), dims=1)
    else:
        x = seen.first.new_zeros((1, cut.size, *seen.first.shape[1:]), dtype=torch.float64)
        x.index_copy_(1, index, seen.first.double()[None])
        share = rerun(replace(call, input=x, filters=filters, bias=None))[0]
    middle = share[(slice(None), *(extent // 2 for extent in share.shape[1:]))]
    border = (share - middle.reshape(-1, *[1] * (share.dim() - 1))).abs().max()
    return Constant(reader, call.bias, len(cut.removed), middle, float(border))
