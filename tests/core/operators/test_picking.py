"""Index tensors along one axis: channels beside it carry on, channels that constant ones pick follow."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.core.verify import verify
from compressor.errors import ModelError, VerifyError
from tests.core.driver import TOLERANCE, Case, Net, assert_case, case, plan_without

TOKENS = (3, 6, 5)  # batch, tokens, features


def tokens(function: Callable[[Any, Tensor], Tensor], **parts: Any) -> Callable[[], nn.Module]:
    """Eight features of six tokens, `function(net, features)`, and what reads them."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(torch.tanh(function(m, m.stem(x))))

    return lambda: Net(forward, stem=nn.Linear(5, 8), head=nn.Linear(8, 2), **parts)


def last_token(m: Any, y: Tensor) -> Tensor:
    return y[torch.arange(len(y)), torch.full((len(y),), 2)]


def order(y: Tensor) -> Tensor:
    return torch.arange(y.shape[1]).flip(0)[None, :, None]


def put(m: Any, y: Tensor) -> Tensor:
    y = y.clone()
    y[:, torch.tensor([1, 3])] = m.other(y[:, :2])
    return y


def put_first(m: Any, y: Tensor) -> Tensor:
    return torch.zeros_like(y).index_put((torch.arange(2), torch.tensor([1, 3])), m.other(y[:2, 0]))


def add_rows(m: Any, y: Tensor) -> Tensor:
    return torch.zeros_like(y).index_add(1, torch.tensor([0, 0, 2]), m.other(y[:, :3]))


def copy_rows(m: Any, y: Tensor) -> Tensor:
    return y.index_copy(1, torch.tensor([4, 1]), m.other(y[:, :2]))


def fill_rows(m: Any, y: Tensor) -> Tensor:
    return y.index_fill(1, torch.tensor([4, 1]), 0.5)


def gather_tokens(m: Any, y: Tensor) -> Tensor:
    return y.gather(1, order(y).expand(len(y), -1, y.shape[2]))


def scatter_tokens(m: Any, y: Tensor) -> Tensor:
    index = order(y)[:, :3].expand(len(y), -1, y.shape[2])
    return torch.zeros_like(y).scatter(1, index, m.other(y[:, :3]))


