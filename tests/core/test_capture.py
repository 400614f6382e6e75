from __future__ import annotations

import random
import types
import warnings
from collections import UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.surgery import apply
from compressor.core.tape import named_tensors, undisturbed
from compressor.core.verify import verify
from compressor.errors import CaptureError, CompressorError, InputError, ModelError

X = torch.randn(2, 3, 8, 8)


def net() -> nn.Sequential:
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(), nn.Conv2d(8, 6, 3))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 4))


class State:
    """Everything a model holds, and the random state, by value and by identity."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tensors = {k: (v, v.clone(), v.requires_grad) for k, v in named_tensors(model).items()}
        self.grads = {
            k: (v.grad, None if v.grad is None else v.grad.clone()) for k, v in named_tensors(model).items()
        }
        self.modules = [(n, id(m)) for n, m in model.named_modules()]
        self.modes = [m.training for m in model.modules()]
        self.held = [{k: self._plain(v) for k, v in vars(m).items()} for m in model.modules()]
        self.chance = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())  # noqa: NPY002
        self.switches = self._switches()

    @staticmethod
    def _plain(value: Any) -> Any:
        if isinstance(value, dict):
            return ("dict", [(k, id(v)) for k, v in value.items()])
        if isinstance(value, (list, set)):
            return (type(value).__name__, [id(v) for v in value])
        return id(value) if isinstance(value, Tensor) else value

    @staticmethod
    def _switches() -> tuple[Any, ...]:
        hooks = nn.modules.module
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.mkldnn.enabled,
            torch.backends.cudnn.enabled,
            len(hooks._global_forward_hooks),
            len(hooks._global_forward_pre_hooks),
        )

    def assert_same(self) -> None:
        now = State(self.model)
        assert list(now.tensors) == list(self.tensors)
        for name, (tensor, copied, needs_grad) in self.tensors.items():
            assert now.tensors[name][0] is tensor, name
            assert torch.equal(tensor, copied), name
            assert tensor.requires_grad == needs_grad, name
            assert tensor.grad is self.grads[name][0], name
            assert tensor.grad is None or torch.equal(tensor.grad, self.grads[name][1]), name
        assert now.modules == self.modules
        assert now.modes == self.modes
        assert now.held == self.held
        assert torch.equal(now.chance[0], self.chance[0])
        assert now.chance[1] == self.chance[1]
        assert (now.chance[2] == self.chance[2]).all()
        assert now.switches == self.switches


class Restless(nn.Module):
    """Changes itself in every forward, in the way its `trick` does, and may fail afterwards."""

    def __init__(self, trick: Callable[[Any], None], *, fails: bool = False) -> None:
        super().__init__()
        self.net = net()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("large", torch.zeros(300, 300))
        self.plain = torch.zeros(3)
        self.history: list[int] = [1]
        self.cache: dict[str, int] = {}
        self.trick, self.fails = trick, fails

    def forward(self, x: Tensor) -> Tensor:
        self.trick(self)
        y = self.net(x) * self.scale
        if self.fails:
            raise RuntimeError("in the middle")
        return y


def write_buffer(m: Any) -> None:
    m.count += 1


def write_large_buffer(m: Any) -> None:
    m.large[0].add_(1)


def write_large_buffer_out(m: Any) -> None:
    torch.add(m.large, 1, out=m.large)


def write_data(m: Any) -> None:
    m.net[0].weight.data.mul_(2)


def write_list(m: Any) -> None:
    torch._foreach_add_(list(m.net[4].parameters()), 1.0)


def reassign_data(m: Any) -> None:
    m.net[0].bias.data = torch.zeros(8)


def reassign_buffer(m: Any) -> None:
    m.scale = m.scale + 1


def reassign_then_write(m: Any) -> None:
    m.scale = m.scale.clone()
    m.scale.add_(1)


def write_plain_tensor(m: Any) -> None:
    m.plain += 1


def assign_attribute(m: Any) -> None:
    m.seen = 3
    m.history = []


def delete_attribute(m: Any) -> None:
    del m.history


def grow_containers(m: Any) -> None:
    m.history.append(2)
    m.cache["a"] = 1


def add_module(m: Any) -> None:
    m.extra = nn.Linear(2, 2)


def add_hook(m: Any) -> None:
    m.net[0].register_forward_hook(lambda *_: None)


def draw(m: Any) -> None:
    torch.rand(3)
    random.random()
    np.random.rand(2)  # noqa: NPY002


def switch_mode(m: Any) -> None:
    m.net[1].train()


def train_norm(m: Any) -> None:
    m.net[1].train()
    m.net[1](torch.randn(2, 8, 2, 2))


def freeze(m: Any) -> None:
    m.net[0].weight.requires_grad_(False)


def write_gradient(m: Any) -> None:
    m.net[0].weight.grad = torch.ones_like(m.net[0].weight)


TRICKS = [
    write_buffer, write_large_buffer, write_large_buffer_out, write_data, write_list, reassign_data,
    reassign_buffer, reassign_then_write, write_plain_tensor, assign_attribute, delete_attribute,
    grow_containers, add_module, add_hook, draw, switch_mode, train_norm, freeze, write_gradient,
]  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_a_model_that_changes_itself_is_as_it_was(trick: Callable[[Any], None], fails: bool) -> None:
    model = Restless(trick, fails=fails)
    model.net[1].eval()
    model.net[4].bias.requires_grad = False
    plain = model.plain.clone()
    before = State(model)
    if fails:
        with pytest.raises(CaptureError, match="in the middle"):
            capture(model, X)
    else:
        capture(model, X)
    before.assert_same()
    assert torch.equal(model.plain, plain)


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_the_tricks_do_change_a_model(trick: Callable[[Any], None]) -> None:
    model = Restless(trick).eval()
    before, plain = State(model), model.plain.clone()
    with torch.no_grad():
        model(X)
    with pytest.raises((AssertionError, AttributeError)):
        before.assert_same()
        assert torch.equal(model.plain, plain)


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
@pytest.mark.parametrize("training", [False, True])
def test_undisturbed_alone_restores_too(trick: Callable[[Any], None], training: bool) -> None:
    model = Restless(trick)
    before, plain = State(model), model.plain.clone()
    with undisturbed(model, training=training), torch.no_grad():
        assert model.net[3].training is training
        model(X)
    before.assert_same()
    assert torch.equal(model.plain, plain)


def test_training_statistics_gradients_and_hooks_are_as_they_were() -> None:
    model = net().train()
    model[1].eval()
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    model(X).sum().backward()
    before = State(model)
    capture(model, X)
    before.assert_same()


class Auxiliary(nn.Module):
    """Has a head that only training reaches, so that it is recorded in training mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, momentum=0.9)
        self.head, self.side = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Any:
        x = nn.functional.dropout(self.norm(self.body(x)), training=self.training)
        return (self.head(x), self.side(x)) if self.training else self.head(x)


