"""Learning from the original: formulas, channels that the plan kept, and nothing left behind."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

import compressor as cp
from compressor.errors import InputError, PlanMismatchError
from compressor.training import Distillation, Recipe, fine_tune_
from compressor.training.distillation import divergence
from compressor.training.hidden_states import distance

X, Y = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 1, 2, 0, 1])


def original() -> nn.Sequential:
    torch.manual_seed(4)
    return nn.Sequential(
        weight_norm(nn.Conv2d(3, 8, 3)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 3),
        nn.GELU(),
        nn.Flatten(2),
        nn.Linear(64, 10),
        nn.Flatten(),
        nn.Linear(60, 3),
    )


@pytest.fixture
def pair() -> tuple[nn.Module, nn.Module]:
    teacher = original()
    return teacher, cp.prune(teacher, X, budget=cp.budget.Uniform(0.4))


# -- formulas ------------------------------------------------------------------------------------


def test_divergence_by_a_loop() -> None:
    student, teacher = torch.randn(4, 3).double(), torch.randn(4, 3).double()
    expected = 0.0
    for s, t in zip(student / 3, teacher / 3, strict=True):
        p, q = t.exp() / t.exp().sum(), s.exp() / s.exp().sum()
        expected += 9 * sum(float(a) * math.log(a / b) for a, b in zip(p, q, strict=True)) / 4
    assert float(divergence(student, teacher, 3.0)) == pytest.approx(expected)


def test_at_high_temperature_it_matches_logits() -> None:
    """Hinton et al., equation 4: the gradient tends to (z − v) / (C N) for logits without a mean."""
    student = torch.randn(2, 4).double()
    teacher = torch.randn(2, 4).double()
    student, teacher = (z - z.mean(1, keepdim=True) for z in (student, teacher))
    student.requires_grad_()
    divergence(student, teacher, 1e4).backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, (student.detach() - teacher) / (4 * 2), rtol=1e-3, atol=1e-6)


def test_distance_is_relative() -> None:
    mine, theirs = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(distance(5 * mine, 5 * theirs), distance(mine, theirs))
    assert float(distance(theirs, theirs)) == 0
    assert float(distance(torch.ones(2), torch.zeros(2))) == 2


# -- against teacher and plan ----------------------------------------------------------------------


def test_the_loss_is_the_sum_of_its_parts(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, student = pair
    options = Distillation(teacher, F.cross_entropy, alpha=0.3, temperature=2.0)
    with options.attach(student) as loss:
        found = loss(output := student(X), Y)
    expected = 0.7 * F.cross_entropy(output, Y) + 0.3 * divergence(output, teacher.eval()(X), 2.0)
    torch.testing.assert_close(found, expected)


def test_an_unpruned_student_has_nothing_to_learn() -> None:
    teacher = original().eval()
    student = copy.deepcopy(teacher)
    plan = cp.unpruned(teacher)
    features = {"0": 1.0, "1": 1.0, "3": 1.0, "6": 1.0}
    with Distillation(teacher, alpha=1, features=features, plan=plan).attach(student) as loss:
        assert float(loss(student(X), Y)) < 1e-10


@pytest.mark.parametrize(("name", "axis"), [("0", 1), ("1", 1), ("3", 1)])
def test_features_are_compared_on_the_channels_that_were_kept(
    pair: tuple[nn.Module, nn.Module], name: str, axis: int
) -> None:
    teacher, student = pair
    (teacher.eval(), student.eval())
    seen: list[Tensor] = []
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append(output))
        for model in (student, teacher)
    ]
    with Distillation(teacher, alpha=1, features={name: 3.0}).attach(student) as loss:
        found = loss(output := student(X), Y)
    [handle.remove() for handle in handles]
    mine, theirs = seen
    plan = cp.plan_of(student)
    assert plan is not None
    keep = next(cut.keep for cut in plan.cuts if cut.tensor == f"{name}.bias")
    assert mine.shape[axis] == len(keep) < theirs.shape[axis]
    rest = divergence(output, teacher(X), 4.0)
    torch.testing.assert_close(found, rest + 3 * distance(mine, theirs[:, list(keep)]))


def test_the_writer_of_a_pruned_channel_agrees_until_something_changes(
    pair: tuple[nn.Module, nn.Module],
) -> None:
    """The first layer reads what is not pruned: its kept channels are those of the teacher."""
    teacher, student = pair
    student.eval()
    with Distillation(teacher, alpha=0, task=lambda *_: torch.zeros(()), features={"0": 1.0}).attach(
        student
    ) as loss:
        assert float(loss(student(X), Y)) < 1e-10
        with torch.no_grad():
            student[0].bias.add_(1)  # type: ignore[index,operator]
        assert float(loss(student(X), Y)) > 1e-3


def test_channels_of_a_linear_layer_are_its_last_axis() -> None:
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(2, 5, 4)
    student = cp.prune(teacher, x, budget=cp.budget.Uniform(0.5)).eval()
    options = Distillation(teacher, task=lambda *_: torch.zeros(()), alpha=0, features={"0": 1.0})
    with options.attach(student) as loss:
        assert float(loss(student(x), Y)) < 1e-10


def test_a_student_learns_from_its_teacher_in_fine_tune(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, student = pair

    def gap() -> float:
        with torch.no_grad():
            return float(divergence(student.eval()(X), teacher.eval()(X), 1.0))

    before = gap()
    loss = Distillation(teacher, alpha=1, temperature=2, features={"1": 0.1})
    fine_tune_(student, [(X, Y)] * 10, loss, Recipe(epochs=6, lr=0.02, freeze_batch_norm=True, accumulate=2))
    assert gap() < 0.5 * before


def test_between_the_steps_of_a_pruning_the_teacher_is_the_original() -> None:
    teacher = original()
    loss = Distillation(teacher, F.cross_entropy)
    before = copy.deepcopy(teacher.state_dict())
    small = cp.prune(
        teacher,
        X,
        budget=cp.budget.Uniform(0.5),
        steps=2,
        between=lambda small: fine_tune_(small, [(X, Y)], loss, Recipe(epochs=1)),
    )
    assert small[1].num_features == 4
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name])


# -- what is left ----------------------------------------------------------------------------------


def test_nothing_is_left_on_either_model(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, student = pair
    teacher.train()
    teacher[1].eval()  # type: ignore[index]
    modes = [module.training for module in teacher.modules()]
    with Distillation(teacher, alpha=1, features={"1": 1.0}).attach(student) as loss:
        assert not any(module.training for module in teacher.modules())
        loss(student(X), Y).backward()
    assert [module.training for module in teacher.modules()] == modes
    for model in pair:
        for module in model.modules():
            assert not module._forward_hooks and not module._forward_pre_hooks
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_validation_in_between_does_not_count(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, student = pair
    student.eval()
    with Distillation(teacher, alpha=1, features={"1": 1.0}).attach(student) as loss:
        output = student(X)
        with torch.no_grad():
            student(torch.randn(2, 3, 8, 8))
        found = loss(output, Y)
        torch.testing.assert_close(loss(student(X), Y), found)


# -- faults ----------------------------------------------------------------------------------------


def message(error: type[Exception], make: Any) -> str:
    with pytest.raises(error) as caught:
        make()
    return str(caught.value)


def test_options_without_sense(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, _ = pair
    assert "alpha" in message(InputError, lambda: Distillation(teacher, F.cross_entropy, alpha=1.5))
    assert "temperature" in message(InputError, lambda: Distillation(teacher, alpha=1, temperature=0))
    assert "task=" in message(InputError, lambda: Distillation(teacher))
    assert "same object" in message(InputError, lambda: Distillation(teacher, alpha=1).attach(teacher))


def test_a_layer_that_has_no_channels_of_its_own(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, student = pair
    for name in ("2", "nowhere"):
        loss = Distillation(teacher, alpha=1, features={name: 1.0})
        text = message(InputError, lambda loss=loss: loss.attach(student))
        assert f"'{name}' is no layer with a weight of its own" in text and "there are 0, 1, 3, 6, 8" in text
    for module in student.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_student_without_a_plan(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, student = pair
    loss = Distillation(teacher, alpha=1, features={"1": 1.0})
    assert "give the plan" in message(InputError, lambda: loss.attach(copy.deepcopy(student)))
    with Distillation(teacher, alpha=1).attach(copy.deepcopy(student)):
        pass


def test_a_plan_of_others(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, student = pair
    loss = Distillation(teacher, alpha=1, features={"1": 1.0}, plan=cp.unpruned(teacher))
    assert "the student is not the one of the plan" in message(
        PlanMismatchError, lambda: loss.attach(student)
    )
    loss = Distillation(nn.Linear(2, 2), alpha=1, features={"": 1.0})
    assert "the teacher is not the one" in message(PlanMismatchError, lambda: loss.attach(student))


def test_a_loss_without_a_forward_pass(pair: tuple[nn.Module, nn.Module]) -> None:
    teacher, student = pair
    with Distillation(teacher, alpha=1).attach(student) as loss:
        output = student(X)
        loss(output, Y)
        assert "was not called since" in message(InputError, lambda: loss(output, Y))


def test_outputs_that_hold_logits() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.layer(x)}

    teacher, student = Wrapped(), Wrapped()
    x = torch.randn(4, 2)
    with Distillation(teacher, alpha=1).attach(student) as loss:
        assert "got dict" in message(InputError, lambda: loss(student(x), None))
    with Distillation(teacher, alpha=1, logits=lambda out: out["logits"]).attach(student) as loss:
        expected = divergence(student.layer(x), teacher.layer(x), 4.0)
        torch.testing.assert_close(loss(student(x), None), expected)


def test_logits_of_other_classes_and_weights_without_sense() -> None:
    x, y = torch.ones(3, 4), torch.tensor([0, 1, 0])
    for student, shape in (
        (nn.Linear(4, 1), r"\[3, 1\]"),
        (nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), r"\[3\]"),
    ):
        expected = pytest.raises(InputError, match=rf"got {shape} of the student and \[3, 2\] of the teacher")
        with Distillation(nn.Linear(4, 2), F.cross_entropy).attach(student) as loss, expected:
            loss(student(x), y)
    for weight in (float("nan"), 0.0, "much"):
        with pytest.raises(InputError, match="the weight of 'a' must be positive and finite"):
            Distillation(nn.Linear(4, 2), F.cross_entropy, features={"a": weight})  # type: ignore[dict-item]
