"""What cannot be followed is pinned, with a reason in words, and the rest stays exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.rules import RULES, Call, Layers, rule
from tests.core.driver import (
    Case,
    Net,
    assert_case,
    assert_prunes_exactly,
    case,
    explained,
)

IMAGE = (2, 3, 8, 8)
Function = Callable[..., Tensor]


def between(
    function: Function, *, channels: int = 8, leaving: int = 8, **parts: Any
) -> Callable[[], nn.Module]:
    """stem, `function(net, features)`, head, and beside them a branch that stays free (6 units)."""

    def forward(m: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        return m.head(function(m, m.stem(x))), m.free_head(torch.relu(m.free(x)))

    return lambda: Net(
        forward,
        stem=nn.Conv2d(3, channels, 1),
        head=nn.Conv2d(leaving, 2, 1),
        free=nn.Conv2d(3, 6, 1),
        free_head=nn.Conv2d(6, 2, 1),
        **parts,
    )


def held(name: str, function: Function, reason: str, *, free: int = 6, **options: Any) -> Case:
    """Nothing but the free branch can go, and the stem says why."""
    return case(name, between(function, **options), IMAGE, free=free, pinned={"stem": reason})


def branch(m: Net, y: Tensor) -> Tensor:
    return y.relu() if y.shape[1] == 8 else y.sigmoid().tanh()


def checked(m: Net, y: Tensor) -> Tensor:
    one = y.new_ones(1)
    if m.stem.weight.shape[0] != 8:
        raise ValueError("eight channels are expected")
    return y * (one + 1)


def channel_attention(m: Net, y: Tensor) -> Tensor:
    """ECA: a convolution that slides over the channels."""
    s = y.mean((2, 3), keepdim=True).squeeze(-1).transpose(1, 2)
    return y * m.slide(s).transpose(1, 2).unsqueeze(-1).sigmoid()


PERMUTATION = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
COLUMN = PERMUTATION[None, :, None, None]


def other_channels(m: Net, y: Tensor) -> Tensor:
    return y.gather(1, ((COLUMN + torch.arange(8)) % 8).expand(len(y), -1, 8, -1))


def shuffled(m: Net, y: Tensor) -> Tensor:
    """Which fails for odd numbers of channels."""
    return y[:, torch.arange(y.shape[1]).view(2, -1).t().flatten()]


CASES = [
    held(
        "matrix exponential",
        lambda m, y: (0.1 * y[..., :5, :5]).matrix_exp(),
        "no rule for operator",
    ),
    held("cumulative sum over channels", lambda m, y: y.cumsum(1), "mixed or ordered along this axis"),
    held("softmax over channels", lambda m, y: y.softmax(1), "mixed or ordered along this axis"),
    held(
        "log-softmax over channels",
        lambda m, y: y.log_softmax(1),
        "mixed or ordered along this axis",
    ),
    held("sorted channels", lambda m, y: y.sort(1).values, "mixed or ordered along this axis"),
    held(
        "largest channels",
        lambda m, y: y.topk(3, 1).values,
        "mixed or ordered along this axis",
        leaving=3,
    ),
    held(
        "largest channel's number",
        lambda m, y: y.argmax(1, keepdim=True).float() + 0 * y,
        "read as a position",
    ),
    held("all axes rolled at once", lambda m, y: y.roll(2), "rolled by a number of channels"),
    held(
        "channels picked by a matrix",
        lambda m, y: y[:, PERMUTATION.view(2, 4)].flatten(1, 2),
        "picked by indices",
    ),
    held(
        "channels picked at random",
        lambda m, y: y[:, torch.arange(8)[torch.randint(8, (8,))]],
        "picked by indices",
    ),
    held("other channels gathered at each place", other_channels, "picked by indices"),
    held("channels shuffled by their number", shuffled, "picked by indices"),
    held(
        "positions that fail once channels go",
        lambda m, y: y.gather(1, COLUMN.expand_as(y)),
        "picked by indices",
    ),
    held("channels gathered", lambda m, y: y.gather(1, y.argsort(1)), "mixed or ordered"),
    held(
        "unbind over channels",
        lambda m, y: torch.stack([t.relu() for t in y.unbind(1)], 1),
        "position by position",
    ),
    held("local response norm", lambda m, y: F.local_response_norm(y, 3), "positions that pooling"),
    held(
        "pooling over channels",
        lambda m, y: F.max_pool1d(y.flatten(2).transpose(1, 2), 2).transpose(1, 2).unflatten(2, (8, 8)),
        "positions that pooling",
        leaving=4,
    ),
    held(
        "adaptive pooling over channels",
        lambda m, y: F.adaptive_avg_pool3d(y.unsqueeze(1), (4, 8, 8)).squeeze(1),
        "positions that pooling",
        leaving=4,
    ),
    held(
        "convolution over channels (ECA)",
        channel_attention,
        "positions that a kernel slides over",
        slide=nn.Conv1d(1, 1, 3, padding=1),
    ),
    held(
        "convolution over channels and depth",
        lambda m, y: m.deep(y.unsqueeze(1)).squeeze(1),
        "positions that a kernel slides over",
        deep=nn.Conv3d(1, 1, 3, padding=1),
    ),
    held(
        "padding that repeats channels",
        lambda m, y: F.pad(y, (0, 0, 0, 0, 1, 1), mode="replicate"),
        "positions that a padding repeats",
        leaving=10,
    ),
    held(
        "constant for each channel",
        lambda m, y: y + torch.arange(8.0).view(1, 8, 1, 1),
        "meets values whose channels are fixed",
    ),
    held("a branch on the number of channels", branch, "a size written into forward"),
    held(
        "an assertion on the number of channels",
        lambda m, y: y if y.shape[1] == 8 else y.undefined(),
        "a size written into forward",
    ),
    held(
        "a check before an operator that no channel enters",
        checked,
        "a check in forward compares their number",
    ),
    held(
        "chunks that do not come out even",
        lambda m, y: torch.cat(y.chunk(3, 1)[::-1], 1),
        "split into sizes that forward fixes",
    ),
    held(
        "a mean spelled out",
        lambda m, y: y - sum(y[:, i : i + 1] for i in range(y.shape[1])) / 8,
        "a slice of one channel",
    ),
    held(
        "einsum that sums fixed weights",
        lambda m, y: torch.einsum("nchw,c->nhw", y, torch.arange(8.0))[:, None] + 0 * y,
        "reads values whose channels are fixed",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pinned_with_a_reason(case: Case) -> None:
    assert_case(case)


def test_an_axis_that_is_rolled_elsewhere_stays_free() -> None:
    net = between(lambda m, y: y.roll(2, 3))()
    assert_prunes_exactly(net, torch.randn(IMAGE), free=14)


def test_the_network_output_and_input_are_pinned() -> None:
    graph = capture(nn.Conv2d(3, 4, 1), torch.randn(IMAGE))
    assert graph.n_units == 0
    text = graph.explain("")
    assert "it is an output of the model" in text
    assert "reads values whose channels are fixed, such as an input" in text


def test_a_rule_of_ones_own_frees_what_was_pinned() -> None:
    net = between(lambda m, y: (0.1 * y[..., :5, :5]).matrix_exp())()
    name = "aten.linalg_matrix_exp.default"

    def passes(call: Call) -> list[Layers]:
        return [tuple(layer for layer in call.args[0].layers if layer.axis == 1)]

    assert capture(net, torch.randn(IMAGE)).n_units == 6
    rule(name)(passes)
    try:
        assert_prunes_exactly(net, torch.randn(IMAGE), free=14)
    finally:
        del RULES[name]


def test_every_pinned_channel_has_a_reason() -> None:
    """For all cases of this file: an axis that keeps a channel for good says why."""
    for item in CASES:
        graph = capture(item.make().eval(), *item.inputs)
        for axis in graph.axes:
            if (axis.units < 0).any():
                assert graph.reasons.get((axis.tensor, axis.axis)), (
                    item.name,
                    axis,
                    explained(graph),
                )


def test_a_wrong_rule_is_caught() -> None:
    """The driver itself: with flip read as the identity, verify must refuse the cut."""
    net = Net(lambda m, x: m.head(m.stem(x).flip(1)), stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    right = RULES["aten.flip.default"]
    rule("aten.flip.default")(lambda call: [call.args[0].layers])
    try:
        with pytest.raises(Exception, match="differs from the plan"):
            assert_prunes_exactly(net, torch.randn(IMAGE), free=8)
    finally:
        RULES["aten.flip.default"] = right