def test_the_training_run_leaves_statistics_and_random_numbers_alone() -> None:
    model = Auxiliary()
    before = State(model)
    graph = capture(model, X)
    before.assert_same()
    assert {a.tensor for a in graph.axes} >= {"side.weight"}


def test_inputs_are_not_written() -> None:
    x = X.clone()
    capture(nn.Sequential(nn.ReLU(inplace=True), *net()), x)
    assert torch.equal(x, X)


# -- bad input -----------------------------------------------------------------------------------


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return net()


def under_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return net()


def integers() -> nn.Module:
    model = net()
    model[0].weight = nn.Parameter(torch.ones(8, 3, 3, 3, dtype=torch.int8), requires_grad=False)
    return model


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear})


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(net())


def half_scripted() -> nn.Module:
    model = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model[2] = torch.jit.script(nn.ReLU())
    return model


def wrapped() -> nn.Module:
    """What quantised (torchao) and distributed (DTensor) weights are: one tensor made of several."""
    two = pytest.importorskip("torch.testing._internal.two_tensor").TwoTensor
    model = net()
    model[0].weight = nn.Parameter(two(model[0].weight.data, model[0].weight.data.clone()))
    return model


BAD = [
    ("shape", net, (torch.randn(2, 5, 8, 8),), CaptureError, r"Sequential fails .*\[\[2, 5, 8, 8\]\].*Check"),
    (
        "few inputs",
        lambda: nn.Bilinear(2, 2, 2),
        (torch.randn(1, 2),),
        CaptureError,
        "Bilinear fails.*input2",
    ),
    ("many inputs", net, (X, X), CaptureError, "Sequential fails"),
    ("no inputs", net, (), InputError, r"example of Sequential's inputs, e\.g\..*got no tensor"),
    ("numbers", net, ([1, 2], 3.0), InputError, "got no tensor"),
    ("empty batch", net, (X[:0],), InputError, r"shape \[0, 3, 8, 8\]"),
    ("not a module", lambda: torch.relu, (X,), InputError, r"needs a torch\.nn\.Module, got"),
    ("a class", lambda: nn.Linear, (X,), InputError, r"needs a torch\.nn\.Module, got type"),
    ("no parameters", lambda: nn.Sequential(nn.ReLU()), (X,), ModelError, "no parameters"),
    ("meta", on_meta, (X,), ModelError, "meta device.*load"),
    (
        "inference",
        under_inference_mode,
        (X,),
        ModelError,
        "'0.weight' was made under torch.inference_mode.*clones",
    ),
    ("integers", integers, (X,), ModelError, "'0.weight' is of type torch.int8.*floating-point"),
    ("quantised", quantised, (X,), ModelError, "'6' is a quantised Linear; prune the floating-point model"),
    ("scripted", scripted, (X,), ModelError, "TorchScript"),
    ("lazy", lambda: nn.Sequential(nn.LazyConv2d(4, 3)), (X,), ModelError, "'0.weight' has no shape yet"),
    ("scripted part", half_scripted, (X,), ModelError, "'2' is a TorchScript module.*before torch.jit"),
    ("wrapped", wrapped, (X,), ModelError, "'0.weight' is a TwoTensor of several tensors"),
    ("device", net, (X.to("meta"),), InputError, "model is on cpu, an example input on meta"),
]


