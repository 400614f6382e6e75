"""The oracle is `copy.deepcopy`: same structure, same sharing, nothing in common with the original."""

from __future__ import annotations

import copy
import functools
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from compressor.core.copying import copy_module


def layout(value: Any, seen: dict[int, int]) -> Any:
    """A value as plain data, in which each object has the number of its first appearance."""
    if isinstance(value, (int, float, complex, bool, str, bytes, type(None), type)):
        return value
    if id(value) in seen:
        return ("seen", seen[id(value)])
    seen[id(value)] = len(seen)
    kind = type(value).__name__
    if isinstance(value, Tensor):
        return (kind, value.tolist(), value.dtype, value.requires_grad, layout(vars(value), seen))
    if isinstance(value, dict):
        return (kind, [(layout(k, seen), layout(v, seen)) for k, v in value.items()])
    if isinstance(value, (list, tuple, deque)):
        return (kind, [layout(v, seen) for v in value])
    if isinstance(value, (set, frozenset)):
        return (kind, sorted(map(repr, value)))
    if isinstance(value, functools.partial):
        return (kind, layout(value.func, seen), layout(value.args, seen), layout(value.keywords, seen))
    if isinstance(value, weakref.ref):
        return (kind, layout(value(), seen))
    if hasattr(value, "__self__"):
        return (kind, value.__name__, layout(value.__self__, seen))
    if isinstance(value, (types.FunctionType, types.BuiltinFunctionType)):
        return (kind, repr(value))
    return (kind, layout(vars(value), seen) if hasattr(value, "__dict__") else None)


class Plain(nn.Module):
    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def method(self, *_: Any) -> None: ...


class Record:
    def __init__(self, value: Any) -> None:
        self.value = value


class Counted(nn.Linear):
    def __deepcopy__(self, memo: dict[int, Any]) -> Counted:
        new = Counted(self.in_features, self.out_features)
        memo[id(self)] = new
        new.weight = copy.deepcopy(self.weight, memo)
        new.bias = copy.deepcopy(self.bias, memo)
        new.copies = getattr(self, "copies", 0) + 1
        return new


class Wide(nn.Module):
    """Needs an argument to be made at all."""

    def __new__(cls, size: int) -> Wide:
        new = super().__new__(cls)
        object.__setattr__(new, "made_with", size)
        return new

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __getnewargs__(self) -> tuple[int]:
        return (self.size,)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3), Plain())
    model[0].register_forward_hook(model[1].method)
    model[0].register_full_backward_hook(lambda *_: None)
    model.register_forward_pre_hook(functools.partial(print, model[0], sep=""), with_kwargs=False)
    model.register_state_dict_pre_hook(lambda *_: None)
    return model


def shared() -> nn.Module:
    layer = nn.Conv2d(2, 2, 1)
    other = nn.Linear(2, 2)
    tied = nn.Linear(2, 2)
    tied.weight = other.weight
    return nn.ModuleDict({"a": layer, "b": nn.ModuleList([layer, other]), "c": tied})


def cyclic() -> nn.Module:
    model = nn.Sequential(Plain(), nn.ReLU())
    model[0].parents = [model]
    model[1].__dict__["owner"] = model  # not a submodule: that would have no end
    record = Record(model)
    record.itself = record
    model[0].record = record
    return model


def attributes() -> nn.Module:
    numbers = [1, 2, 3]
    tensor = torch.arange(3.0)
    return Plain(
        numbers=numbers,
        same=numbers,
        nested={"a": [numbers, (1, 2)], "b": {"c": (numbers,)}, (1, "key"): None},
        ordered=OrderedDict(a=1, b=[2]),
        sets={1, 2},
        frozen=frozenset("ab"),
        queue=deque([1, [2]], maxlen=4),
        atoms=(1, 2.5, 1j, True, "x", b"y", None, int),
        function=torch.relu,
        partial=functools.partial(torch.add, tensor, alpha=2),
        bound=numbers.count,
        tensor=tensor,
        views=[tensor, tensor],
        record=Record(numbers),
        dtype=torch.float16,
        size=torch.Size([1, 2]),
        none=None,
    )


def marked() -> nn.Module:
    model = nn.Linear(2, 2)
    model.weight.tag = ["t"]
    model.bias.requires_grad = False
    model.register_buffer("late", torch.ones(2), persistent=False)
    return model.eval()


ZOO: dict[str, Callable[[], nn.Module]] = {
    "layers": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.GroupNorm(1, 2)),
    "lstm": lambda: nn.LSTM(2, 3, 2, bidirectional=True),
    "gru": lambda: nn.Sequential(nn.GRU(2, 3)),
    "attention": lambda: nn.TransformerEncoderLayer(4, 2, 8),
    "containers": lambda: nn.ModuleList(
        [
            nn.ParameterList([nn.Parameter(torch.ones(2))]),
            nn.ParameterDict({"a": nn.Parameter(torch.ones(1))}),
        ]
    ),
    "hooks": hooked,
    "shared": shared,
    "cycles": cyclic,
    "attributes": attributes,
    "own deepcopy": lambda: nn.Sequential(Counted(2, 2)),
    "new arguments": lambda: nn.Sequential(Wide(3)),
    "marks": marked,
    "parametrised": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Linear(2, 2)), parametrizations.spectral_norm(nn.Conv2d(1, 2, 1))
    ),
    "fx": lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2), nn.ReLU())),
}


@pytest.mark.parametrize("name", ZOO)
def test_a_copy_equals_a_deep_copy(name: str) -> None:
    model = ZOO[name]()
    if name == "fx":  # holds generated code, compared through what it computes
        x = torch.randn(2, 2)
        assert torch.equal(copy_module(model, {})(x), copy.deepcopy(model)(x))
        return
    before = layout(model, {})
    mine, oracle = copy_module(model, {}), copy.deepcopy(model)
    assert layout(mine, {}) == layout(oracle, {})
    assert layout(model, {}) == before
    assert [type(m) for m in mine.modules()] == [type(m) for m in oracle.modules()]


@pytest.mark.parametrize("name", ZOO)
def test_a_copy_shares_no_module_and_no_tensor(name: str) -> None:
    model = ZOO[name]()
    mine = copy_module(model, {})
    assert not {id(m) for m in model.modules()} & {id(m) for m in mine.modules()}
    tensors = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
    assert not tensors & {t.data_ptr() for t in (*mine.parameters(), *mine.buffers())}


def test_a_cycle_ends_in_the_copy() -> None:
    mine = copy_module(cyclic(), {})
    assert mine[0].parents[0] is mine
    assert mine[1].owner is mine
    assert mine[0].record.value is mine
    assert mine[0].record.itself is mine[0].record


def test_hooks_are_bound_to_the_copy() -> None:
    mine = copy_module(hooked(), {})
    (hook,) = mine[0]._forward_hooks.values()
    assert hook.__self__ is mine[1]


def test_what_is_in_the_memo_is_taken_from_there() -> None:
    model = shared()
    ready = nn.Parameter(torch.zeros(1))
    mine = copy_module(model, {id(model["c"].weight): ready})
    assert mine["c"].weight is ready
    assert mine["b"][1].weight is ready


def test_a_copied_lstm_computes_with_its_own_weights() -> None:
    model = nn.LSTM(2, 3)
    mine = copy_module(model, {})
    x = torch.randn(4, 1, 2)
    assert torch.equal(mine(x)[0], model(x)[0])
    with torch.no_grad():
        mine.weight_ih_l0.zero_()
    assert not torch.equal(mine(x)[0], model(x)[0])
