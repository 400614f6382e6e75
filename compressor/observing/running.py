"""Forward passes over batches that leave the model as it was, layer by layer in view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from compressor.core.attention import sized
from compressor.core.restoring import Contents, undisturbed
from compressor.observing.batches import Batch, device_of, loaded, output_of
from compressor.observing.layers import LayerCall, observed

__all__ = ["run_batches", "running"]


def run_batches(
    model: nn.Module,
    batches: Iterable[object],
    see: Callable[[LayerCall], None],
    *,
    before: Callable[[Batch], None] | None = None,
    after: Callable[[Batch, Any], None] | None = None,
    max_batches: int | None = None,
    autocast: torch.dtype | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """The number of batches that the model ran on, in eval mode and without gradients.

    `see` gets every call of a layer, see `observed`; `before` and `after` the batch (and the output)
    around each forward pass, `progress` how many are done. All that the model holds, its mode and the
    random state are as before at the end, also after an error. Raises InputError where there is no batch,
    or one that the model cannot run on.

    >>> net, seen = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), []
    >>> run_batches(net, [torch.ones(4, 2)], lambda call: seen.append((call.weight, *call.output.shape)))
    1
    >>> seen
    [('0.weight', 4, 3), ('2.weight', 4, 1)]
    """
    device, count = device_of(model), 0
    with running(model), nullcontext() if autocast is None else torch.autocast(device.type, autocast):
        for batch in loaded(batches, device, max_batches=max_batches):
            if before is not None:
                before(batch)
            with observed(model, see):
                output = output_of(model, batch)
            if after is not None:
                after(batch, output)
            count += 1
            if progress is not None:
                progress(count)
    return count


@contextmanager
def running(model: nn.Module) -> Iterator[Contents]:
    """Within, the model runs in eval mode, without gradients, one layer at a time; then all is as before.

    What other threads write has to be kept beforehand, with the `Contents`.
    """
    with ExitStack() as stack:
        contents = stack.enter_context(undisturbed(model, training=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.enter_context(sized(model))
        stack.enter_context(_own_attention())
        yield contents


@contextmanager
def _own_attention() -> Iterator[None]:
    """Within, encoder layers call their projections one by one instead of one fused kernel."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
