"""A runtime whose times are arithmetic, so that nothing in a test depends on a clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.runtimes import Ready, Runtime, Target
from compressor.runtimes.clocks import Clock

CONVS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


@dataclass(frozen=True, kw_only=True)
class Synthetic(Runtime):
    """A layer takes its MACs, with channels filled up to `block`.

    One that reads an odd width takes `odd` times as long. `ms_per_macs` is for a million of them; every layer
    costs `ms_per_layer` more. `drift` makes each timed sample slower than the last, as a machine does that
    gets busy.
    """

    block: int = 1
    odd: float = 1.0
    ms_per_macs: float = 0.05
    ms_per_layer: float = 0.002
    drift: float = 0.0

    @contextmanager
    def ready(
        self, models: Sequence[Target], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[Ready]:
        times = [self.ms(model, args, kwargs) for model in models if isinstance(model, nn.Module)]
        slow = [1.0]

        def measure(call: Any, count: int) -> float:
            slow[0] += self.drift
            return float(call()) * slow[0]

        yield Ready(tuple((lambda ms=ms: ms) for ms in times), Clock("arithmetic", measure))

    def ms(self, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
        """The time of one forward pass."""
        total = [0.0]

        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            total[0] += self.layer_ms(module, output)

        hooks = [m.register_forward_hook(add) for m in model.modules() if isinstance(m, (*CONVS, nn.Linear))]
        try:
            with torch.no_grad():
                model(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        return total[0] + 0.001

    def layer_ms(self, module: nn.Module, output: Tensor) -> float:
        if isinstance(module, nn.Linear):
            widths, positions, kernel = (
                (module.in_features, module.out_features),
                output.numel() // output.shape[-1],
                1,
            )
        else:
            tied = module.groups == module.in_channels and module.groups > 1
            widths = (1 if tied else module.in_channels, module.out_channels)
            positions = output.shape[0] * math.prod(output.shape[2:])
            kernel = math.prod(module.kernel_size)
        filled = [width if width < 8 else -(-width // self.block) * self.block for width in widths]
        read = widths[1] if widths[0] == 1 else widths[0]
        slower = self.odd if read % 2 and read > 8 else 1.0
        return self.ms_per_layer + self.ms_per_macs * 1e-6 * positions * kernel * math.prod(filled) * slower
