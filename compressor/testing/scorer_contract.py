"""What every scorer must keep to, as tests to inherit; plain asserts, for any test runner."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar
from unittest import SkipTest

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.tape import named_tensors
from compressor.scoring import Scorer, score

__all__ = ["ScorerContract"]

_Values = npt.NDArray[np.float64]


class ScorerContract:
    """The tests of a scorer; inherit in a class named `Test…` and say in `make` how to make one.

    The scorer is tried on a small image classifier (`model`) with BatchNorm, a depthwise and a
    grouped convolution, a residual sum, a flattened head and pinned inputs and outputs, and on a
    small attention network, whose channels have two factors: heads and dims of heads. A scorer that
    needs data finds some in `batches`.

    >>> from compressor.scoring import Norm
    >>> class TestMine(ScorerContract):
    ...     def make(self):
    ...         return Norm(1)
    >>> TestMine().test_the_same_scores_come_twice()
    """

    tolerance = 1e-4
    """How far scores may be apart, relative to the largest, where only rounding differs."""

    reads_channels = True
    """Whether scores belong to what a channel holds and move with it; False for a random scorer."""

    def make(self) -> Scorer | Callable[[Tensor, int], Tensor]:
        """The scorer under test, a new one each time."""
        raise NotImplementedError(f"{type(self).__name__} must say how to make the scorer: make()")

    def model(self) -> nn.Module:
        """The network the scorer is tried on, the same each time.

        Override it together with `example` and `batches`.
        """
        return _network()

    def example(self) -> tuple[Tensor, ...]:
        """Example inputs of the network."""
        return (_batches()[0][0],)

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Three batches of (images, classes) that fit the network, in float32 on the host."""
        return _batches()

    # -- the tests -------------------------------------------------------------------------------

    def test_every_unit_gets_one_finite_score(self) -> None:
        graph = self._graph(self.model())
        values = score(graph, self.make()).values
        assert graph.n_units > 0, "the contract's own network has nothing to score"
        assert values.shape == (graph.n_units,), f"{values.shape} for {graph.n_units} units"
        assert values.dtype == np.float64
        assert np.isfinite(values).all()

    def test_every_scored_axis_has_one_score_for_each_channel(self) -> None:
        graph, scorer = self._graph(self.model()), self.make()
        if not isinstance(scorer, Scorer):
            return  # a function's answers are checked by the scorer that wraps it
        known = {(axis.tensor, axis.axis): axis for axis in graph.axes}
        for key, vector in scorer.site_scores(graph).items():
            assert key in known, f"{key} is no axis of the graph"
            shapes = (known[key].size,), known[key].units.shape
            assert tuple(vector.shape) in shapes, f"{key}: {tuple(vector.shape)}"

    def test_the_same_scores_come_twice(self) -> None:
        graph, scorer = self._graph(self.model()), self.make()
        first = score(graph, scorer).values
        _assert_same(first, score(graph, scorer).values, 0.0, "scored twice by one scorer")
        _assert_same(first, score(graph, self.make()).values, 0.0, "scored by a second one")

    def test_the_model_is_left_untouched(self) -> None:
        model = self.model()
        graph = self._graph(model)
        # A state in which every careless move shows: mixed modes, a frozen weight, a gradient.
        model.train()
        next(m for m in model.modules() if not list(m.children())).eval()
        parameters = list(model.parameters())
        parameters[0].requires_grad_(False)
        parameters[-1].grad = torch.ones_like(parameters[-1])
        before = _state_of(model)
        score(graph, self.make())
        after = _state_of(model)
        assert before.keys() == after.keys(), f"added or lost: {before.keys() ^ after.keys()}"
        for what, value in before.items():
            assert _equal(value, after[what]), f"scoring changed {what}"

    def test_mode_and_frozen_weights_make_no_difference(self) -> None:
        model = self.model()
        expected = score(self._graph(model), self.make()).values
        model.train().requires_grad_(False)
        found = score(self._graph(model), self.make()).values
        _assert_same(expected, found, 0.0, "in training mode with frozen weights")

    def test_scores_follow_permuted_channels(self) -> None:
        if not self.reads_channels:
            raise SkipTest("this scorer does not look at what channels hold")
        plain, permuted, order = _network(), _network(), torch.tensor([3, 0, 5, 1, 4, 2])
        _permute(permuted, order)
        images = _batches()[0][0]
        assert torch.allclose(plain(images), permuted(images), atol=1e-5), "the permutation is off"
        graphs = capture(plain, images), capture(permuted, images)
        scores = [score(graph, self.make()).values for graph in graphs]
        rows = [_units_of(graph, "mixing.weight") for graph in graphs]
        moved = scores[1][rows[1]]
        _assert_same(scores[0][rows[0]][order], moved, self.tolerance, "after a permutation")
        stem = [_units_of(graph, "stem.weight") for graph in graphs]
        here, there = scores[0][stem[0]], scores[1][stem[1]]
        _assert_same(here, there, self.tolerance, "of channels that were not permuted")

    def test_heads_and_their_dims_get_finite_scores(self) -> None:
        graph, scorer = capture(_attention(), _batches()[0][0]), self.make()
        if isinstance(scorer, Scorer):
            units = {(axis.tensor, axis.axis): axis.units for axis in graph.axes}
            for key, vector in scorer.site_scores(graph).items():
                shapes = units[key].shape[-1:], units[key].shape
                assert tuple(vector.shape) in shapes, f"{key}: {tuple(vector.shape)}"
        values = score(graph, scorer).values
        assert values.shape == (graph.n_units,) and np.isfinite(values).all()

    def test_scores_follow_permuted_heads_and_dims(self) -> None:
        if not self.reads_channels:
            raise SkipTest("this scorer does not look at what channels hold")
        plain, permuted = _attention(), _attention()
        heads, dims = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 4, 0, 2])
        _permute_heads(permuted, heads, dims)
        images = _batches()[0][0]
        assert torch.allclose(plain(images), permuted(images), atol=1e-5), "the permutation is off"
        graphs = capture(plain, images), capture(permuted, images)
        scores = [score(graph, self.make()).values for graph in graphs]
        for tensor in ("query.weight", "value.weight"):
            rows = [_units_of(graph, tensor).reshape(2, 3, 5) for graph in graphs]
            for units, order, what in (
                ([r[0, :, 0] for r in rows], heads, "heads"),
                ([r[1, 0] for r in rows], dims, f"dims of {tensor}"),
            ):
                before, after = scores[0][units[0]][order], scores[1][units[1]]
                _assert_same(before, after, self.tolerance, f"of {what} after a permutation")

    def test_double_precision_makes_no_difference(self) -> None:
        expected = score(self._graph(self.model()), self.make()).values
        found = score(self._graph(self.model().double()), self.make()).values
        _assert_same(expected, found, self.tolerance, "in float64")

    def test_memory_format_makes_no_difference(self) -> None:
        expected = score(self._graph(self.model()), self.make()).values
        model = self.model().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = score(self._graph(model), self.make()).values
        _assert_same(expected, found, self.tolerance, "in channels-last format")

    def test_the_device_makes_no_difference(self) -> None:
        if not torch.cuda.is_available():
            raise SkipTest("no CUDA device")
        expected = score(self._graph(self.model()), self.make()).values
        found = score(self._graph(self.model().cuda()), self.make()).values
        _assert_same(expected, found, self.tolerance, "on a CUDA device")

    def test_it_says_what_it_is_in_one_line(self) -> None:
        label = score(self._graph(self.model()), self.make()).scorer
        assert label and "\n" not in label and " at 0x" not in label, label

    def _graph(self, model: nn.Module) -> Graph:
        device = next(model.parameters()).device
        return capture(model, *(value.to(device) for value in self.example()))


