"""What every operator test does with a network: capture, cut in several ways, and prove each cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree

from compressor.core.capture import capture
from compressor.core.graph import Graph, Mask
from compressor.core.plan import Plan
from compressor.core.surgery import apply, signature_of
from compressor.core.tape import output_tensors
from compressor.core.verify import verify

TOLERANCE = 1e-9
SEEDS = (0, 1, 2)


class Net(nn.Module):
    """A network from a function of (itself, inputs) and named modules, parameters and numbers."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


def one(
    function: Callable[..., Tensor], *, channels: int = 8, leaving: int = 8, **parts: Any
) -> Callable[[], nn.Module]:
    """`function(net, features)` between a stem and a head of 1x1 convolutions."""
    return lambda: Net(
        lambda m, x: m.head(function(m, m.stem(x))),
        stem=nn.Conv2d(3, channels, 1),
        head=nn.Conv2d(leaving, 2, 1),
        **parts,
    )


def random_removal(graph: Graph, seed: int) -> np.ndarray:
    """A legal removal: in each cell of a group equally many units, at least one rank stays."""
    generator = np.random.default_rng(seed)
    removed = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        count = int(generator.integers(0, group.size))
        for cell in group.cells:
            removed[generator.permutation(cell)[:count]] = True
    return removed


@dataclass(frozen=True)
class Case:
    """A network, its example inputs, and how many units were counted by hand (None: at least one)."""

    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[Any, ...]
    free: int | None = None
    statistics: bool = False
    pinned: tuple[tuple[str, str], ...] = field(default=())
    second_batch: bool = True

    def __str__(self) -> str:
        return self.name


def case(
    name: str, make: Callable[[], nn.Module], *inputs: Any, free: int | None = None, **options: Any
) -> Case:
    """A case whose inputs are given as shapes, or as ready values."""
    torch.manual_seed(len(name))
    ready = tuple(torch.randn(x) if isinstance(x, tuple) else x for x in inputs)
    options["pinned"] = tuple(options.get("pinned", {}).items())
    return Case(name, make, ready, free, **options)


def assert_case(case: Case) -> Graph:
    """Prove a case, and that the graph says of it what was counted by hand."""
    model = case.make().eval()
    graph = assert_prunes_exactly(model, *case.inputs, free=case.free, second_batch=case.second_batch)
    assert any(group.statistics for group in graph.groups) == case.statistics
    for name, reason in case.pinned:
        assert_pinned(graph, name, reason)
    return graph


def assert_pinned(graph: Graph, name: str, reason: str) -> None:
    """Some channel of `name` is pinned, for a reason that says `reason`."""
    text = graph.explain(name)
    assert "pinned: " in text and reason in text, text


def assert_prunes_exactly(
    model: nn.Module, *args: Any, free: int | None = None, second_batch: bool = True
) -> Graph:
    """Capture, then prove random cuts and the deepest cut; `model` is the same afterwards."""
    with unchanged(model, args):
        graph = capture(model, *args)
        assert graph.n_units == free if free is not None else graph.n_units > 0, explained(graph)
        for mask in masks(graph):
            assert_mask(graph, mask, second_batch=second_batch)
    return graph


def assert_mask(graph: Graph, mask: Mask, *, second_batch: bool = True) -> None:
    """Cut what the mask says; the small network is exact, consistent, and runs on other batches."""
    model, args = graph.model, graph.args
    plan = graph.plan(mask)
    small = apply(model, plan)
    report = verify(model, small, plan, *args, graph=graph)
    assert report.error <= TOLERANCE
    if second_batch:
        assert_trains(model, small, _doubled(args))
    assert_attributes_fit(small)
    if second_batch:
        twice = _pytree.tree_map_only(Tensor, _with_another, args)
        assert verify(model, small, plan, *twice, graph=graph).error <= TOLERANCE


# -- masks ---------------------------------------------------------------------------------------


