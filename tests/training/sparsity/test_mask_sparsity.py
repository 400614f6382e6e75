"""MaskSparsity trains exactly the planned channels to zero, whatever the optimizer, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

import compressor as cp
from compressor.errors import InputError, PlanMismatchError
from compressor.training.sparsity import (
    Decay,
    Form,
    GReg,
    GroupLasso,
    Growing,
    MaskSparsity,
    NetworkSlimming,
    Proximal,
    Regularizer,
    Ridge,
    SmoothSubgradient,
    Subgradient,
    Within,
    silenced,
)
from tests.training.sparsity.nets import Apart, NormedNet, Planned, planned, train_step

Made = Callable[[Planned], Regularizer]

FORMS: dict[str, Form] = {
    "subgradient": Subgradient(0.1),
    "smooth": SmoothSubgradient(0.1),
    "ridge": Ridge(0.1),
    "proximal": Proximal(0.1),
    "decay": Decay(7),
}
MASKED: dict[str, Made] = {
    **{name: lambda p, form=form: MaskSparsity(p.plan, p.graph, form) for name, form in FORMS.items()},
    "shift": lambda p: MaskSparsity(p.plan, p.graph, Proximal(0.1), shift=Decay(7)),
    "group lasso": lambda p: GroupLasso(p.graph, Proximal(0.1), plan=p.plan),
    "group lasso, subgradient": lambda p: GroupLasso(p.graph, Subgradient(0.1), plan=p.plan),
    "greg": lambda p: GReg(p.plan, p.graph, Growing(delta=0.1, every=1)),
}
OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "SGD": lambda net: SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "Adam": lambda net: Adam(net.parameters(), 0.01),
    "AdamW": lambda net: AdamW(net.parameters(), 0.01),
    "SGD, several tensors at once": lambda net: SGD(net.parameters(), 0.05, momentum=0.9, foreach=True),
    "AdamW, fused": lambda net: AdamW(net.parameters(), 0.01, fused=True),
}


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().view(torch.int32)


def planned_places(p: Planned) -> dict[str, Tensor]:
    """Where writers' cuts are, from the plan itself: a flag for each number of each tensor."""
    places = {}
    for name, tensor in p.net.named_parameters():
        here = torch.zeros(tensor.shape, dtype=torch.bool)
        for cut in p.plan.cuts:
            if cut.tensor == name and cut.role == "writer":
                here.index_fill_(cut.axis, torch.tensor(cut.removed), True)
        places[name] = here
    return places


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("made", OPTIMIZERS)
def test_what_the_plan_keeps_is_not_touched_by_a_bit(name: str, made: str) -> None:
    p = planned()
    plain = copy.deepcopy(p.net)
    with_it, without = OPTIMIZERS[made](p.net), OPTIMIZERS[made](plain)
    with MASKED[name](p).attach(with_it):
        train_step(p.net, with_it, p.x)
    train_step(plain, without, p.x)
    places, touched = planned_places(p), 0
    for (parameter, new), old in zip(p.net.named_parameters(), plain.parameters(), strict=True):
        for a, b in ((new, old), (new.grad, old.grad)):
            differs = bits(a) != bits(b)
            assert not differs[~places[parameter]].any(), parameter
            touched += int(differs.sum())
    assert touched > 0


@pytest.mark.parametrize("made", OPTIMIZERS)
@pytest.mark.parametrize("form", ["proximal", "decay"])
def test_planned_scales_are_exactly_zero_in_the_end(form: str, made: str) -> None:
    p = planned()
    optimizer = OPTIMIZERS[made](p.net)
    rates = [group["lr"] for group in optimizer.param_groups] * 40
    forms: dict[str, Form] = {"proximal": Proximal(Within(rates)), "decay": Decay(40)}
    assert not silenced(p.plan, p.graph).done
    with MaskSparsity(p.plan, p.graph, forms[form]).attach(optimizer):
        for _ in range(40):
            train_step(p.net, optimizer, p.x)
    places = planned_places(p)
    norms = [n for n, m in p.net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    for name in norms:
        scale = p.net.get_submodule(name).weight
        assert torch.equal(scale == 0, places[f"{name}.weight"])
    report = silenced(p.plan, p.graph, tolerance=0.0)
    assert report.done and report.largest == 0.0
    assert sum(g.channels for g in report.groups) == sum(int(places[f"{n}.weight"].sum()) for n in norms)


def test_the_shift_goes_with_the_scale_where_asked() -> None:
    p = planned()
    with torch.no_grad():
        for module in p.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.fill_(0.5)
    optimizer = SGD(p.net.parameters(), 0.05, momentum=0.9)
    with MaskSparsity(p.plan, p.graph, Decay(10), shift=Decay(10)).attach(optimizer):
        for _ in range(12):
            train_step(p.net, optimizer, p.x)
    places = planned_places(p)
    for name, module in p.net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.bias == 0, places[f"{name}.bias"])