@pytest.mark.parametrize(("make", "args", "kind", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_named(
    make: Callable[[], Any], args: tuple[Any, ...], kind: type[CompressorError], message: str
) -> None:
    model = make()
    modes = [m.training for m in model.modules()] if isinstance(model, nn.Module) else []
    before = State(model) if make is net else None
    with pytest.raises(kind, match=message) as caught:
        capture(model, *args)
    assert type(caught.value) is kind
    if before is not None:
        before.assert_same()
    if modes:
        assert [m.training for m in model.modules()] == modes


def test_capture_within_inference_mode_or_gradients_makes_no_difference() -> None:
    model = net()
    expected = outline(capture(model, X))
    before = State(model)
    with torch.inference_mode():
        assert outline(capture(model, X)) == expected
    with torch.no_grad():
        assert outline(capture(model, X)) == expected
    before.assert_same()


@pytest.mark.parametrize("own", [False, True], ids=["around capture", "in the forward"])
def test_autocast_makes_no_difference(own: bool) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=own):
                return self.net(x)

    def in_order(graph: Graph) -> Any:
        # Casts come in an order of their own, and the axes with them.
        count, axes, groups, rules = outline(graph)
        return count, sorted(axes), groups, rules

    model: nn.Module = Mixed() if own else net()
    expected = in_order(capture(model, X))
    with torch.autocast("cpu", torch.bfloat16):
        # Autocast remembers the weights that a forward has cast.
        model(X)
        assert in_order(capture(model, X)) == expected
        assert in_order(capture(model, X)) == expected
        assert torch.is_autocast_cache_enabled()
        loss = model(X).float().square().mean()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_type_of_number_makes_no_difference(dtype: torch.dtype) -> None:
    assert outline(capture(net().to(dtype), X.to(dtype))) == outline(capture(net(), X))


# -- what is captured ----------------------------------------------------------------------------


def outline(graph: Graph) -> Any:
    """The graph without its model: all that a plan depends on."""
    axes = [(a.tensor, a.axis, a.units.tolist(), a.role, a.blocks) for a in graph.axes]
    groups = [(g.name, [c.tolist() for c in g.cells], g.channels, g.statistics) for g in graph.groups]
    rules = [(r.module, r.attribute, r.item, r.units.tolist(), r.divisor) for r in graph.size_rules]
    return graph.n_units, axes, groups, rules


@pytest.mark.parametrize("make", [net, Auxiliary])
def test_two_captures_of_a_model_are_equal(make: Callable[[], nn.Module]) -> None:
    model = make()
    assert outline(capture(model, X)) == outline(capture(model, X))
    assert outline(capture(make(), X)) == outline(capture(model, X))


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("make", [net, Auxiliary])
def test_the_batch_size_makes_no_difference(make: Callable[[], nn.Module], batch: int) -> None:
    model = make()
    x = torch.randn(batch, 3, 8, 8)  # 3 and 8 are also the numbers of channels
    assert outline(capture(model, x)) == outline(capture(model, X))


class Wrapped(nn.Module):
    """A classifier that returns its scores in a form of its own."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.wrap = net(), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


class Scores:
    __slots__ = ("values",)

    def __init__(self, values: Tensor) -> None:
        self.values = values


class Parts(tuple):  # type: ignore[type-arg]
    """A tuple that torch does not take apart."""


OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "namespace": lambda y: types.SimpleNamespace(scores=y),
    "slots": Scores,
    "nested": lambda y: {"all": [1, Scores(y)], "none": None},
    "mapping": lambda y: UserDict(scores=y),
    "tuple": lambda y: Parts([y]),
    "set": lambda y: {y},
    "distribution": lambda y: torch.distributions.Normal(y, 1.0, validate_args=False),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_are_found_in_whatever_holds_them(name: str) -> None:
    graph = capture(Wrapped(OUTPUTS[name]), X)
    assert graph.n_units == 8 + 6
    (head,) = (a for a in graph.axes if a.tensor == "net.6.weight" and a.axis == 0)
    assert (head.units < 0).all()


@pytest.mark.parametrize(
    ("wrap", "kind"),
    [
        (lambda y: y.numpy(), "no tensor but a ndarray"),
        (lambda y: (y.sum(), [y.numpy()]), "a ndarray"),
        (lambda y: y.tolist(), "no tensor but a list"),
        (lambda y: None, "no tensor but a NoneType"),
        (lambda y: (row for row in y), "no tensor but a generator"),
    ],
    ids=["array", "tensor and array", "numbers", "nothing", "generator"],
)
def test_outputs_that_cannot_be_followed_are_refused(wrap: Callable[[Tensor], Any], kind: str) -> None:
    model = Wrapped(wrap)
    before = State(model)
    with pytest.raises(CaptureError, match=f"Wrapped returns {kind}.*Return tensors"):
        capture(model, X)
    before.assert_same()


def test_a_default_device_makes_no_difference() -> None:
    model = net().eval()
    graph = capture(model, X)
    plan = graph.plan(np.arange(graph.n_units) % 3 == 1)
    with torch.device("meta"):
        assert outline(capture(model, X)) == outline(graph)
        verify(model, apply(model, plan), plan, X)


def test_frozen_weights_are_seen_and_stay_frozen() -> None:
    model = net()
    expected = outline(capture(model, X))
    for parameter in model.parameters():
        parameter.requires_grad = False
    assert outline(capture(model, X)) == expected
    assert not any(p.requires_grad for p in model.parameters())


def test_the_outputs_of_a_classifier_cannot_be_removed() -> None:
    graph = capture(net(), X)
    head = [a for a in graph.axes if a.tensor in ("6.weight", "6.bias") and a.axis == 0]
    assert all((a.units < 0).all() for a in head)
    assert "6.weight" in {a.tensor for a in head}
    assert "output" in graph.explain("6")


def test_all_hidden_channels_of_a_plain_network_can_be_removed() -> None:
    assert capture(net(), X).n_units == 8 + 6
