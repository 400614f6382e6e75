"""Networks that write numbers into their forward."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Forward(nn.Module):
    """A convolution or linear layer, a function with numbers in it, another layer."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def _convs(function: Callable[[Any, Tensor], Tensor], middle: int = 8, **more: nn.Module) -> nn.Module:
    return Forward(function, a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Conv2d(middle, 4, 1), **more)


def _linears(function: Callable[[Any, Tensor], Tensor], width: int = 16, **more: nn.Module) -> nn.Module:
    return Forward(function, a=nn.Linear(6, width), b=nn.Linear(width, 5), **more)


IMAGE, TOKENS = (2, 3, 4, 4), (2, 5, 6)


def padded_shortcut(self: Any, x: Tensor) -> Tensor:
    y = torch.relu(self.a(x))
    wide = functional.pad(y, (0, 0, 0, 0, 2, 2))
    return self.b(torch.relu(self.c(y)) + wide)


def split_listed(self: Any, x: Tensor) -> Tensor:
    left, right = torch.relu(self.a(x)).split([3, 5], 1)
    return self.b(torch.cat([torch.sigmoid(right), left], 1))


def two_slices(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    return self.b(torch.cat([torch.relu(y[:, 3:]), torch.sigmoid(y[:, :3])], 1))


def slice_from_the_end(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    return self.b(torch.cat([torch.relu(y[..., -5:]), torch.sigmoid(y[..., :-5])], -1))


def narrowed(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    return self.b(torch.cat([torch.relu(y.narrow(1, 3, 5)), torch.sigmoid(torch.narrow(y, 1, 0, 3))], 1))


def zeros_beside(self: Any, x: Tensor) -> Tensor:
    y = torch.relu(self.a(x))
    return self.b(y + torch.zeros(x.shape[0], 8, 4, 4) + y.new_ones((x.shape[0], 8, 1, 1)))


def filled(self: Any, x: Tensor) -> Tensor:
    canvas = torch.full((x.shape[0], 8, 4, 4), 0.5)
    canvas[:, :, 1:3] = torch.relu(self.a(x))[:, :, 1:3]
    return self.b(canvas)


def expanded(self: Any, x: Tensor) -> Tensor:
    y = torch.relu(self.a(x))
    gate = y.mean((1, 2, 3), keepdim=True).expand(-1, 8, 4, 4)
    return self.b(y * gate)


def repeated(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.relu(self.a(x)) + x[:, :1].repeat(1, 8, 1, 1))


def flattened(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.relu(self.a(x)).view(-1, 8 * 16))


def folded_with_the_batch(self: Any, x: Tensor) -> Tensor:
    y = torch.relu(self.a(x)).reshape(x.shape[0] * 8, 16)
    return self.b(torch.sigmoid(y).reshape(x.shape[0], 8, 4, 4))


def folded_twice(self: Any, x: Tensor) -> Tensor:
    y = torch.relu(self.a(x)).reshape(x.shape[0] * 8, -1)
    return self.b(torch.sigmoid(y).reshape(-1, 8, 4, 4))


def normalised(self: Any, x: Tensor) -> Tensor:
    return self.b(functional.layer_norm(self.a(x), (16,)))


def normalised_by_roots(self: Any, x: Tensor) -> Tensor:
    return self.b(functional.rms_norm(self.a(x), normalized_shape=[16]))


def grouped(self: Any, x: Tensor) -> Tensor:
    y = functional.conv2d(torch.relu(self.a(x)), self.c.weight, None, padding=1, groups=8)
    return self.b(functional.group_norm(y, 8))


def attention(self: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    qkv = self.a(x).reshape(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4)
    y = functional.scaled_dot_product_attention(*qkv.unbind(0))
    return self.b(y.transpose(1, 2).reshape(b, n, 8))


def attention_by_hand(self: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = (layer(x).view(b, -1, 2, 4).transpose(1, 2) for layer in (self.q, self.k, self.v))
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
    return self.b((weights @ v).transpose(1, 2).reshape(b, n, 8))


def attention_scaled_first(self: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = (layer(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer in (self.q, self.k, self.v))
    weights = ((q * q.size(-1) ** -0.5) @ k.mT).softmax(-1)
    return self.b((weights @ v).transpose(1, 2).reshape(b, n, 8))


def attention_scaled_by_a_tensor(self: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = (layer(x).reshape([b, n, 2, 4]).transpose(1, 2) for layer in (self.q, self.k, self.v))
    weights = (q @ k.mT / torch.sqrt(torch.tensor(q.shape[-1], dtype=q.dtype))).softmax(-1)
    return self.b((weights @ v).transpose(1, 2).flatten(2))


def attention_over_channels(self: Any, x: Tensor) -> Tensor:
    """The dims of a head are computed from a width that shrinks, though they cannot."""
    b, n, _ = x.shape
    x = self.c(x)
    dims = x.shape[-1] // 2
    y = self.a(x).reshape(b, n, 2, dims)
    y = y * torch.arange(1.0, 5.0).roll(1, 0)  # channels by their place
    return self.b(y.reshape(b, n, 8))


def attention_split(self: Any, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = (y.view(b, n, 2, 4).transpose(1, 2) for y in self.a(x).split(8, dim=2))
    return self.b(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, 8))


def set_in_two_parts(self: Any, x: Tensor) -> Tensor:
    y = self.a(x)
    z = torch.zeros_like(y)
    z[:, :3] = torch.relu(y)[:, :3]
    z[:, 3:] = torch.sigmoid(y)[:, 3:]
    return self.b(z)


REVERSED = torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])


def picked(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.relu(self.a(x))[:, REVERSED])


def picked_by_a_list(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.relu(self.a(x))[..., [3, 1, 0, 2, 7, 6, 5, 4], :, :])


def picked_by_a_mask(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.relu(self.a(x))[:, REVERSED > 1])


def selected(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.relu(self.a(x)).index_select(1, REVERSED))


def gathered(self: Any, x: Tensor) -> Tensor:
    index = REVERSED[None, :, None, None].expand(len(x), -1, *x.shape[2:])
    return self.b(torch.relu(self.a(x)).gather(1, index))


def taken_along(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.take_along_dim(torch.relu(self.a(x)), REVERSED[None, :, None, None], 1))


def rolled(self: Any, x: Tensor) -> Tensor:
    y = torch.relu(self.a(x))
    return self.b(y.roll(3, 1) + y.roll(-2, 1))


def _qkv() -> dict[str, nn.Module]:
    return {"q": nn.Linear(6, 8), "k": nn.Linear(6, 8), "v": nn.Linear(6, 8), "b": nn.Linear(8, 5)}


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "pad": (lambda: _convs(padded_shortcut, 12, c=nn.Conv2d(8, 12, 1)), IMAGE),
    "split": (lambda: _convs(split_listed), IMAGE),
    "slices": (lambda: _convs(two_slices), IMAGE),
    "slices from the end": (lambda: _linears(slice_from_the_end), TOKENS),
    "narrow": (lambda: _convs(narrowed), IMAGE),
    "zeros": (lambda: _convs(zeros_beside), IMAGE),
    "full": (lambda: _convs(filled), IMAGE),
    "expand": (lambda: _convs(expanded), IMAGE),
    "repeat": (lambda: _convs(repeated), IMAGE),
    "view": (lambda: Forward(flattened, a=nn.Conv2d(3, 8, 3, padding=1), b=nn.Linear(128, 5)), IMAGE),
    "fold": (lambda: _convs(folded_with_the_batch), IMAGE),
    "fold twice": (lambda: _convs(folded_twice), IMAGE),
    "layer_norm": (lambda: _linears(normalised), TOKENS),
    "rms_norm": (lambda: _linears(normalised_by_roots), TOKENS),
    "groups": (lambda: _convs(grouped, c=nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)), IMAGE),
    "attention": (lambda: Forward(attention, a=nn.Linear(6, 24), b=nn.Linear(8, 5)), TOKENS),
    "attention by hand": (lambda: Forward(attention_by_hand, **_qkv()), TOKENS),
    "attention scaled first": (lambda: Forward(attention_scaled_first, **_qkv()), TOKENS),
    "attention scaled by a tensor": (lambda: Forward(attention_scaled_by_a_tensor, **_qkv()), TOKENS),
    "dims from another width": (
        lambda: Forward(attention_over_channels, c=nn.Linear(6, 8), a=nn.Linear(8, 8), b=nn.Linear(8, 5)),
        TOKENS,
    ),
    "attention split": (lambda: Forward(attention_split, a=nn.Linear(6, 24), b=nn.Linear(8, 5)), TOKENS),
    "slice assignment": (lambda: _convs(set_in_two_parts), IMAGE),
    "picked": (lambda: _convs(picked), IMAGE),
    "picked by a list": (lambda: _convs(picked_by_a_list), IMAGE),
    "picked by a mask": (lambda: _convs(picked_by_a_mask, 6), IMAGE),
    "selected": (lambda: _convs(selected), IMAGE),
    "gathered": (lambda: _convs(gathered), IMAGE),
    "taken along": (lambda: _convs(taken_along), IMAGE),
    "rolled": (lambda: _convs(rolled), IMAGE),
}
