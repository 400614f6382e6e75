from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import compressor.core.surgery as surgery
from compressor.core.capture import capture
from compressor.core.plan import Plan
from compressor.core.surgery import apply, apply_, plan_of, signature_of
from compressor.core.verify import verify
from compressor.errors import InputError, ModelError, PlanError, PlanMismatchError

X = torch.randn(2, 3, 8, 8)


def net() -> nn.Sequential:
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 4)).eval()


def plan_for(model: nn.Module, x: Tensor = X) -> Plan:
    """A plan that removes every third unit."""
    graph = capture(model, x)
    return graph.plan((torch.arange(graph.n_units) % 3 == 1).numpy())


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {k: (v, v.clone(), v.requires_grad) for k, v in surgery.named_tensors(model).items()},
        "text": str(model),
        "modes": [m.training for m in model.modules()],
        "vars": [dict(vars(m)) for m in model.modules()],
    }


def assert_unchanged(model: nn.Module, before: dict[str, Any]) -> None:
    now = surgery.named_tensors(model)
    assert list(now) == list(before["tensors"])
    for name, (tensor, copied, needs_grad) in before["tensors"].items():
        assert now[name] is tensor
        assert torch.equal(tensor, copied)
        assert tensor.requires_grad == needs_grad
    assert str(model) == before["text"]
    assert [m.training for m in model.modules()] == before["modes"]


# -- a new model ---------------------------------------------------------------------------------


def test_the_cut_tensors_are_the_kept_slices() -> None:
    model = net()
    before = state(model)
    small = apply(model, plan_for(model))
    kept = [0, 2, 3, 5, 6]  # of the first layer's units 0 to 7, units 1, 4 and 7 are gone
    mine = [0, 1, 3, 4]  # of the second's 8 to 13, units 10 and 13
    assert torch.equal(small[0].weight, model[0].weight[kept])
    assert torch.equal(small[1].running_var, model[1].running_var[kept])
    assert torch.equal(small[3].weight, model[3].weight[mine][:, kept])
    assert_unchanged(model, before)


def test_the_numbers_of_the_modules_follow() -> None:
    model = net()
    small = apply(model, plan_for(model))
    assert str(small[0]) == "Conv2d(3, 5, kernel_size=(3, 3), stride=(1, 1))"
    assert small[1].num_features == 5
    assert (small[3].in_channels, small[5].in_features) == (5, small[5].weight.shape[1])


def test_nothing_is_shared_with_the_original() -> None:
    model = net()
    small = apply(model, plan_for(model))
    storages = {t.untyped_storage().data_ptr() for t in surgery.named_tensors(model).values()}
    for tensor in surgery.named_tensors(small).values():
        assert tensor.untyped_storage().data_ptr() not in storages