def test_decay_is_linear_without_a_task() -> None:
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.05, momentum=0.9)
    start = p.net.stem[1].weight.detach().clone()
    mask = planned_places(p)["stem.1.weight"]
    regularizer = MaskSparsity(p.plan, p.graph, Decay(5))
    for left in (0.8, 0.6, 0.4, 0.2, 0.0, 0.0):
        for parameter in p.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        regularizer.before_step(optimizer)
        optimizer.step()
        regularizer.after_step(optimizer)
        torch.testing.assert_close(p.net.stem[1].weight[mask], left * start[mask])
        assert torch.equal(p.net.stem[1].weight[~mask], start[~mask])


def test_a_subgradient_moves_a_scale_by_the_push_that_is_promised() -> None:
    p = planned()
    rates = [0.1, 0.1, 0.05, 0.01]
    optimizer = SGD(p.net.parameters(), 0.1)
    strength = Within(rates, margin=0.5).strength(reach=1.0)
    start = p.net.stem[1].weight.detach().clone()
    with MaskSparsity(p.plan, p.graph, Subgradient(strength)).attach(optimizer):
        for rate in rates:
            optimizer.param_groups[0]["lr"] = rate
            for parameter in p.net.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
    mask = planned_places(p)["stem.1.weight"]
    torch.testing.assert_close(p.net.stem[1].weight[mask], start[mask] - 0.5)


def test_the_strength_follows_the_largest_planned_scale() -> None:
    p = planned()
    mask = planned_places(p)["outer.1.weight"]
    with torch.no_grad():
        p.net.outer[1].weight[mask] = -3.0
        p.net.outer[1].weight[~mask] = 100.0
    (form,) = {push.form for push in MaskSparsity(p.plan, p.graph, Proximal(Within([0.1] * 10))).pushes}
    assert isinstance(form, Proximal) and form.strength == pytest.approx(2 * 3.0 / 1.0)


def test_a_row_at_zero_stays_there_against_the_task() -> None:
    p = planned()
    optimizer = SGD(p.net.parameters(), 1.0)
    mask = planned_places(p)["stem.1.weight"]
    with torch.no_grad():
        p.net.stem[1].weight[mask] = 0.0
    for parameter in p.net.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    with MaskSparsity(p.plan, p.graph, Proximal(1e-3)).attach(optimizer):
        optimizer.step()
    assert torch.equal(p.net.stem[1].weight == 0, mask)


def test_growing_regularisation_grows_by_the_step() -> None:
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.0)
    regularizer = GReg(p.plan, p.graph, Growing(delta=0.5, every=2, ceiling=1.2))
    rows = p.net.stem[0].weight.detach().clone()
    mask = planned_places(p)["stem.0.weight"]
    for strength in (0.5, 0.5, 1.0, 1.0, 1.2, 1.2):
        for parameter in p.net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        regularizer.before_step(optimizer)
        torch.testing.assert_close(p.net.stem[0].weight.grad, strength * rows * mask)
        optimizer.step()
        regularizer.after_step(optimizer)


def test_training_goes_on_where_it_was_interrupted() -> None:
    """The optimizer's state is all that has to be kept."""
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.0)
    MaskSparsity(p.plan, p.graph, Decay(10)).attach(optimizer)
    for _ in range(4):
        train_step(p.net, optimizer, p.x)
    later = SGD(p.net.parameters(), 0.0)
    later.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    with MaskSparsity(p.plan, p.graph, Decay(10)).attach(later):
        train_step(p.net, later, p.x)
    mask = planned_places(p)["stem.1.weight"]
    torch.testing.assert_close(p.net.stem[1].weight[mask], torch.full((int(mask.sum()),), 0.5))


