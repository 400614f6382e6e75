"""Recurrent networks: gates, recurrent columns and sizes go together, layer by layer or all at once."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.surgery import apply, apply_
from tests.core.driver import (
    Case,
    Net,
    assert_case,
    assert_pinned,
    assert_prunes_exactly,
    case,
    explained,
    plan_without,
)

TOKENS = (3, 4, 5)


def layer(kind: type[nn.RNNBase], head: int, **options: Any) -> nn.Module:
    """Three positions of 5 channels through a layer of 6 inputs and 8 hidden channels."""
    return Net(
        lambda m, x: m.head(m.rnn(torch.tanh(m.stem(x)))[0]),
        stem=nn.Linear(5, 6),
        rnn=kind(6, 8, **options),
        head=nn.Linear(head, 2),
    )


def with_state(kind: type[nn.RNNBase]) -> nn.Module:
    """The first state is computed from another input; the last is what is read."""

    def forward(m: Net, x: Tensor, y: Tensor) -> Tensor:
        first = torch.tanh(m.start(y))[None]
        state = (first, torch.relu(m.cell(y))[None]) if kind is nn.LSTM else first
        _, last = m.rnn(x, state)
        hidden, cell = last if isinstance(last, tuple) else (last, last)
        return m.head(torch.cat([hidden[0], cell[-1]], -1))

    parts = {"start": nn.Linear(3, 8), "rnn": kind(5, 8), "head": nn.Linear(16, 2)}
    if kind is nn.LSTM:
        parts["cell"] = nn.Linear(3, 8)
    return Net(forward, **parts)


def in_a_loop(kind: type[nn.RNNCellBase], *, given: bool = True) -> nn.Module:
    def forward(m: Net, x: Tensor) -> Tensor:
        zeros = x.new_zeros(x.shape[1], m.cell.hidden_size)
        state: Any = ((zeros, zeros) if kind is nn.LSTMCell else zeros) if given else None
        out = []
        for step in torch.tanh(m.stem(x)):
            state = m.cell(step, state)
            out.append(state[0] if isinstance(state, tuple) else state)
        return m.head(torch.stack(out))

    return Net(forward, stem=nn.Linear(5, 6), cell=kind(6, 8), head=nn.Linear(8, 2))


def classifier(take: Any) -> nn.Module:
    """Reads the last states of both directions."""
    return Net(
        lambda m, x: m.head(take(m.rnn(x)[1])), rnn=nn.GRU(5, 8, bidirectional=True), head=nn.Linear(16, 2)
    )


def zeros_written() -> nn.Module:
    """Pieces of one tensor of zeros are filled, and seen together again."""

    def forward(m: Net, x: Tensor) -> Tensor:
        both = x.new_zeros(2, len(x), m.a.out_features)
        one, other = both.unbind(0)
        one.copy_(m.a(x))
        other.copy_(m.b(x))
        return m.head(both.sum(0))

    return Net(forward, a=nn.Linear(5, 8), b=nn.Linear(5, 8), head=nn.Linear(8, 2))


class HandWritten(nn.Module):
    """An LSTM whose gates are one product of input and state side by side."""

    def __init__(self, *, slices: bool = False) -> None:
        super().__init__()
        self.hidden = 8
        self.gates, self.head = nn.Linear(5 + 8, 4 * 8), nn.Linear(8, 2)
        self.slices = slices

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[1], self.hidden, dtype=x.dtype)
        for step in x:
            gates = self.gates(torch.cat([step, h], 1))
            if self.slices:
                n = self.hidden
                i, f, g, o = (gates[:, k * n : (k + 1) * n] for k in range(4))
            else:
                i, f, g, o = gates.chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return self.head(h)


class MinimalGate(nn.Module):
    """A gated unit of bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Parameter(torch.randn(5, 16)), nn.Parameter(torch.randn(8, 16))
        self.b, self.head = nn.Parameter(torch.randn(16)), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], self.u.shape[0])
        for step in x:
            z, n = (step @ self.w + h @ self.u + self.b).split(self.u.shape[0], 1)
            h = torch.lerp(h, torch.tanh(n), torch.sigmoid(z))
        return self.head(h)


class ConvLSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.Conv2d(3 + 6, 24, 3, padding=1), nn.Conv2d(6, 2, 1)
        self.width = 6

    def forward(self, x: Tensor) -> Tensor:
        n, t, _, h, w = x.shape
        state = memory = torch.zeros(n, self.width, h, w, dtype=x.dtype)
        for step in range(t):
            i, f, o, g = self.cell(torch.cat([x[:, step], state], 1)).chunk(4, 1)
            memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
            state = o.sigmoid() * memory.tanh()
        return self.head(state)