def scatter_add_tokens(m: Any, y: Tensor) -> Tensor:
    index = (order(y) // 2).expand(len(y), -1, y.shape[2])
    return torch.zeros_like(y).scatter_add(1, index, m.other(y))


def spectrum(m: Any, y: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(y, dim=1) * m.filter, n=6, dim=1)


CASES = [
    case("tokens picked by a vector", tokens(lambda m, y: y[:, torch.tensor([4, 1])]), TOKENS, free=8),
    case("tokens picked by a matrix", tokens(lambda m, y: y[:, torch.eye(2).long()]), TOKENS, free=8),
    case("a token of each example", tokens(last_token), TOKENS, free=8),
    case("two axes with one between", tokens(lambda m, y: y[:, :, None][torch.arange(2), :, 0]), TOKENS,
         free=8),
    case("tokens written", tokens(put, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("tokens written into zeros", tokens(put_first, other=nn.Linear(8, 8)), TOKENS, free=8,
         second_batch=False),
    case("tokens added", tokens(add_rows, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("tokens copied", tokens(copy_rows, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("tokens filled", tokens(fill_rows), TOKENS, free=8),
    case("tokens gathered", tokens(gather_tokens), TOKENS, free=8),
    case("tokens scattered", tokens(scatter_tokens, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("tokens scattered and added", tokens(scatter_add_tokens, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("spectrum over tokens", tokens(spectrum, filter=nn.Parameter(torch.randn(4, 8))), TOKENS, free=8),
    case("spectrum over channels", tokens(lambda m, y: torch.fft.fft(y).real), TOKENS, free=0,
         pinned={"stem": "a Fourier transform"}),
]  # fmt: skip


@pytest.mark.parametrize("one", CASES, ids=str)
def test_channels_beside_an_indexed_axis_are_followed(one: Case) -> None:
    assert_case(one)


def test_an_embedding_bag_keeps_its_vocabulary_and_loses_width() -> None:
    def made() -> nn.Module:
        return Net(
            lambda m, x: m.head(torch.tanh(m.bag(x))), bag=nn.EmbeddingBag(10, 8), head=nn.Linear(8, 2)
        )

    ids = torch.randint(10, (3, 4))
    assert_case(case("bag", made, ids, free=8, pinned={"bag": "rows of an embedding"}, second_batch=False))


# -- channels picked -----------------------------------------------------------------------------

ORDER = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
IMAGE = (2, 3, 6, 6)


def channels(
    function: Callable[[Any, Tensor], Tensor], leaving: int = 8, **parts: Any
) -> Callable[[], nn.Module]:
    """Eight channels of a convolution, `function(net, features)`, and what reads them."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(torch.tanh(function(m, m.stem(x))))

    return lambda: Net(forward, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(leaving, 2, 1), **parts)


def picked(name: str, function: Callable[[Any, Tensor], Tensor], leaving: int = 8, **parts: Any) -> Case:
    return case(name, channels(function, leaving, **parts), IMAGE, free=8)


def column(order: Tensor) -> Tensor:
    return order[None, :, None, None]


def numbered(m: Any, y: Tensor) -> Tensor:
    return y.gather(1, column(torch.arange(y.shape[1]).flip(0)).expand_as(y))


def twice(m: Any, y: Tensor) -> Tensor:
    return y[:, ORDER].relu()[:, ORDER].roll(3, 1)


PICKED = [
    picked("by a constant", lambda m, y: y[:, ORDER]),
    picked("by a buffer", lambda m, y: y[:, m.order], order=ORDER.clone()),
    picked("by a list", lambda m, y: y[:, [3, 1, 0, 2]], 4),
    picked("by a list along the first axis", lambda m, y: y.transpose(0, 1)[[3, 1, 0, 2]].transpose(0, 1), 4),
    picked("by an array", lambda m, y: y[:, ORDER.numpy(), 1:], 8),
    picked("by a mask", lambda m, y: y[:, ORDER > 3], 4),
    picked("from the end", lambda m, y: y[:, [-1, 0, -3, 4]], 4),
    picked("more than once", lambda m, y: y[..., ORDER.repeat_interleave(2), :, :], 16),
    picked("by numbers computed from the length", lambda m, y: y[:, torch.arange(y.shape[1]).flip(0)]),
    picked("the first half by number", lambda m, y: y[:, torch.arange(y.shape[1] // 2)], 4),
    picked("by index_select", lambda m, y: y.index_select(1, ORDER)),
    picked("by index_select, named", lambda m, y: torch.index_select(y, index=ORDER, dim=-3)),
    picked("by gather", lambda m, y: y.gather(1, column(ORDER).expand(len(y), -1, *y.shape[2:]))),
    picked("by gather, computed from the length", numbered),
    picked("by take_along_dim", lambda m, y: torch.take_along_dim(y, column(ORDER), 1)),
    picked("by take_along_dim, named", lambda m, y: y.take_along_dim(column(ORDER[:3]), dim=1), 3),
    picked("twice and rolled", twice),
    picked("rolled", lambda m, y: y.roll(2, 1)),
    picked("rolled back", lambda m, y: y.roll(-3, 1)),
    picked("rolled round", lambda m, y: y.roll(11, -3)),
    picked("rolled round and back", lambda m, y: y.roll(-21, 1)),
    picked("rolled along two axes", lambda m, y: torch.roll(y, shifts=(1, 3), dims=(2, 1))),
    picked("rolled by half", lambda m, y: y.roll(y.shape[1] // 2, 1)),
    case("features by gather", tokens(lambda m, y: y.gather(2, ORDER.expand(*y.shape[:2], 8))), TOKENS,
         free=8),
    case("features of kept tokens",
         tokens(lambda m, y: m.other(y)[:, [4, 1]][..., ORDER], other=nn.Linear(8, 8)), TOKENS, free=16),
]  # fmt: skip


@pytest.mark.parametrize("one", PICKED, ids=str)
def test_picked_channels_follow_a_cut(one: Case) -> None:
    assert_case(one)


def test_rows_of_a_table_stay_where_constant_indices_pick_them() -> None:
    """As a bias for each pair of positions does, which attention adds."""
    pairs = torch.arange(36).remainder(11)

    def forward(m: Any, x: Tensor) -> Tensor:
        scores = m.scores(x)
        return m.head(scores.relu() + m.table[pairs].view(1, 36, 8))

    net = Net(forward, scores=nn.Linear(5, 8), head=nn.Linear(8, 2), table=nn.Parameter(torch.randn(11, 8)))
    graph = assert_case(case("table", lambda: net, (2, 36, 5), free=8, pinned={"table": "picked by indices"}))
    assert not any(rule.picks for rule in graph.patch_rules)


class Pick(nn.Module):
    """A module of no parameters that may be used at many places."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, ORDER]


def test_one_call_that_picks_from_several_groups_pins_them() -> None:
    """It has one list of positions, and every group would need its own."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.second(m.pick(m.b(m.pick(torch.tanh(m.a(x))))))

    net = Net(forward, a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 8, 1), second=nn.Conv2d(8, 2, 1), pick=Pick())
    assert capture(net.eval(), torch.randn(IMAGE)).n_units == 0
    net.other = Pick()
    net.function = lambda m, x: m.second(m.other(m.b(m.pick(torch.tanh(m.a(x))))))
    assert_case(case("apart", lambda: net, IMAGE, free=16))


class Turn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.roll(3, 1)


@pytest.mark.parametrize("shared", [Pick(), Turn()])
def test_one_call_that_also_picks_from_what_stays_pins(shared: nn.Module) -> None:
    """The input has as many channels, and loses none."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.b(torch.tanh(m.pick(m.a(m.pick(x)))))

    net = Net(forward, a=nn.Conv2d(8, 8, 1), b=nn.Conv2d(8, 2, 1), pick=shared)
    assert capture(net.eval(), torch.randn(2, 8, 6, 6)).n_units == 0


def test_a_forward_put_on_the_object_keeps_what_it_picks() -> None:
    net = channels(lambda m, y: m.pick(y), pick=Pick())()
    net.pick.forward = lambda x: x[:, ORDER]
    assert capture(net.eval(), torch.randn(IMAGE)).n_units == 0


def test_training_that_picks_otherwise_pins() -> None:
    """Parameters that only training reaches make a second recording, which shares the call."""

    def forward(m: Any, x: Tensor) -> Any:
        order = ORDER.flip(0) if m.training else ORDER
        y = m.head(m.stem(x)[:, order])
        return (y, m.extra(x)) if m.training else y

    net = Net(forward, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1), extra=nn.Conv2d(3, 2, 1))
    assert capture(net.eval(), torch.randn(IMAGE)).n_units == 0


@pytest.mark.parametrize(
    "one", [PICKED[0], PICKED[2], PICKED[5], PICKED[12], PICKED[14], PICKED[18]], ids=str
)
def test_a_pruned_network_is_pruned_again(one: Case) -> None:
    torch.manual_seed(0)
    model = one.make().eval()
    graph = capture(model, *one.inputs)
    first = plan_without(graph, "stem.weight", 0, [1, 6])
    small = apply(model, first)
    again = capture(small, *one.inputs)
    assert again.n_units == 6
    second = plan_without(again, "stem.weight", 0, [0, 3])
    both = second.after(first)
    assert Plan.from_json(both.to_json()) == both
    for least, plan, start in ((apply(small, second), second, small), (apply(model, both), both, model)):
        assert verify(start, least, plan, *one.inputs).error <= TOLERANCE
    x = torch.randn(IMAGE)
    torch.testing.assert_close(copy.deepcopy(apply(small, second))(x), apply(model, both)(x))


def test_a_call_that_holds_something_else_in_training_is_refused() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.stem(x)
        y = y[:, :, 1:] if m.training else y
        return m.head(y[:, ORDER])

    model = Net(forward, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1)).eval()
    small = apply(model, plan_without(capture(model, torch.randn(IMAGE)), "stem.weight", 0, [1]))
    small(torch.randn(IMAGE))
    with pytest.raises(ModelError, match="takes another way"):
        small.train()(torch.randn(IMAGE))


def test_axes_that_nothing_can_shrink_are_rolled_as_they_were() -> None:
    """Windows of tokens that are shifted, say."""

    def forward(m: Any, x: Tensor) -> Tensor:
        return m.head((m.stem(x) + torch.zeros(6, 1)).roll(2, 1))

    net = Net(forward, stem=nn.Linear(5, 8), head=nn.Linear(8, 2))
    assert not assert_case(case("shifted", lambda: net, TOKENS, free=8)).patch_rules


def test_a_wrong_position_is_caught() -> None:
    """It has the right shape: nothing but the numbers tells."""
    torch.manual_seed(0)
    for one in (PICKED[0], PICKED[2], PICKED[12], PICKED[14], PICKED[17]):
        model = one.make().eval()
        graph = capture(model, *one.inputs)
        plan = plan_without(graph, "stem.weight", 0, [1, 6])
        (right,) = plan.patches
        new = right.new[::-1] if isinstance(right.new, tuple) else right.new + 1
        wrong = replace(plan, patches=(replace(right, new=new),))
        with pytest.raises(VerifyError):
            verify(model, apply(model, wrong), wrong, *one.inputs, graph=graph)
