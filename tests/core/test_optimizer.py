"""One more step on the cut optimizer equals the same step on the full model, cut afterwards.

The readers of removed channels are silenced in the full model, so that the gradients of what stays
agree: with those input slices at zero, nothing of a removed channel reaches the loss.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.core.capture import capture
from compressor.core.plan import Plan
from compressor.core.surgery import apply_, cut_tensor
from compressor.core.tape import named_tensors
from compressor.errors import InputError

Make = Callable[[Iterable[nn.Parameter]], Optimizer]
X, Y = torch.randn(6, 3, 6, 6, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, foreach=False),
    "sgd, foreach": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, foreach=True),
    "sgd, nesterov": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
    "sgd, plain": lambda p: torch.optim.SGD(p, 0.05),
    "adam": lambda p: torch.optim.Adam(p, 0.01, foreach=False),
    "adam, foreach": lambda p: torch.optim.Adam(p, 0.01, foreach=True),
    "adam, fused": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "adamw, amsgrad": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True, momentum=0.5),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "asgd": lambda p: torch.optim.ASGD(p, 0.01),
}


def net() -> nn.Sequential:
    torch.manual_seed(5)
    layers = (
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.Tanh(),
        nn.Conv2d(8, 6, 3),
        nn.Sigmoid(),
    )
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 2)).double()


def half(model: nn.Module) -> Plan:
    graph = capture(model, X)
    mask = torch.arange(graph.n_units) % 3 == 1
    return graph.plan(mask.numpy())


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    (model(X) - Y).square().mean().backward()
    optimizer.step()


def silence(model: nn.Module, plan: Plan) -> None:
    named = named_tensors(model)
    with torch.no_grad():
        for cut in plan.cuts:
            if cut.role == "reader":
                named[cut.tensor].index_fill_(cut.axis, torch.tensor(cut.removed), 0)


def cut_by_hand(tensor: Tensor, name: str, plan: Plan) -> Tensor:
    for cut in plan.cuts:
        if cut.tensor == name:
            tensor = tensor[(slice(None),) * cut.axis + (list(cut.keep),)]
    return tensor


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_step_is_the_step_of_the_full_model(name: str) -> None:
    full = net()
    optimizer = OPTIMIZERS[name](full.parameters())
    for _ in range(3):
        step(full, optimizer)
    plan = half(full)
    small, small_optimizer = copy.deepcopy((full, optimizer))
    apply_(small, plan, optimizer=small_optimizer)
    silence(full, plan)
    step(full, optimizer)
    step(small, small_optimizer)
    small_named = named_tensors(small)
    for key, tensor in named_tensors(full).items():
        expected = cut_by_hand(tensor.detach(), key, plan)
        torch.testing.assert_close(small_named[key].detach(), expected, rtol=1e-10, atol=1e-12)
    if name != "sgd, plain":
        assert small_optimizer.state


def test_without_the_optimizer_its_state_no_longer_fits() -> None:
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    step(model, optimizer)
    apply_(model, half(model))
    with pytest.raises(RuntimeError):
        step(model, optimizer)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adafactor(p, 0.01),
        lambda p: torch.optim.LBFGS(p, 0.1, max_iter=2),
    ],
    ids=["adafactor", "lbfgs"],
)
def test_state_of_unknown_shape_is_refused_before_anything_changes(make: Make) -> None:
    model = net()
    optimizer = make(model.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(X) - Y).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    plan = half(model)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=r"(Adafactor|LBFGS).*has shape .*make a new optimizer"):
        apply_(model, plan, optimizer=optimizer)
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])
    assert model[0].out_channels == 8
    optimizer.step(closure)


def test_state_kept_at_an_uncut_parameter_is_refused_too() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    first = nn.Parameter(torch.zeros(1))  # LBFGS keeps everything at the first parameter
    optimizer = torch.optim.LBFGS([first, *model.parameters()])
    x = torch.randn(2, 3)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) + first).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    graph = capture(model, x)
    plan = graph.plan((torch.arange(graph.n_units) == 0).numpy())
    with pytest.raises(InputError, match="a parameter outside of the model"):
        apply_(model, plan, optimizer=optimizer)


def test_the_optimizer_of_another_model_is_refused_before_anything_changes() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.Adam(copy.deepcopy(model).parameters())
    with pytest.raises(InputError, match=r"the Adam holds 7 parameters and none of the model's"):
        apply_(model, half(model), optimizer=optimizer)
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_the_schedule_and_the_groups_go_on() -> None:
    model = net()
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[3].parameters()}]
    optimizer = torch.optim.SGD(groups, 0.01, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    step(model, optimizer)
    schedule.step()
    held = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    apply_(model, half(model), optimizer=optimizer)
    assert [[id(p) for p in group["params"]] for group in optimizer.param_groups] == held
    assert schedule.get_last_lr() == [0.1, 0.01]
    step(model, optimizer)
    schedule.step()
    assert schedule.get_last_lr() == [0.05, 0.005]
    assert optimizer.state[model[0].weight]["momentum_buffer"].shape == model[0].weight.shape


def test_the_state_dict_of_a_cut_optimizer_loads() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    step(model, optimizer)
    apply_(model, half(model), optimizer=optimizer)
    again = copy.deepcopy(model)
    other = torch.optim.Adam(again.parameters(), 0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(model, optimizer)
    step(again, other)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_cut_tensor_takes_what_indexing_takes() -> None:
    model = net()
    plan = half(model)
    cuts = tuple(cut for cut in plan.cuts if cut.tensor == "3.weight")
    expected = cut_by_hand(model[3].weight, "3.weight", plan)
    assert len(cuts) == 2
    assert torch.equal(cut_tensor(model[3].weight, cuts), expected)