def masks(graph: Graph) -> Iterator[Mask]:
    """Random removals of 30 to 50 % of every group, all but one rank of every group, half of some."""
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        yield removal(graph, rng, lambda size, rng=rng: round(size * rng.uniform(0.3, 0.5)))
    yield removal(graph, np.random.default_rng(0), lambda size: size - 1)
    # Some groups stay whole: a forward may take the length of one axis from another that was cut.
    rng = np.random.default_rng(1)
    some = removal(graph, rng, lambda size: size // 2 if rng.random() < 0.5 else 0)
    if some.any():
        yield some


def removal(graph: Graph, rng: np.random.Generator, ranks: Callable[[int], int]) -> Mask:
    """`ranks(size)` units of each cell of every group, drawn cell by cell."""
    mask = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        count = min(ranks(group.size), group.size - 1)
        for cell in group.cells:
            mask[rng.permutation(cell)[:count]] = True
    return mask


def plan_without(graph: Graph, tensor: str, axis: int, channels: list[int]) -> Plan:
    """The plan that removes the units of these channels."""
    (found,) = [a for a in graph.axes if (a.tensor, a.axis) == (tensor, axis)]
    assert (found.units[channels] >= 0).all(), explained(graph)
    mask = np.zeros(graph.n_units, dtype=bool)
    mask[found.units[channels]] = True
    return graph.plan(mask)


def explained(graph: Graph) -> str:
    """Everything the graph says of its tensors, for failing tests."""
    names = dict.fromkeys(axis.tensor for axis in graph.axes)
    return f"{graph.n_units} units\n" + "\n".join(graph.explain(name) for name in names)


# -- consistency ---------------------------------------------------------------------------------


def assert_attributes_fit(model: nn.Module) -> None:
    """What torch's layers remember agrees with the tensors they hold."""
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, _ConvNd):
            rows, columns = module.out_channels, module.in_channels
            if module.transposed:
                rows, columns = columns, rows
            expected = (rows, columns // module.groups, *module.kernel_size)
            assert tuple(weight.shape) == expected, (name, module, weight.shape)
            assert rows % module.groups == 0 and columns % module.groups == 0, (name, module)
        elif isinstance(module, nn.Linear):
            assert tuple(weight.shape) == (module.out_features, module.in_features), name
        elif isinstance(module, _NormBase):
            for vector in (weight, module.running_mean):
                assert vector is None or vector.shape == (module.num_features,), (name, module)
        elif isinstance(module, nn.GroupNorm):
            assert weight is None or weight.shape == (module.num_channels,), (name, module)
            assert module.num_channels % module.num_groups == 0, (name, module)
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and weight is not None:
            assert tuple(weight.shape) == tuple(module.normalized_shape), (name, module)
        elif isinstance(module, nn.PReLU):
            assert weight.shape == (module.num_parameters,), (name, module)


def assert_trains(model: nn.Module, small: nn.Module, args: tuple[Any, ...]) -> None:
    """A training step of the small network reaches every parameter that one of the model reaches."""
    reached = []
    for net in (apply(model, Plan((), (), signature_of(model))), small):
        net.train()
        with torch.random.fork_rng():
            outputs = output_tensors(net(*args))
        torch.stack([y.square().sum() for y in outputs if y.requires_grad]).sum().backward()
        reached.append({name for name, p in net.named_parameters() if p.grad is not None})
        assert all(p.grad is None or p.grad.shape == p.shape for p in net.parameters())
        net.zero_grad()
        net.eval()
    assert reached[0] == reached[1]


def _doubled(args: tuple[Any, ...]) -> Any:
    return _pytree.tree_map_only(Tensor, lambda x: torch.cat([x, x]), args)


def _with_another(x: Tensor) -> Tensor:
    """The batch, and behind it another one: reversed, and (but for indices and masks) shifted."""
    shifted = x.is_floating_point() or x.is_complex()
    return torch.cat([x, x.flip(0) + 0.5 if shifted else x.flip(0)])


class unchanged:
    """Raises AssertionError where the model (or its inputs) differs at the end of the block."""

    def __init__(self, model: nn.Module, args: Any = ()) -> None:
        self._model, self._args = model, args

    def __enter__(self) -> None:
        self._before = self._state()

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            assert_same(self._before, self._state())

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"rng": torch.get_rng_state()}
        for i, leaf in enumerate(_pytree.tree_leaves(self._args)):
            state[f"input {i}"] = leaf.clone() if isinstance(leaf, Tensor) else leaf
        for name, tensor in (*self._model.named_parameters(), *self._model.named_buffers()):
            state[f"tensor {name}"] = tensor.detach().clone()
            state[f"identity of {name}"] = (id(tensor), tensor.requires_grad, tensor.dtype)
            state[f"grad of {name}"] = None if tensor.grad is None else tensor.grad.clone()
        for name, module in self._model.named_modules():
            state[f"mode of {name}"] = module.training
            state[f"hooks of {name}"] = [len(v) for k, v in vars(module).items() if k.endswith("_hooks")]
            state[f"numbers of {name}"] = {
                k: v for k, v in vars(module).items() if isinstance(v, (int, float, tuple, list, str))
            }
        return state


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Two states of a model agree entry by entry."""
    assert before.keys() == after.keys()
    for key, old in before.items():
        new = after[key]
        same = torch.equal(old, new) if isinstance(old, Tensor) else old == new
        if not same:
            pytest.fail(f"{key} changed: {old!r} -> {new!r}")