class CRNN(nn.Module):
    """Shi et al. 2015: convolutions, columns as a sequence, a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, 1, 1),
        )
        self.rnn = nn.LSTM(6 * 4, 5, num_layers=2, bidirectional=True)
        self.head = nn.Linear(10, 7)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.body(x))
        y, _ = self.rnn(y.permute(3, 0, 1, 2).flatten(2))
        return F.log_softmax(self.head(y), -1)


class SequenceToSequence(nn.Module):
    """An encoder's last state starts a decoder that reads its own embedding of what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.said = nn.Embedding(11, 6), nn.Embedding(9, 7)
        self.encoder, self.bridge = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 8)
        self.decoder, self.head = nn.GRU(7, 8, batch_first=True), nn.Linear(8, 9)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.words(source))
        y, _ = self.decoder(self.said(target), torch.tanh(self.bridge(state)))
        return self.head(y)


class Attending(nn.Module):
    """Bahdanau attention of a cell over an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(5, 6, batch_first=True, bidirectional=True)
        self.cell = nn.LSTMCell(12, 8)
        self.query, self.key, self.score = nn.Linear(8, 4), nn.Linear(12, 4), nn.Linear(4, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen, _ = self.encoder(x)
        h = c = x.new_zeros(len(x), self.cell.hidden_size)
        out = []
        for _ in range(3):
            energy = self.score(torch.tanh(self.query(h)[:, None] + self.key(seen)))
            context = (energy.softmax(1) * seen).sum(1)
            h, c = self.cell(context, (h, c))
            out.append(self.head(h))
        return torch.stack(out, 1)


CASES = [
    *(
        case(
            f"{name} {kind.__name__}",
            lambda kind=kind, o=options, h=head: layer(kind, h, **o),
            TOKENS,
            free=free,
        )
        # 6 that enter, 8 hidden for each layer and direction
        for kind in (nn.LSTM, nn.GRU, nn.RNN)
        for name, options, head, free in (
            ("plain", {}, 8, 14),
            ("batch first", {"batch_first": True}, 8, 14),
            ("without bias", {"bias": False}, 8, 14),
            ("two layers of", {"num_layers": 2}, 8, 22),
            ("bidirectional", {"bidirectional": True}, 16, 22),
            ("two bidirectional layers of", {"num_layers": 2, "bidirectional": True}, 16, 38),
        )
    ),
    case("relu RNN", lambda: layer(nn.RNN, 8, nonlinearity="relu"), TOKENS, free=14),
    # 6 that enter, 8 hidden, 3 projected
    case("projected LSTM", lambda: layer(nn.LSTM, 3, proj_size=3), TOKENS, free=17),
    case(
        "two bidirectional layers of projected LSTM",
        lambda: layer(nn.LSTM, 6, proj_size=3, num_layers=2, bidirectional=True),
        TOKENS,
        free=50,
    ),
    case("dropout between layers", lambda: layer(nn.GRU, 8, num_layers=2, dropout=0.5), TOKENS, free=22),
    case("one position", lambda: layer(nn.LSTM, 8), (1, 4, 5), free=14),
    case("one position, two directions", lambda: layer(nn.GRU, 16, bidirectional=True), (1, 4, 5), free=22),
    case("no batch", lambda: layer(nn.LSTM, 8), (3, 5), free=14, second_batch=False),
    *(
        case(
            f"given state {kind.__name__}",
            lambda kind=kind: with_state(kind),
            TOKENS,
            (4, 3),
            free=8,
            second_batch=False,
        )
        for kind in (nn.LSTM, nn.GRU, nn.RNN)
    ),
    *(
        case(
            f"{kind.__name__} in a loop",
            lambda kind=kind, g=given: in_a_loop(kind, given=g),
            (steps, 4, 5),
            free=14,
        )
        for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
        for given, steps in ((True, 3), (False, 2), (False, 1))
    ),
    case("hand-written", HandWritten, TOKENS, free=8),
    case("hand-written, sliced", lambda: HandWritten(slices=True), TOKENS, free=8),
    case("minimal gate", MinimalGate, TOKENS, free=8),
    case("convolutional LSTM", ConvLSTM, (2, 3, 3, 4, 5), free=6),
    # 4 + 6 of the convolutions, 5 hidden in 2 layers of 2 directions
    case("CRNN", CRNN, (2, 1, 8, 12), free=30),
    # words 6, said 7, hidden 8 and 8
    case(
        "sequence to sequence",
        SequenceToSequence,
        torch.randint(11, (2, 4)),
        torch.randint(9, (2, 3)),
        free=29,
    ),
    # 6 and 6 of the encoder, 8 of the cell, 4 of the score
    case("attending", Attending, (2, 4, 5), free=24),
    # 8 for each direction
    *(
        case(
            f"last states by {name}", lambda take=take: classifier(take), TOKENS, free=16, second_batch=False
        )
        for name, take in (
            ("negative numbers", lambda h: torch.cat([h[-2], h[-1]], 1)),
            ("numbers", lambda h: torch.cat([h[0], h[1]], 1)),
            ("unpacking", lambda h: torch.cat([*h], 1)),
            ("one only", lambda h: torch.cat([h[1], h[1]], 1)),
        )
    ),
    # all states side by side are tied
    *(
        case(f"last states {name}", lambda take=take: classifier(take), TOKENS, free=8, second_batch=False)
        for name, take in (
            ("flattened", lambda h: h.transpose(0, 1).flatten(1)),
            ("written into", lambda h: (h[0].add_(h[1]), h.transpose(0, 1).flatten(1))[1]),
        )
    ),
    case("zeros taken apart and written into", zeros_written, (4, 5), free=8, second_batch=False),
    case(
        "all outputs",
        lambda: Net(lambda m, x: m.rnn(m.stem(x)), stem=nn.Linear(5, 6), rnn=nn.LSTM(6, 8)),
        TOKENS,
        free=6,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    graph = assert_case(case)
    assert_sizes_fit(graph)


def assert_sizes_fit(graph: Graph) -> None:
    """Half of every group gone, recurrent layers remember the sizes of their weights and run fused."""
    mask = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        for cell in group.cells:
            mask[cell[: group.size // 2]] = True
    small = apply(graph.model, graph.plan(mask))
    for module in small.modules():
        if isinstance(module, nn.RNNBase):
            for fresh, own in zip(_fresh(module).all_weights, module.all_weights, strict=True):
                assert [w.shape for w in fresh] == [w.shape for w in own]
            assert all(
                a is b
                for a, b in zip(
                    module._flat_weights, [w for cell in module.all_weights for w in cell], strict=True
                )
            )
        elif isinstance(module, nn.RNNCellBase):
            fresh_cell = type(module)(module.input_size, module.hidden_size)
            assert [w.shape for w in fresh_cell.parameters()] == [w.shape for w in module.parameters()]


def _fresh(module: nn.RNNBase) -> nn.RNNBase:
    names = ("num_layers", "bias", "batch_first", "bidirectional")
    options = {name: getattr(module, name) for name in names}
    if isinstance(module, nn.LSTM):
        options["proj_size"] = module.proj_size
    return type(module)(module.input_size, module.hidden_size, **options)


def test_a_cut_lstm_is_the_one_of_the_kept_slices() -> None:
    model = layer(nn.LSTM, 8).double()
    graph = capture(model, torch.randn(3, 4, 5).double())
    small = apply(model, plan_without(graph, "rnn.weight_hh_l0", 1, [0, 3, 6]))
    keep = [1, 2, 4, 5, 7]
    rows = [gate * 8 + k for gate in range(4) for k in keep]
    assert torch.equal(small.rnn.weight_hh_l0, model.rnn.weight_hh_l0[rows][:, keep])
    assert torch.equal(small.rnn.weight_ih_l0, model.rnn.weight_ih_l0[rows])
    assert torch.equal(small.rnn.bias_hh_l0, model.rnn.bias_hh_l0[rows])
    assert small.rnn.hidden_size == 5


def test_layers_lose_equally_many_hidden_channels_each_its_own() -> None:
    graph = capture(layer(nn.GRU, 8, num_layers=2), torch.randn(TOKENS))
    (group,) = [g for g in graph.groups if len(g.cells) == 2]
    assert [len(cell) for cell in group.cells] == [8, 8], explained(graph)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_fused_kernels_in_float32_agree_with_a_loop_over_cells_in_float64(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    model, x = layer(kind, 8), torch.randn(6, 4, 5)
    small = apply(model, plan_without(capture(model, x), "rnn.weight_hh_l0", 1, [1, 2, 5]))
    rnn = small.rnn
    cell = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}[kind](6, 5).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in rnn.state_dict().items()})
    state, out = None, []
    for step in torch.tanh(copy.deepcopy(small.stem).double()(x.double())):
        state = cell(step, state)
        out.append(state[0] if isinstance(state, tuple) else state)
    expected = copy.deepcopy(small.head).double()(torch.stack(out))
    torch.testing.assert_close(small(x).double(), expected, atol=1e-5, rtol=1e-5)


def test_in_place_a_layer_runs_on_its_own_cut_weights() -> None:
    model, x = layer(nn.LSTM, 8), torch.randn(TOKENS)
    plan = plan_without(capture(model, x), "rnn.weight_hh_l0", 1, [0, 7])
    small = apply(model, plan)
    apply_(model, plan)
    assert torch.equal(model(x), small(x))
    model(x).sum().backward()
    assert model.rnn.weight_hh_l0.grad.shape == (24, 6)


def test_packed_sequences() -> None:
    def forward(m: Net, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(torch.tanh(m.stem(x)), lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(m.rnn(packed)[0], batch_first=True)
        return m.head(y)

    parts = {"stem": nn.Linear(5, 6), "rnn": nn.LSTM(6, 8, batch_first=True), "head": nn.Linear(8, 2)}
    assert_prunes_exactly(Net(forward, **parts), torch.randn(3, 4, 5), torch.tensor([2, 4, 3]), free=14)


def test_a_parametrised_recurrent_weight_is_pinned() -> None:
    model = layer(nn.LSTM, 8)
    nn.utils.parametrizations.weight_norm(model.rnn, "weight_hh_l0")
    graph = capture(model, torch.randn(TOKENS))
    assert_pinned(graph, "rnn.parametrizations.weight_hh_l0.original1", "written into forward")
