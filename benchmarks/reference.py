"""What a pruned network must compute, worked out from the plan alone: an oracle beside `verify`.

It shares no code with the library: nothing but the plan's cuts is read. In the unpruned network the
slices that read removed channels are set to zero for the time of one forward pass, and LayerNorms
take their statistics over the channels that stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.zoo import outputs
from compressor import Plan

__all__ = ["error_against_reference", "scrambled_"]


def scrambled_(model: nn.Module, x: Tensor, *, seed: int) -> None:
    """Move `model` to float64 and give every channel weights and statistics of its own.

    A freshly initialised network has constant BatchNorm vectors, behind which a wrong index hides.
    The statistics are measured on `x` and then disturbed, so that no layer saturates or dies. The
    scales are small: with scales near 1 a random network of 55 blocks (EfficientNet-B7) amplifies a
    rounding error 1e8-fold, as every residual branch adds more disturbance than signal.
    """
    generator = torch.Generator().manual_seed(seed)
    model.double()

    def noise(tensor: Tensor) -> Tensor:
        return torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)

    def measure(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        """Set statistics just before they are used, so that later layers see what comes of them."""
        assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None
        assert norm.running_var is not None
        var_C, mean_C = torch.var_mean(args[0], dim=(0, 2, 3), correction=0)
        # One variance for the whole layer: single channels of a depthwise convolution hardly vary
        # on a small map, and dividing by that multiplies rounding errors, too.
        norm.running_var.copy_(var_C.mean() * (0.8 + 0.4 * noise(var_C)))
        norm.running_mean.copy_(mean_C + 0.2 * var_C.mean().sqrt() * (noise(mean_C) - 0.5))

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for parameter in model.parameters():
            # ConvNeXt's layer scales are 1e-6: what a block does wrong would vanish behind them.
            if parameter.dim() == 1 or float(parameter.abs().max()) < 1e-3:
                parameter.add_(noise(parameter) - 0.5)
            else:
                parameter.mul_(0.5 + noise(parameter))
        for norm in norms:
            norm.weight.copy_(0.2 + 0.2 * noise(norm.weight))
        hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
        try:
            model(x.double())
        finally:
            for hook in hooks:
                hook.remove()


def error_against_reference(
    model: nn.Module, small: nn.Module, plan: Plan, x: Tensor, *, auxiliary: bool
) -> float:
    """The largest difference of any output, relative to the largest value of that output.

    `auxiliary` networks also return their auxiliary heads; `model` is as it was afterwards.
    """
    with torch.no_grad(), _silenced(model, plan):
        expected = _outputs(model, x, auxiliary)
    with torch.no_grad():
        found = _outputs(small, x, auxiliary)
    if [t.shape for t in expected] != [t.shape for t in found]:
        return float("inf")
    errors = []
    for a, b in zip(expected, found, strict=True):
        if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
            return float("inf")
        errors.append(float((a - b).abs().max()) / float(a.abs().max()))
    return max(errors)


def _outputs(model: nn.Module, x: Tensor, auxiliary: bool) -> list[Tensor]:
    """The outputs in eval mode; `auxiliary` networks show their heads when they think they train."""
    model.eval()
    model.training = auxiliary  # of the outermost module only: dropout and BatchNorm stay in eval
    try:
        return outputs(model(x))
    finally:
        model.training = False


@contextmanager
def _silenced(model: nn.Module, plan: Plan) -> Iterator[None]:
    """Readers of removed channels are zero, LayerNorms see what stays, both undone at the end."""
    parameters = dict(model.named_parameters())
    modules = dict(model.named_modules())
    undo: list[tuple[Tensor, int, Tensor, Tensor]] = []
    patched: list[nn.Module] = []
    try:
        for cut in plan.cuts:
            owner = modules[cut.tensor.rpartition(".")[0]]
            if cut.role == "reader":
                for part, gone in _slices(parameters[cut.tensor].data, cut):
                    undo.append((part, cut.axis, gone, part.index_select(cut.axis, gone)))
                    part.index_fill_(cut.axis, gone, 0.0)
            elif isinstance(owner, nn.LayerNorm) and owner not in patched:
                owner.forward = _over_kept(owner, torch.tensor(cut.keep))  # type: ignore[method-assign]
                patched.append(owner)
        yield
    finally:
        for part, axis, gone, old in undo:
            part.index_copy_(axis, gone, old)
        for module in patched:
            del module.forward


def _slices(weight: Tensor, cut: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Runs of rows and what each loses; a grouped convolution has a run for each group."""
    rows, width = weight.shape[0] // cut.blocks, cut.size // cut.blocks
    for block in range(cut.blocks):
        lost = [i - block * width for i in cut.removed if i // width == block]
        part = weight[block * rows : (block + 1) * rows] if cut.blocks > 1 else weight
        if lost:
            yield part, torch.tensor(lost)


def _over_kept(norm: nn.LayerNorm, keep: Tensor) -> Any:
    """A forward that normalises over the kept channels and leaves zeros at the others."""
    # torchvision's LayerNorm2d is a LayerNorm whose channels are axis 1.
    axis = 1 if type(norm).__name__ == "LayerNorm2d" else -1

    def forward(x: Tensor) -> Tensor:
        kept = x.index_select(axis, keep).movedim(axis, -1)
        y = F.layer_norm(kept, (len(keep),), norm.weight[keep], norm.bias[keep], norm.eps)
        return torch.zeros_like(x).index_copy(axis, keep, y.movedim(-1, axis))

    return forward