def test_frozen_weights_and_modes_are_kept() -> None:
    model = net().train()
    model[1].eval()
    for parameter in (*model[0].parameters(), model[1].bias):
        parameter.requires_grad = False
    small = apply(model, plan_for(model))
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in model.parameters()]
    assert [m.training for m in small.modules()] == [m.training for m in model.modules()]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_type_is_kept(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    small = apply(model, plan_for(model, X.to(dtype)))
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert small[1].num_batches_tracked.dtype == torch.int64


def test_channels_last_is_kept() -> None:
    model = net().to(memory_format=torch.channels_last)
    small = apply(model, plan_for(model))
    for layer in (small[0], small[3]):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert not layer.weight.is_contiguous()


def test_channels_last_3d_is_kept_in_place() -> None:
    model = nn.Sequential(nn.Conv3d(2, 6, 3), nn.Conv3d(6, 4, 3)).eval()
    model = model.to(memory_format=torch.channels_last_3d)
    apply_(model, plan_for(model, torch.randn(1, 2, 6, 6, 6)))
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last_3d)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.two = nn.Linear(6, 6)
        self.two.weight = self.one.weight
        self.inner = nn.Linear(6, 8)
        self.again = self.inner
        self.out = nn.Linear(8, 3)
        self.register_buffer("scale", torch.rand(8) + 0.5, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(torch.tanh(self.one(x)))
        return self.out(torch.sigmoid(self.inner(y)) * self.scale) + self.again(x).sum()


def test_ties_and_shared_modules_stay_one_object() -> None:
    model = Tied().eval()
    x = torch.randn(2, 6)
    plan = plan_for(model, x)
    assert plan.cuts
    small = apply(model, plan)
    assert small.one.weight is small.two.weight
    assert small.again is small.inner
    assert small.inner.out_features < 8
    apply_(model, plan)
    assert model.one.weight is model.two.weight
    torch.testing.assert_close(model(x), small(x))


def test_a_buffer_outside_of_the_state_dict_is_cut_and_stays_outside() -> None:
    model = Tied().eval()
    small = apply(model, plan_for(model, torch.randn(2, 6)))
    assert small.scale.shape == (small.inner.out_features,)
    assert "scale" not in small.state_dict()


def test_hooks_of_modules_run_in_the_copy() -> None:
    model = net().train()
    seen: list[str] = []
    model[0].register_forward_hook(lambda m, _i, o: seen.append(f"forward {o.shape[1]}"))
    model[3].register_forward_pre_hook(lambda m, i: seen.append(f"pre {i[0].shape[1]}"))
    model[3].register_full_backward_hook(lambda m, gi, go: seen.append(f"backward {gi[0].shape[1]}"))
    small = apply(model, plan_for(model))
    seen.clear()
    small(X).sum().backward()
    assert seen == ["forward 5", "pre 5", "backward 5"]


def test_hooks_of_parameters_run_in_the_copy() -> None:
    model = net()
    shapes: list[torch.Size] = []
    model[0].weight.register_hook(lambda grad: shapes.append(grad.shape))
    model[3].weight.register_post_accumulate_grad_hook(lambda p: shapes.append(p.grad.shape))
    small = apply(model, plan_for(model))
    small(X).sum().backward()
    assert sorted(shapes) == sorted([small[0].weight.shape, small[3].weight.shape])


class Marked(nn.Parameter):
    """A parameter of a class of its own."""


def test_what_users_put_on_a_parameter_is_kept() -> None:
    model = net()
    model[0].weight.no_decay = True
    model[0].weight.tags = ["a"]
    model[3].weight = Marked(model[3].weight.data)
    small = apply(model, plan_for(model))
    assert small[0].weight.no_decay is True
    assert small[0].weight.tags == ["a"]
    assert small[0].weight.tags is not model[0].weight.tags
    assert type(small[3].weight) is Marked


PARAMETRISED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old weight norm": nn.utils.weight_norm,
    "old spectral norm": nn.utils.spectral_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", PARAMETRISED)
def test_parametrised_layers_are_cut_and_stay_parametrised(name: str) -> None:
    wrap = PARAMETRISED[name]
    model = nn.Sequential(wrap(nn.Conv2d(3, 8, 3)), nn.ReLU(), wrap(nn.Conv2d(8, 4, 3))).eval()
    model(X)
    before = state(model)
    plan = plan_for(model)
    small = apply(model, plan)
    assert_unchanged(model, before)
    assert set(small.state_dict()) == set(model.state_dict())
    if "weight" in name:  # a spectral norm looks at the whole matrix: such a layer may be pinned
        assert plan.cuts
    if plan.cuts:
        verify(model, small, plan, X)
    assert small(X).shape == model(X).shape
    apply_(model, plan)
    torch.testing.assert_close(model(X), small(X))


def test_what_is_no_plan_or_no_model_is_refused() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    graph = capture(net, torch.ones(1, 4))
    plan = graph.plan(np.zeros(graph.n_units, dtype=bool))
    with pytest.raises(InputError, match=r"expected a Plan, got str: Plan.load\('net.json'\) reads a file"):
        apply(net, "net.json")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected a torch.nn.Module to cut, got NoneType"):
        apply_(None, plan)  # type: ignore[arg-type]
    with pytest.raises(
        PlanError, match=r"one flag \(True or False\) for each of the 8 units, got int64 \[8\]"
    ):
        graph.plan(np.arange(8))


def test_nothing_is_planned_where_nothing_can_go() -> None:
    graph = capture(nn.Linear(4, 2), torch.ones(1, 4))
    assert graph.n_units == 0 and graph.plan([]).cuts == ()  # type: ignore[arg-type]


def test_a_second_apply_of_the_same_plan_is_refused_with_a_hint() -> None:
    model = net()
    plan = plan_for(model)
    small = apply(model, plan)
    with pytest.raises(PlanMismatchError, match="applied already"):
        apply(small, plan)
    apply_(model, plan)
    before = state(model)
    with pytest.raises(PlanMismatchError, match="applied already"):
        apply_(model, plan)
    assert_unchanged(model, before)


class Uncopyable(nn.Sequential):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.steps = (i for i in range(3))


def test_a_model_that_cannot_be_copied_is_refused_and_can_be_cut_in_place() -> None:
    model = Uncopyable(*net()).eval()
    plan = plan_for(model)
    with pytest.raises(ModelError, match=r"Uncopyable cannot be copied.*apply_"):
        apply(model, plan)
    apply_(model, plan)
    assert signature_of(model) == plan.result


# -- in place ------------------------------------------------------------------------------------


def test_in_place_keeps_the_parameters_and_cuts_their_gradients() -> None:
    model = net()
    model(X).sum().backward()
    plan = plan_for(model)
    small = apply(model, plan)
    gradient = model[3].weight.grad.clone()
    parameters = list(model.parameters())
    apply_(model, plan)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(model[3].weight.grad, gradient[[0, 1, 3, 4]][:, [0, 2, 3, 5, 6]])
    for name, tensor in small.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    model(X).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_a_loss_that_is_still_alive_does_not_disturb_training(dtype: torch.dtype) -> None:
    model = net().to(dtype)
    model[0].weight.register_hook(lambda grad: None)
    x = X.to(dtype)
    alive = model(x).sum()
    apply_(model, plan_for(model, x))
    model(x).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert alive.grad_fn is not None


def test_a_capture_between_forward_and_backward_does_not_disturb_it() -> None:
    model = net().train()
    loss, again = model(X).sum(), copy.deepcopy(model)
    capture(model, X)
    loss.backward()
    again.load_state_dict(model.state_dict())
    again[1].reset_running_stats()
    again(X).sum().backward()
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


class Stubborn(nn.BatchNorm2d):
    """Does not take another number of features."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "num_features" and name in vars(self) and value != self.num_features:
            raise RuntimeError("never")
        super().__setattr__(name, value)


def test_a_size_that_is_refused_leaves_the_model_as_it_was() -> None:
    model = net()
    plan = plan_for(model)
    stubborn = Stubborn(8).eval()
    stubborn.load_state_dict(model[1].state_dict())
    model[1] = stubborn
    model(X).sum().backward()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    optimizer.step()
    held = {p: dict(s) for p, s in optimizer.state.items()}
    before, grads = state(model), [p.grad for p in model.parameters()]
    expected = model(X)
    with pytest.raises(RuntimeError, match="never"):
        apply_(model, plan, optimizer=optimizer)
    assert_unchanged(model, before)
    assert [p.grad is g for p, g in zip(model.parameters(), grads, strict=True)] == [True] * len(grads)
    for p, entries in held.items():
        assert all(optimizer.state[p][key] is value for key, value in entries.items())
    assert torch.equal(model(X), expected)
    assert plan_of(model) is None


@pytest.mark.parametrize("failing", [0, 1, 4, 8])
def test_a_failure_at_any_change_takes_back_the_earlier_ones(
    failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = net()
    plan = plan_for(model)
    before = state(model)
    original = surgery._all_or_nothing

    def fail() -> None:
        raise KeyboardInterrupt

    def interrupted(changes: list[Any]) -> None:
        original([*changes[:failing], (fail, lambda: None), *changes[failing:]])

    monkeypatch.setattr(surgery, "_all_or_nothing", interrupted)
    with pytest.raises(KeyboardInterrupt):
        apply_(model, plan)
    assert_unchanged(model, before)


# -- the plan of a model -------------------------------------------------------------------------


def test_a_model_knows_the_one_plan_from_its_original() -> None:
    model = net()
    assert plan_of(model) is None
    first = plan_for(model)
    half = apply(model, first)
    assert plan_of(half) == first
    second = plan_for(half)
    quarter = apply(half, second)
    whole = plan_of(quarter)
    assert whole == second.after(first)
    assert plan_of(half) == first
    for name, tensor in apply(model, whole).state_dict().items():
        assert torch.equal(tensor, quarter.state_dict()[name])
    apply_(half, second)
    assert plan_of(half) == whole
    assert plan_of(copy.deepcopy(quarter)) is None


def test_no_plan_is_known_of_a_model_changed_in_between() -> None:
    model = net()
    half = apply(model, plan_for(model))
    half[5] = nn.Linear(half[5].in_features, 9)
    assert plan_of(apply(half, plan_for(half))) is None


def test_a_pruned_model_is_not_kept_alive_by_its_plan() -> None:
    model = net()
    small = apply(model, plan_for(model))
    alive = weakref.ref(small)
    del small
    gc.collect()
    assert alive() is None


def test_a_model_cut_within_inference_mode_can_be_trained() -> None:
    model = net()
    plan = plan_for(model)
    with torch.inference_mode():
        small = apply(model, plan)
        apply_(model, plan)
    for cut in (small, model):
        cut(X).sum().backward()
        assert not any(p.is_inference() for p in cut.parameters())
