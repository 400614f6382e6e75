"""Recurrent layers on a GPU: other kernels while recording, weights that lie side by side afterwards."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.surgery import apply, apply_
from compressor.core.verify import verify
from tests.core.driver import Net, masks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def layer(kind: type[nn.RNNBase], **options: Any) -> nn.Module:
    width = 8 * (2 if options.get("bidirectional") else 1)
    return Net(
        lambda m, x: m.head(m.rnn(torch.tanh(m.stem(x)))[0]),
        stem=nn.Linear(5, 6),
        rnn=kind(6, 8, **options),
        head=nn.Linear(width, 2),
    )


def in_a_loop(kind: type[nn.RNNCellBase]) -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        state: Any = None
        for step in torch.tanh(m.stem(x)):
            state = m.cell(step, state)
        return m.head(state[0] if isinstance(state, tuple) else state)

    return Net(forward, stem=nn.Linear(5, 6), cell=kind(6, 8), head=nn.Linear(8, 2))


# 6 that enter, 8 hidden for each layer and direction
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "LSTM": (lambda: layer(nn.LSTM), 14),
    "GRU": (lambda: layer(nn.GRU), 14),
    "RNN": (lambda: layer(nn.RNN), 14),
    "two bidirectional layers": (lambda: layer(nn.LSTM, num_layers=2, bidirectional=True), 38),
    "LSTMCell": (lambda: in_a_loop(nn.LSTMCell), 14),
    "GRUCell": (lambda: in_a_loop(nn.GRUCell), 14),
    "RNNCell": (lambda: in_a_loop(nn.RNNCell), 14),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_cuts_are_exact_and_the_fused_kernel_takes_them(name: str) -> None:
    make, free = NETWORKS[name]
    torch.manual_seed(0)
    model, x = make().eval().cuda(), torch.randn(3, 4, 5, device="cuda")
    graph = capture(model, x)
    assert graph.n_units == free
    for mask in masks(graph):
        plan = graph.plan(mask)
        small = apply(model, plan)
        assert verify(model, small, plan, x, graph=graph).error < 1e-9
        with warnings.catch_warnings():
            # Of weights that do not lie side by side.
            warnings.simplefilter("error")
            found = small(x)
            in_place = copy.deepcopy(model)
            apply_(in_place, plan)
            torch.testing.assert_close(in_place(x), found, atol=1e-5, rtol=1e-5)
        expected = copy.deepcopy(small).cpu().double()(x.cpu().double())
        torch.testing.assert_close(found.cpu().double(), expected, atol=1e-4, rtol=1e-4)