# -- the network ---------------------------------------------------------------------------------


class _Network(nn.Module):
    """Every kind of axis a scorer meets, small enough for a test."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.mixing = nn.Conv2d(8, 6, 1)
        self.mixing_norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6 * 4, 5)

    def forward(self, images: Tensor) -> Tensor:
        # Cast, so that data in float32 fits a network in any precision.
        stem = torch.relu(self.stem_norm(self.stem(images.to(self.stem.weight.dtype))))
        features = torch.relu(stem + self.grouped(torch.relu(self.depthwise(stem))))
        mixed = torch.relu(self.mixing_norm(self.mixing(features)))
        logits: Tensor = self.head(nn.functional.avg_pool2d(mixed, 4).flatten(1))
        return logits


class _Attention(nn.Module):
    """Three heads of five dims over four patches, with a norm where values are written."""

    heads = 3

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.stem_norm = nn.BatchNorm2d(8)
        self.query, self.key, self.value = (nn.Conv2d(8, 15, 1) for _ in range(3))
        self.value_norm = nn.BatchNorm2d(15)
        self.out = nn.Conv2d(15, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.relu(self.stem_norm(self.stem(images.to(self.stem.weight.dtype))))
        parts = (self.query(x), self.key(x), self.value_norm(self.value(x)))
        query, key, value = (part.flatten(2).unflatten(1, (self.heads, -1)) for part in parts)
        weights = (query.transpose(-2, -1) @ key).softmax(-1)
        read = (value @ weights.transpose(-2, -1)).flatten(1, 2).unflatten(-1, (2, 2))
        logits: Tensor = self.head((x + self.out(read)).mean((2, 3)))
        return logits


def _network() -> _Network:
    """A network with weights and statistics that differ from channel to channel."""
    with torch.random.fork_rng(devices=[]):
        return _drawn(_Network())


def _attention() -> _Attention:
    """The attention network, likewise."""
    with torch.random.fork_rng(devices=[]):
        return _drawn(_Attention())


_Net = TypeVar("_Net", bound=nn.Module)


def _drawn(network: _Net) -> _Net:
    """The network in eval mode with every tensor drawn anew."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in named_tensors(network).items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(0.5 + noise if "norm" in name else noise - 0.45)
    return network.eval()


