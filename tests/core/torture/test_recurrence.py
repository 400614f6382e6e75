"""Recurrences as people write them: states kept, shared, learnt, summed, and scans without a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.capture import capture
from tests.core.driver import Net, assert_pinned, assert_prunes_exactly

SEQUENCE = (4, 3, 5)  # batch, time, channels
Body = Callable[[Any, Tensor], Tensor]


def net(body: Body, **parts: Callable[[], Any]) -> Callable[[], nn.Module]:
    return lambda: Net(body, **{name: make() for name, make in parts.items()})


def linear(i: int, o: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(i, o)


def lstm(*sizes: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.LSTM(*sizes, batch_first=True, **options)


def gru(*sizes: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.GRU(*sizes, batch_first=True, **options)


def stateful(m: Any, x: Tensor) -> Tensor:
    y, state = m.rnn(x, m.state.expand(-1, len(x), -1).contiguous())
    m.state = state[:, :1].detach()
    return m.head(y)


def residual(m: Any, x: Tensor) -> Tensor:
    y = m.stem(x)
    y = y + m.one(y)[0]
    return m.head(y + m.two(y)[0])


def called_twice(m: Any, x: Tensor) -> Tensor:
    return m.head(m.rnn(m.rnn(m.stem(x))[0])[0])


def state_handed_on(m: Any, x: Tensor) -> Tensor:
    return m.head(m.decoder(x.flip(1), m.encoder(x)[1])[0])


def peephole(m: Any, x: Tensor) -> Tensor:
    h = c = x.new_zeros(len(x), m.recurrent.in_features)
    for step in x.unbind(1):
        i, f, g, o = (m.entering(step) + m.recurrent(h)).chunk(4, -1)
        f, i = torch.sigmoid(f + m.peeps[0] * c), torch.sigmoid(i + m.peeps[1] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + m.peeps[2] * c) * torch.tanh(c)
    return m.head(h)


def minimal_scan(m: Any, x: Tensor) -> Tensor:
    z, new = m.gates(m.stem(x)).chunk(2, -1)
    z = torch.sigmoid(z)
    a = torch.cumprod(1 - z, 1)
    return m.head(a * torch.cumsum(z * new / (a + 1e-3), 1))


def quasi_recurrent(m: Any, x: Tensor) -> Tensor:
    z, f, o = m.conv(F.pad(x.mT, (1, 0))).chunk(3, 1)
    h, out = torch.zeros_like(z[..., 0]), []
    for t in range(x.shape[1]):
        gate = f[..., t].sigmoid()
        h = gate * h + (1 - gate) * z[..., t].tanh()
        out.append(h * o[..., t].sigmoid())
    return m.head(torch.stack(out, 1))


def selective_scan(m: Any, x: Tensor) -> Tensor:
    """Gu and Dao 2023, without a kernel: 8 channels with 3 states each."""
    u, z = m.stem(x).chunk(2, -1)
    u = F.silu(m.conv(u.mT)[..., : x.shape[1]]).mT
    step, entering, leaving = m.selection(u).split([2, 3, 3], -1)
    step = F.softplus(m.step(step))
    decay = torch.exp(-step[..., None] * m.rate)
    new = torch.einsum("bld,bln,bld->bldn", step, entering, u)
    state = torch.zeros(len(x), *m.rate.shape, dtype=x.dtype)
    out = []
    for t in range(x.shape[1]):
        state = decay[:, t] * state + new[:, t]
        out.append(torch.einsum("bdn,bn->bd", state, leaving[:, t]))
    return m.head((torch.stack(out, 1) + u * m.skip) * F.silu(z))


def functional_cell(m: Any, x: Tensor) -> Tensor:
    h = c = x.new_zeros(len(x), m.u.shape[1])
    for step in x.unbind(1):
        h, c = torch.lstm_cell(step, (h, c), m.w, m.u, m.b, m.b)
    return m.head(h)


def parameter(*shape: int) -> Callable[[], Any]:
    return lambda: nn.Parameter(torch.randn(shape))


def directions_added(m: Any, x: Tensor) -> Tensor:
    y, n = m.rnn(x)[0], m.rnn.hidden_size
    return m.head(y[..., :n] + y[..., n:])


def directions_viewed(m: Any, x: Tensor) -> Tensor:
    y = m.rnn(x)[0]
    return m.head(y.view(*y.shape[:2], 2, -1).sum(2))


def normed_over_time(m: Any, x: Tensor) -> Tensor:
    return m.head(m.norm(m.rnn(x)[0].transpose(1, 2)).amax(2))


def from_learned_states(m: Any, x: Tensor) -> Tensor:
    return m.head(m.rnn(x, m.first.expand(-1, len(x), -1).contiguous())[0])


def frames(m: Any, x: Tensor) -> Tensor:
    y = torch.relu(m.conv(x.unflatten(2, (1, -1)).flatten(0, 1)[:, :, None])).flatten(1)
    return m.head(m.rnn(y.view(*x.shape[:2], -1))[0][:, -1])


def tied_cells() -> nn.Module:
    model = Net(
        lambda m, x: m.head(m.a(x[:, 2], m.b(x[:, 1], m.a(x[:, 0])))),
        a=nn.GRUCell(5, 8),
        b=nn.GRUCell(5, 8),
        head=nn.Linear(8, 2),
    )
    model.b.weight_hh = model.a.weight_hh
    return model


CASES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "stateful": (net(stateful, rnn=gru(5, 8), head=linear(8, 2), state=lambda: torch.zeros(1, 1, 8)), 8),
    "residual": (net(residual, stem=linear(5, 8), one=lstm(8, 8), two=lstm(8, 8), head=linear(8, 2)), 8),
    "called twice": (net(called_twice, stem=linear(5, 8), rnn=lstm(8, 8), head=linear(8, 2)), 8),
    # two layers, each of which the encoder's and the decoder's share
    "state handed on": (
        net(state_handed_on, encoder=lstm(5, 8, 2), decoder=lstm(5, 8, 2), head=linear(8, 2)),
        16,
    ),
    "peephole": (
        net(
            peephole,
            entering=linear(5, 32),
            recurrent=linear(8, 32),
            peeps=parameter(3, 8),
            head=linear(8, 2),
        ),
        8,
    ),
    # 6 of the stem, 8 of the state
    "minimal scan": (net(minimal_scan, stem=linear(5, 6), gates=linear(6, 16), head=linear(8, 2)), 14),
    "quasi-recurrent": (net(quasi_recurrent, conv=lambda: nn.Conv1d(5, 24, 2), head=linear(8, 2)), 8),
    # 8 of the stream, 2 of the step, 3 of the state, whose sizes forward holds
    "selective scan": (
        net(
            selective_scan,
            stem=linear(5, 16),
            conv=lambda: nn.Conv1d(8, 8, 3, padding=2, groups=8),
            selection=linear(8, 8),
            step=linear(2, 8),
            rate=lambda: nn.Parameter(torch.rand(8, 3)),
            skip=parameter(8),
            head=linear(8, 5),
        ),
        13,
    ),
    "functional cell": (
        net(functional_cell, w=parameter(32, 5), u=parameter(32, 8), b=parameter(32), head=linear(8, 2)),
        8,
    ),
    "directions added": (net(directions_added, rnn=lstm(5, 8, bidirectional=True), head=linear(8, 2)), 8),
    "normed over time": (
        net(
            normed_over_time,
            rnn=gru(5, 8, bidirectional=True),
            norm=lambda: nn.BatchNorm1d(16),
            head=linear(16, 2),
        ),
        16,
    ),
    # a parameter holds both directions' first states, so that they are tied
    "learned states": (
        net(
            from_learned_states,
            rnn=gru(5, 8, bidirectional=True),
            first=parameter(2, 1, 8),
            head=linear(16, 2),
        ),
        8,
    ),
    "frames": (net(frames, conv=lambda: nn.Conv2d(1, 6, 1), rnn=lstm(30, 8), head=linear(8, 2)), 14),
    "tied cells": (tied_cells, 8),
}


def normed(m: Any, x: Tensor) -> Tensor:
    h = c = x.new_zeros(x.shape[1], m.recurrent.in_features)
    for step in x:
        i, f, g, o = m.norm(m.entering(step) + m.recurrent(h)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(m.cell_norm(c))
    return m.head(h)


def test_a_sequence_of_another_length_is_verified_with_its_own_steps() -> None:
    """The norms of a loop over time are more than those that were captured: 3 steps, then 6."""
    make = net(
        normed,
        entering=linear(5, 32),
        recurrent=linear(8, 32),
        norm=lambda: nn.LayerNorm(32),
        cell_norm=lambda: nn.LayerNorm(8),
        head=linear(8, 2),
    )
    torch.manual_seed(0)
    assert_prunes_exactly(make().eval(), torch.randn(3, 4, 5), free=8)


def test_directions_taken_apart_by_a_view_are_pinned() -> None:
    """The cut of a joined axis into [directions, n] cannot be told from heads and dims yet."""
    make = net(directions_viewed, rnn=lstm(5, 8, bidirectional=True), head=linear(8, 2))
    graph = capture(make(), torch.randn(SEQUENCE))
    assert graph.n_units == 0
    assert_pinned(graph, "rnn.weight_hh_l0", "split by a view")


@pytest.mark.parametrize("name", CASES)
def test_cuts_are_exact(name: str) -> None:
    make, free = CASES[name]
    torch.manual_seed(0)
    assert_prunes_exactly(make().eval(), torch.randn(SEQUENCE), free=free)
