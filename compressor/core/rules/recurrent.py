"""Recurrent layers: what ties their weights together, whatever part of them a forward happens to use."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from compressor.core.labels import Ids, Value
from compressor.core.rules.call import Call, Layers
from compressor.core.rules.table import rule
from compressor.core.tape import RECURRENT_WEIGHTS

__all__: list[str] = []

_ONE_SIZE = "layers and directions of a recurrent module have one size"


@rule(RECURRENT_WEIGHTS)
def recurrent_weights(call: Call) -> list[Layers]:
    """Gates lose the same hidden channels as the columns that read them; layers lose equally many.

    A single step from zeros never multiplies the recurrent columns with what the gates wrote, and the
    module would remember one number for two sizes.
    """
    cells, gates = call.args
    hidden: list[Ids] = []
    projected: list[Ids] = []
    for entering, recurrent, projecting in cells:
        rows = np.concatenate([call.only_ids(w, 0).reshape(gates, -1) for w in (entering, recurrent)])
        own = call.tie(rows.T)
        hidden.append(own)
        back = own
        if isinstance(projecting, Value):
            call.merge(own, call.only_ids(projecting, 1))
            back = call.only_ids(projecting, 0)
            projected.append(back)
        call.merge(back, call.only_ids(recurrent, 1))
    for several in _of_one_size(hidden, projected):
        if len(several) > 1:
            call.space.equal(np.stack(several), f"{_ONE_SIZE} ({call.where})")
    return []


def _of_one_size(hidden: list[Ids], projected: list[Ids]) -> Iterator[list[Ids]]:
    """Runs of labels that lose equally many.

    A projection must stay narrower than what it projects (torch takes equal widths for none): as many
    hidden channels go from its first ones as projected ones do, and one of the others stays.
    """
    if not projected:
        yield hidden
        return
    width = len(projected[0])
    yield [*projected, *(ids[:width] for ids in hidden)]
    yield [ids[width:] for ids in hidden]


@rule("aten._pack_padded_sequence.default")
def pack(call: Call) -> list[Layers]:
    """[T, B, *] (or [B, T, *]) to [N, *], the positions that are filled, and how many each step has."""
    for layer in call.args[0].layers:
        if layer.axis < 2:
            call.pin(layer, "positions of a sequence that is packed")
    return [tuple(layer.on(layer.axis - 1) for layer in call.args[0].layers if layer.axis >= 2), ()]


@rule("aten._pad_packed_sequence.default")
def pad(call: Call) -> list[Layers]:
    """[N, *] back to [T, B, *]."""
    for layer in call.args[0].over(0):
        call.pin(layer, "positions of a packed sequence")
    return [tuple(layer.on(layer.axis + 1) for layer in call.args[0].layers if layer.axis >= 1), ()]


@rule("aten._thnn_fused_lstm_cell.default", "aten._thnn_fused_gru_cell.default")
def fused_cell(call: Call) -> list[Layers]:
    """Gates of inputs and state [N, gates·H] with a state [N, H], in one kernel of a GPU.

    A GRU's candidate adds its two halves at a product, so that its gates meet as the LSTM's do.
    """
    state = call.args[2]
    hidden = [*state.over(1)]
    for gates in (x for position, x in enumerate(call.args) if position != 2 and isinstance(x, Value)):
        for layer in gates.over(len(gates.shape) - 1):
            rows = layer.ids.reshape(-1, state.shape[1])
            hidden.append(layer.on(1).with_ids(call.tie(rows.T)))
    for layer in hidden[1:]:
        call.merge(hidden[0].ids, layer.ids)
    new = (*(layer for layer in state.layers if layer.axis == 0), *hidden[:1])
    return [new if shape == state.shape else () for shape in call.shapes]