def _batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        (
            torch.randn(4, 3, 8, 8, generator=generator),
            torch.randint(0, 5, (4,), generator=generator),
        )
        for _ in range(3)
    ]


@torch.no_grad()
def _permute(network: _Network, order: Tensor) -> None:
    """Put channel `order[i]` of the mixing layer in place i, wherever it is written or read."""
    norm = network.mixing_norm
    assert norm.running_mean is not None and norm.running_var is not None
    assert network.mixing.bias is not None
    written = (network.mixing.weight, network.mixing.bias, norm.weight, norm.bias)
    for tensor in (*written, norm.running_mean, norm.running_var):
        tensor.copy_(tensor[order].clone())
    columns = network.head.weight.view(5, 6, 4)  # flatten puts the pixels of a channel together
    columns.copy_(columns[:, order].clone())


@torch.no_grad()
def _permute_heads(network: _Attention, heads: Tensor, dims: Tensor) -> None:
    """Put head `heads[i]` in place i and, in every head, dim `dims[j]` in place j."""
    order = (heads[:, None] * len(dims) + dims).flatten()
    norm = network.value_norm
    assert norm.running_mean is not None and norm.running_var is not None
    written = [norm.weight, norm.bias, norm.running_mean, norm.running_var]
    for layer in (network.query, network.key, network.value):
        assert layer.bias is not None
        written += [layer.weight, layer.bias]
    for tensor in written:
        tensor.copy_(tensor[order].clone())
    network.out.weight.copy_(network.out.weight[:, order].clone())


# -- comparisons ---------------------------------------------------------------------------------


def _units_of(graph: Graph, tensor: str) -> npt.NDArray[np.int64]:
    return next(a.units for a in graph.axes if a.tensor == tensor and a.axis == 0)


def _assert_same(expected: _Values, found: _Values, tolerance: float, where: str) -> None:
    off = np.abs(expected - found).max() / max(np.abs(expected).max(), np.finfo(float).tiny)
    assert off <= tolerance, f"scores {where} differ by {off:.2g} of the largest: {found}"


def _state_of(model: nn.Module) -> dict[str, Any]:
    """Everything a scorer could disturb, copied, by a name for messages."""
    state: dict[str, Any] = {}
    for name, tensor in named_tensors(model).items():
        state[f"the identity of {name}"] = id(tensor)
        state[f"the values of {name}"] = tensor.detach().clone()
        state[f"requires_grad of {name}"] = tensor.requires_grad
        state[f"the gradient of {name}"] = None if tensor.grad is None else tensor.grad.clone()
        state[f"the hooks of {name}"] = len(tensor._backward_hooks or ())
    for name, module in model.named_modules():
        state[f"the mode of {name or 'the model'}"] = module.training
        for attribute, value in vars(module).items():
            size = len(value) if isinstance(value, dict) else None  # hooks live in dictionaries
            state[f"{attribute} of {name or 'the model'}"] = size
    state["torch's random state"] = torch.get_rng_state()
    numpys = np.random.get_state(legacy=False)["state"]  # noqa: NPY002 - scorers may draw from it
    state["numpy's random state"] = (numpys["key"].tolist(), numpys["pos"])
    state["random's state"] = random.getstate()
    state["whether gradients are on"] = torch.is_grad_enabled()
    state["the default dtype"] = torch.get_default_dtype()
    return state


def _equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.equal(first, second)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return first == second
