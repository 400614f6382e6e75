"""Two models in float64: scrambled copies, silenced readers, and what they are fed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.core.attention import sized
from compressor.core.nested import with_tensors
from compressor.core.plan import Cut
from compressor.core.reference import call_in_double
from compressor.core.surgery import cut_copy
from compressor.core.tape import named_tensors

__all__ = ["as_double", "copies", "scrambled", "settle_norms", "silence_readers", "with_weights"]


def scrambled(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """A float64 copy with every channel different from every other.

    A vector is scrambled entry by entry. A weight gets a random factor for each position of each
    axis, which costs little even for the widest layer, and noise where it is zero. All are brought
    to sizes that carry a signal through any depth: behind twenty layers of fresh weights, or behind
    one whose ReLU is never above zero, a wrong channel would change nothing.
    """

    def convert(tensor: Tensor, _cuts: tuple[Cut, ...]) -> Tensor:
        if tensor.is_complex():
            parts = torch.view_as_real(tensor.detach().resolve_conj())
            return torch.view_as_complex(_scrambled(parts, generator))
        if not tensor.is_floating_point():
            return tensor.detach().clone()
        return _scrambled(tensor.detach(), generator)

    return cut_copy(model, (), convert)


def _scrambled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    data = tensor.to(torch.float64, copy=True)
    size = float(torch.linalg.vector_norm(data)) / max(data.numel(), 1) ** 0.5
    # What is not finite is a mask.
    if not data.numel() or not math.isfinite(size):
        return data
    positive = size > 0 and float(tensor.min()) >= 0
    factor = _level(data, size, positive)
    for axis, count in enumerate(data.shape):
        if count > 1 or data.dim() == 1:
            shape = [-1 if a == axis else 1 for a in range(data.dim())]
            data *= (factor * (0.5 + _random(torch.rand, (count,), generator, data))).view(shape)
            factor = 1.0
    if data.dim() < 2 and not positive:
        data += 0.2 * _random(torch.randn, data.shape, generator, data)
    missing = data.numel() - int(data.count_nonzero())
    if missing:
        noise = 0.2 * _random(torch.randn, (missing,), generator, data)
        data[data == 0] = noise.abs() if positive else noise
    return data


def _level(data: Tensor, size: float, positive: bool) -> float:
    """What brings data of root mean square `size` to that of a well initialised network.

    Weights get a variance of 2 / fan-in (He et al., 2015, arXiv 1502.01852, equation 10), factors
    and variances a mean of one, biases a fraction of that.
    """
    if data.dim() < 2 and positive:
        return 1 / float(data.mean())
    fitting = 0.2 if data.dim() < 2 else (2 * data.shape[0] / data.numel()) ** 0.5
    return fitting / size if size else 1.0


def _random(
    draw: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator, like: Tensor
) -> Tensor:
    return draw(tuple(shape), generator=generator, dtype=torch.float64, device="cpu").to(like.device)


def settle_norms(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], generator: torch.Generator
) -> None:
    """Give the batch norms of a scrambled model statistics that fit what reaches them on the example.

    Where the statistics of a deep network fitted its weights, scrambled ones multiply rounding errors from
    layer to layer. Each is measured just before it is used, so that later ones see what comes of it; all
    channels of a layer get about one variance, for that of a single channel may be next to nothing.
    """

    def measure(norm: nn.Module, given: tuple[Any, ...]) -> None:
        x = given[0]
        assert isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None
        rest = [axis for axis in range(x.dim()) if axis != 1]
        var_C, mean_C = torch.var_mean(x, dim=rest, correction=0)
        size = var_C.mean().clamp(min=1e-12)
        spread = _random(torch.rand, (2, len(var_C)), generator, var_C)
        norm.running_var.copy_(size * (0.8 + 0.4 * spread[0]))
        norm.running_mean.copy_(mean_C + 0.2 * size.sqrt() * (spread[1] - 0.5))

    model.eval()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    handles = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        with torch.no_grad(), sized(model):
            call_in_double(model, args, kwargs)
    finally:
        for handle in handles:
            handle.remove()


def with_weights(small: nn.Module, source: nn.Module) -> nn.Module:
    """A copy of `small` as a module, holding the tensors of `source`."""
    tensors = named_tensors(source)
    by_id = {id(tensor): tensors[name] for name, tensor in named_tensors(small).items()}

    def convert(tensor: Tensor, _cuts: tuple[Cut, ...]) -> Tensor:
        return by_id[id(tensor)].detach()

    return cut_copy(small, (), convert)


def silence_readers(model: nn.Module, cuts: Sequence[Cut]) -> None:
    """Zero the input slices that consume removed channels."""
    named = named_tensors(model)
    with torch.no_grad():
        for cut in cuts:
            if cut.role == "reader":
                tensor = named[cut.tensor]
                gone = torch.tensor(cut.removed, device="cpu")
                if cut.blocks == 1:
                    tensor.index_fill_(cut.axis, gone.to(tensor.device), 0)
                    continue
                width = cut.size // cut.blocks
                for block, rows in enumerate(tensor.data.unflatten(0, (cut.blocks, -1))):
                    own = gone[(gone >= block * width) & (gone < (block + 1) * width)] - block * width
                    rows.index_fill_(cut.axis, own.to(tensor.device), 0)


def as_double(tree: Any) -> Any:
    """Floating inputs in float64; a constant one is replaced by noise, which tells channels apart."""
    generator = torch.Generator("cpu").manual_seed(1)

    def convert(x: Tensor) -> Tensor:
        if x.is_complex():
            return x.detach().to(torch.complex128)
        if not x.is_floating_point():
            return x
        x = x.detach().to(torch.float64)
        if x.numel() > 1 and bool((x == x.flatten()[0]).all()):
            x = _random(torch.randn, x.shape, generator, x)
        return x

    return with_tensors(convert, tree)


def copies(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """The inputs again, for a forward that writes into them."""
    again: tuple[Sequence[Any], Mapping[str, Any]]
    again = with_tensors(torch.clone, (args, kwargs))
    return again
