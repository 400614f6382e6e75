"""Weights under which a wrong cut shows: float64, every channel with values of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.zoo import Inputs

__all__ = ["scrambled_"]


def scrambled_(model: nn.Module, inputs: Inputs, *, seed: int) -> None:
    """Move `model` to float64 and give every channel weights and statistics of its own.

    A freshly initialised network has constant BatchNorm vectors, behind which a wrong index hides.
    The statistics are measured on `inputs` and then disturbed, so that no layer saturates or dies.
    The scales are small: with scales near 1 a random network of 55 blocks (EfficientNet-B7)
    amplifies a rounding error 1e8-fold, as every residual branch adds more disturbance than signal.
    """
    generator = torch.Generator().manual_seed(seed)
    model.double()

    def noise(tensor: Tensor) -> Tensor:
        return torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)

    def measure(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Set statistics just before they are used, so that later layers see what comes of them."""
        assert isinstance(norm, _BatchNorm) and norm.running_mean is not None
        assert norm.running_var is not None
        axes = (0, *range(2, args[0].dim()))
        var_C, mean_C = torch.var_mean(args[0], dim=axes, correction=0)
        # One variance for the whole layer: single channels of a depthwise convolution hardly vary
        # on a small map, and dividing by that multiplies rounding errors, too.
        scale = var_C.mean().clamp(min=1e-6)
        norm.running_var.copy_(scale * (0.8 + 0.4 * noise(var_C)))
        norm.running_mean.copy_(mean_C + 0.2 * scale.sqrt() * (noise(mean_C) - 0.5))

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.is_floating_point() or not parameter.numel():
                continue
            # Transformers are initialised so that attention is next to uniform: a wrong channel of
            # queries or keys would hardly show.
            if parameter.dim() == 2 and 0 < float(parameter.std()) < (wanted := parameter.shape[1] ** -0.5):
                parameter.mul_(wanted / parameter.std())
            # Layer scales of 1e-6, tokens and tables of zeros: what goes wrong would vanish behind
            # them.
            if parameter.dim() == 1 or float(parameter.abs().max()) < 1e-3:
                parameter.add_(0.5 * (noise(parameter) - 0.5))
            else:
                parameter.mul_(0.5 + noise(parameter))
        for norm in norms:
            if norm.affine:
                norm.weight.copy_(0.2 + 0.2 * noise(norm.weight))
        hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
        try:
            inputs.double().call(model)
        finally:
            for hook in hooks:
                hook.remove()