def test_a_detached_regulariser_leaves_the_optimizer_as_it_was() -> None:
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.01)
    options = set(optimizer.param_groups[0])
    with MaskSparsity(p.plan, p.graph, Decay(10)).attach(optimizer):
        train_step(p.net, optimizer, p.x)
    assert set(optimizer.param_groups[0]) == options
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


# -- which slices ----------------------------------------------------------------------------------


def test_writers_without_a_norm_get_a_group_lasso_only_when_asked() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    p = Planned(net, torch.rand(2, 3, 8, 8))
    with pytest.raises(InputError, match=r"'0\.weight'.*writers=Proximal"):
        MaskSparsity(p.plan, p.graph, Proximal(0.1))
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(0.1), writers=Proximal(Within([0.1] * 5)))
    assert [push.slices.name for push in regularizer.pushes] == ["0.weight"]
    optimizer = SGD(net.parameters(), 0.1)
    with regularizer.attach(optimizer):
        for _ in range(5):
            optimizer.zero_grad()
            net(p.x).square().mean().backward()
            optimizer.step()
    (cut,) = (cut for cut in p.plan.cuts if cut.tensor == "0.weight")
    assert ((net[0].weight == 0).flatten(1).all(1)).nonzero().flatten().tolist() == list(cut.removed)


@pytest.mark.parametrize("normed", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_of_a_weight_norm_the_size_goes_to_zero(normed: Callable[[nn.Module], nn.Module]) -> None:
    """Its direction at zero would be no number."""
    net = nn.Sequential(normed(nn.Conv2d(3, 6, 3)), nn.ReLU(), nn.Conv2d(6, 4, 3))
    p = Planned(net, torch.rand(2, 3, 8, 8), ratio=0.5)
    optimizer = SGD(net.parameters(), 0.05)
    with MaskSparsity(p.plan, p.graph, Decay(3), writers=Decay(3), shift=Decay(3)).attach(optimizer):
        for _ in range(4):
            optimizer.zero_grad()
            net(p.x).square().mean().backward()
            optimizer.step()
    (cut,) = (cut for cut in p.plan.cuts if (cut.tensor, cut.axis) == ("0.bias", 0))
    silent = [c for c in range(6) if not net[0](p.x)[:, c].any()]
    assert silent == list(cut.removed) and torch.isfinite(net(p.x)).all()


def test_a_reader_beside_the_norm_is_heard() -> None:
    p = Planned(Apart(), torch.rand(2, 3, 8, 8))
    with pytest.raises(InputError, match=r"'a\.weight'"):
        MaskSparsity(p.plan, p.graph, Proximal(0.1))
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(0.1), writers=Proximal(0.1))
    assert [push.slices.name for push in regularizer.pushes] == ["norm.weight", "a.weight"]


NORMS = {
    "batch norm": nn.BatchNorm2d(8),
    "group norm": nn.GroupNorm(2, 8),
    "one group": nn.GroupNorm(1, 8),
    "instance norm": nn.InstanceNorm2d(8, affine=True),
}


@pytest.mark.parametrize("norm", NORMS)
def test_scales_of_every_norm_are_found(norm: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), copy.deepcopy(NORMS[norm]), nn.ReLU(), nn.Conv2d(8, 4, 3))
    p = Planned(net, torch.rand(2, 3, 8, 8), ratio=0.5)
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(0.1), shift=Decay(3))
    assert [push.slices.name for push in regularizer.pushes] == ["1.weight", "1.bias"]


