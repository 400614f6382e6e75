"""Attention of convolutional networks: squeeze-excite, masks of one channel, CBAM, and their like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, case

IMAGE = (2, 3, 6, 5)


def gated(gate: Callable[..., Tensor], **parts: Any) -> Callable[[], nn.Module]:
    """Features of 8 channels times a gate computed from them."""
    return lambda: Net(
        lambda m, x: m.head((y := torch.relu(m.stem(x))) * gate(m, y)),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 1),
        **parts,
    )


def excite_by_convolutions(m: Net, y: Tensor) -> Tensor:
    return m.up(torch.relu(m.down(y.mean((2, 3), keepdim=True)))).sigmoid()


def excite_by_linear(m: Net, y: Tensor) -> Tensor:
    n, c, _, _ = y.shape
    s = F.adaptive_avg_pool2d(y, 1).view(n, c)
    return m.up(torch.relu(m.down(s))).sigmoid().view(n, c, 1, 1)


def excite_with_squeeze(m: Net, y: Tensor) -> Tensor:
    s = F.adaptive_avg_pool2d(y, 1).squeeze(-1).squeeze(-1)
    return F.hardsigmoid(m.up(torch.relu(m.down(s))))[:, :, None, None]


def excite_expanded(m: Net, y: Tensor) -> Tensor:
    return excite_by_linear(m, y).expand_as(y)


def cbam_channels(m: Net, y: Tensor) -> Tensor:
    """One perceptron on the mean and on the maximum over space, added."""
    pooled = (F.adaptive_avg_pool2d(y, 1), F.adaptive_max_pool2d(y, 1))
    return sum(m.up(torch.relu(m.down(p))) for p in pooled).sigmoid()  # type: ignore[union-attr]


def cbam_space(m: Net, y: Tensor) -> Tensor:
    """Mean and maximum over the channels, convolved to a mask of one channel."""
    both = torch.cat([y.mean(1, keepdim=True), y.max(1, keepdim=True).values], 1)
    return m.mask(both).sigmoid()


def attention_gate(m: Net, x: Tensor) -> Tensor:
    """Attention U-Net: a gating signal and a skip give a mask of one channel."""
    skip, gate = torch.relu(m.skip(x)), torch.relu(m.gate(x))
    psi = m.psi(torch.relu(m.of_skip(skip) + m.of_gate(gate))).sigmoid()
    return m.head(torch.cat([skip * psi, gate], 1))


def selective_kernels(m: Net, x: Tensor) -> Tensor:
    """SKNet: two branches weighted by a softmax over the branches, channel by channel."""
    a, b = torch.relu(m.a(x)), torch.relu(m.b(x))
    s = torch.relu(m.squeeze((a + b).mean((2, 3), keepdim=True)))
    weights = torch.stack([m.to_a(s), m.to_b(s)]).softmax(0)
    return m.head(a * weights[0] + b * weights[1])


def global_context(m: Net, x: Tensor) -> Tensor:
    """GCNet: a softmax over space pools the features, a bottleneck adds them back."""
    y = torch.relu(m.stem(x))
    places = m.mask(y).flatten(2).softmax(-1)
    context = (y.flatten(2) @ places.transpose(1, 2)).unsqueeze(-1)
    return m.head(y + m.up(torch.relu(m.norm(m.down(context)))))


def coordinate_attention(m: Net, y: Tensor) -> Tensor:
    """Hou et al. 2021: pooled along each side, joined, split again."""
    h, w = y.shape[2:]
    both = torch.cat([y.mean(3, keepdim=True), y.mean(2, keepdim=True).transpose(2, 3)], 2)
    rows, columns = F.hardswish(m.down(both)).split([h, w], 2)
    return m.rows(rows).sigmoid() * m.columns(columns.transpose(2, 3)).sigmoid()


def conv(i: int, o: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 1)


def bottleneck(i: int, o: int, layer: Callable[[int, int], nn.Module]) -> dict[str, nn.Module]:
    return {"down": layer(i, o), "up": layer(o, i)}


CASES = [
    # 8 of the stream, 4 of the bottleneck
    case(
        "squeeze-excite by convolutions",
        gated(excite_by_convolutions, **bottleneck(8, 4, conv)),
        IMAGE,
        free=12,
    ),
    case(
        "squeeze-excite by linear and view",
        gated(excite_by_linear, **bottleneck(8, 4, nn.Linear)),
        IMAGE,
        free=12,
    ),
    case(
        "squeeze-excite with squeeze",
        gated(excite_with_squeeze, **bottleneck(8, 4, nn.Linear)),
        IMAGE,
        free=12,
    ),
    case(
        "squeeze-excite expanded",
        gated(excite_expanded, **bottleneck(8, 4, nn.Linear)),
        IMAGE,
        free=12,
    ),
    case("CBAM over channels", gated(cbam_channels, **bottleneck(8, 4, conv)), IMAGE, free=12),
    case(
        "CBAM over space",
        gated(cbam_space, mask=nn.Conv2d(2, 1, 3, padding=1)),
        IMAGE,
        free=8,
        statistics=True,
    ),
    case(
        "mask of one channel",
        gated(lambda m, y: m.mask(y).sigmoid(), mask=nn.Conv2d(8, 1, 1)),
        IMAGE,
        free=8,
    ),
    case(
        "mask of one channel, expanded",
        gated(lambda m, y: m.mask(y).sigmoid().expand_as(y), mask=nn.Conv2d(8, 1, 1)),
        IMAGE,
        free=8,
    ),
    case(
        "mask of one channel, repeated by the length",
        gated(lambda m, y: m.mask(y).sigmoid().repeat(1, y.shape[1], 1, 1), mask=nn.Conv2d(8, 1, 1)),
        IMAGE,
        free=8,
    ),
    # 6 of the skip, 6 of the gate, 4 inside
    case(
        "attention gate",
        lambda: Net(
            attention_gate,
            skip=conv(3, 6),
            gate=conv(3, 6),
            of_skip=conv(6, 4),
            of_gate=conv(6, 4),
            psi=conv(4, 1),
            head=conv(12, 2),
        ),
        IMAGE,
        free=16,
    ),
    case(
        "selective kernels",
        lambda: Net(
            selective_kernels,
            a=conv(3, 8),
            b=nn.Conv2d(3, 8, 3, padding=1),
            squeeze=conv(8, 4),
            to_a=conv(4, 8),
            to_b=conv(4, 8),
            head=conv(8, 2),
        ),
        IMAGE,
        free=12,
    ),
    case(
        "global context",
        lambda: Net(
            global_context,
            stem=conv(3, 8),
            mask=conv(8, 1),
            down=conv(8, 4),
            norm=nn.LayerNorm([4, 1, 1]),
            up=conv(4, 8),
            head=conv(8, 2),
        ),
        IMAGE,
        free=12,
        statistics=True,
    ),
    case(
        "coordinate attention",
        gated(coordinate_attention, down=conv(8, 4), rows=conv(4, 8), columns=conv(4, 8)),
        IMAGE,
        free=12,
    ),
    case(
        "softmax over space",
        gated(lambda m, y: y.flatten(2).softmax(-1).view(y.shape)),
        IMAGE,
        free=8,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)
