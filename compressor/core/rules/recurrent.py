"""Recurrent layers: what ties their weights together, whatever part of them a forward happens to use."""

from __future__ import annotations

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
        rows = np.concatenate([w.ids(0).reshape(gates, -1) for w in (entering, recurrent)])
        own = call.tie(rows.T)
        hidden.append(own)
        back = own
        if isinstance(projecting, Value):
            call.merge(own, projecting.ids(1))
            back = projecting.ids(0)
            projected.append(back)
        call.merge(back, recurrent.ids(1))
    for rows_of_one_size in (hidden, projected):
        if len(rows_of_one_size) > 1:
            call.equal(np.stack(rows_of_one_size), _ONE_SIZE)
    return []