class Tokens(nn.Module):
    """A residual stream of tokens that is read through norms only."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.place = nn.Parameter(torch.randn(1, 5, 8))
        self.norms = nn.ModuleList(norm(8) for _ in range(3))
        self.up, self.down, self.head = nn.Linear(8, 12), nn.Linear(12, 8), nn.Linear(8, 4)
        self.mid = norm(12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](self.embed(x) + self.place)
        x = x + self.down(torch.relu(self.mid(self.up(self.norms[1](x)))))
        return self.head(self.norms[2](x).mean(1))


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_stream_of_tokens_is_silenced_by_the_norms_that_read_it(norm: type[nn.Module]) -> None:
    p = Planned(Tokens(norm), torch.rand(2, 5, 6))
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(0.1))
    found = {push.slices.name for push in regularizer.pushes}
    assert found == {"norms.0.weight", "norms.1.weight", "norms.2.weight", "mid.weight"}


def test_global_slimming_acts_on_every_channel_that_can_go() -> None:
    p = planned()
    regularizer = NetworkSlimming(p.graph, Subgradient(0.5))
    optimizer = SGD(p.net.parameters(), 0.1)
    for parameter in p.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    regularizer.before_step(optimizer)
    for module in p.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            torch.testing.assert_close(module.weight.grad, 0.5 * module.weight.sign())
            assert not module.bias.grad.any()


# -- faults ----------------------------------------------------------------------------------------


def test_an_optimizer_of_a_copy_is_refused() -> None:
    p = planned()
    stranger = SGD(copy.deepcopy(p.net).parameters(), 0.1)
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(0.1))
    with pytest.raises(InputError, match=r"SGD does not own 'stem\.1\.weight'.*same model object"):
        regularizer.attach(stranger)
    with pytest.raises(InputError, match="does not own"):
        regularizer.before_step(stranger)
    some = SGD(p.net.stem.parameters(), 0.1)
    with pytest.raises(InputError, match="does not own"):
        regularizer.attach(some)
    regularizer.attach(SGD(p.net.parameters(), 0.1)).remove()  # nothing was left behind


def test_a_plan_of_another_model_is_refused() -> None:
    p, other = planned(), Planned(NormedNet(width=4), torch.rand(2, 3, 8, 8))
    with pytest.raises(PlanMismatchError, match="another NormedNet"):
        MaskSparsity(other.plan, p.graph, Proximal(0.1))
    with pytest.raises(PlanMismatchError, match="another NormedNet"):
        silenced(other.plan, p.graph)


def test_a_plan_that_removes_nothing_is_refused() -> None:
    p = planned()
    empty = p.graph.plan(p.removed & False)
    with pytest.raises(InputError, match="removes no channel"):
        MaskSparsity(empty, p.graph, Proximal(0.1))


def test_a_model_without_norms_is_refused() -> None:
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    graph = cp.capture(net, torch.rand(2, 3))
    with pytest.raises(InputError, match="no norm layer with scales"):
        NetworkSlimming(graph)


def test_a_frozen_scale_is_refused() -> None:
    p = planned()
    p.net.depth[1].weight.requires_grad_(False)
    with pytest.raises(InputError, match=r"'depth\.1\.weight' is frozen"):
        MaskSparsity(p.plan, p.graph, Proximal(0.1)).attach(SGD(p.net.parameters(), 0.1))


def test_a_call_before_the_backward_pass_is_refused() -> None:
    p = planned()
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(0.1))
    with pytest.raises(InputError, match=r"after loss\.backward"):
        regularizer.before_step(SGD(p.net.parameters(), 0.1))
    with pytest.raises(InputError, match="without before_step"):
        regularizer.after_step(SGD(p.net.parameters(), 0.1))


def test_a_second_attachment_is_refused() -> None:
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.1)
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(0.1))
    handle = regularizer.attach(optimizer)
    with pytest.raises(InputError, match="attached to an optimizer already"):
        regularizer.attach(optimizer)
    handle.remove()
    handle.remove()
    regularizer.attach(optimizer).remove()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subgradient(0.0), "strength is a number above 0"),
        (lambda: Proximal(float("nan")), "strength is a number above 0"),
        (lambda: Within([]), "learning rates of all steps"),
        (lambda: Within([0.0, 0.0]), "not all 0"),
        (lambda: Within([0.1], momentum=1.0), "momentum"),
        (lambda: Within([0.1], margin=0.0), "margin"),
        (lambda: Decay(0), "whole number of steps"),
        (lambda: Growing(every=0), "every is a whole number of steps"),
    ],
)
def test_senseless_numbers_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_something_else_than_a_form_is_refused() -> None:
    p = planned()
    with pytest.raises(InputError, match=r"a form such as Proximal\(1e-3\).*got float"):
        MaskSparsity(p.plan, p.graph, 0.1)  # type: ignore[arg-type] # the mistake
