"""An attached regulariser acts once per optimizer step, on complete and unscaled gradients, in any loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import LBFGS, SGD, Optimizer
from torch.utils.data import DataLoader, TensorDataset

from compressor.errors import InputError
from compressor.training import Recipe, fine_tune_
from compressor.training.sparsity import (
    Decay,
    Form,
    MaskSparsity,
    Proximal,
    Regularizer,
    Subgradient,
    Within,
    silence_,
    silenced,
)
from tests.training.sparsity.nets import NormedNet, Planned, planned, train_step


class Watching(Regularizer):
    """Writes down what gradients it is shown, and adds a thousand to the first of them."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.after = 0

    def before_step(self, optimizer: Optimizer) -> None:
        gradient = optimizer.param_groups[0]["params"][0].grad
        self.seen.append(float(gradient.flatten()[0]))
        gradient.flatten()[0] += 1000

    def after_step(self, optimizer: Optimizer) -> None:
        self.after += 1


def test_one_call_for_each_step_however_many_backward_passes() -> None:
    net = nn.Linear(1, 1, bias=False)
    optimizer, watching = SGD(net.parameters(), 0.001), Watching()
    before = net.weight.item()
    handle = watching.attach(optimizer)
    for value in (1.0, 2.0, 3.0):
        net(torch.full((1, 1), value)).backward()
    optimizer.step()
    assert (watching.seen, watching.after) == ([6.0], 1)
    assert net.weight.item() == pytest.approx(before - 1.006)
    handle.remove()
    optimizer.step()
    assert watching.after == 1


@pytest.mark.parametrize("by_name", [True, False])
def test_a_closure_is_acted_upon_when_its_gradients_are_there(by_name: bool) -> None:
    net = nn.Linear(1, 1, bias=False)
    optimizer, watching = SGD(net.parameters(), 0.001), Watching()
    before = net.weight.item()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = net(torch.full((1, 1), 7.0)).sum()
        loss.backward()
        return loss

    with watching.attach(optimizer):
        loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)
    assert loss is not None and (watching.seen, watching.after) == ([7.0], 1)
    assert net.weight.item() == pytest.approx(before - 1.007)


def test_every_evaluation_of_a_line_search_is_regularised() -> None:
    net = nn.Linear(1, 1, bias=False)
    optimizer, watching = LBFGS(net.parameters(), max_iter=3), Watching()
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = (net(torch.ones(1, 1)) - 3).square().sum()
        loss.backward()
        return loss

    with watching.attach(optimizer):
        optimizer.step(closure)
    assert len(watching.seen) == calls > 1 and watching.after == 1


def _scaled(p: Planned, optimizer: Optimizer, *, unscale: bool, steps: int) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(steps):
        optimizer.zero_grad()
        scaler.scale(F.cross_entropy(p.net(p.x), torch.arange(len(p.x)) % 4)).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_a_scaled_loss_does_not_scale_the_penalty(unscale: bool, fused: bool) -> None:
    """A power of two as the scale changes no bit of the gradients, so the weights agree closely."""
    p, q = planned(), planned()
    q.net.load_state_dict(p.net.state_dict())
    q.x = p.x
    for one in (p, q):
        one.net.train()
    scaled, plain = (SGD(n.parameters(), 0.05, momentum=0.9, fused=fused) for n in (p.net, q.net))
    forms = Subgradient(0.3), Decay(4)
    with MaskSparsity(p.plan, p.graph, forms[0], shift=forms[1]).attach(scaled):
        _scaled(p, scaled, unscale=unscale, steps=3)
    with MaskSparsity(q.plan, q.graph, forms[0], shift=forms[1]).attach(plain):
        for _ in range(3):
            train_step(q.net, plain, q.x)
    for (name, a), b in zip(p.net.named_parameters(), q.net.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_calls_by_hand_are_the_same_as_an_attachment() -> None:
    p = planned()
    other = copy.deepcopy(p.net)
    q = Planned(other, p.x)
    first, second = (SGD(net.parameters(), 0.05, momentum=0.9) for net in (p.net, other))
    by_hand = MaskSparsity(p.plan, p.graph, Proximal(Within([0.05] * 4)))
    scheduler = torch.optim.lr_scheduler.StepLR(first, 1, 0.0)

    def step() -> None:
        by_hand.before_step(first)
        first.step()
        scheduler.step()  # the rate that the step had is what counts
        by_hand.after_step(first)
        first.param_groups[0]["lr"] = 0.05

    with MaskSparsity(q.plan, q.graph, Proximal(Within([0.05] * 4))).attach(second):
        for _ in range(4):
            train_step(p.net, first, p.x, step=step)
            train_step(other, second, p.x)
    for a, b in zip(p.net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert silenced(p.plan, p.graph, tolerance=0.0).done


def test_an_optimizer_that_maximises_is_regularised_all_the_same() -> None:
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.1, maximize=True)
    for parameter in p.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with MaskSparsity(p.plan, p.graph, Subgradient(0.5)).attach(optimizer):
        optimizer.step()
    (cut,) = (cut for cut in p.plan.cuts if cut.tensor == "stem.1.weight")
    torch.testing.assert_close(
        p.net.stem[1].weight[list(cut.removed)], torch.full((len(cut.removed),), 1 - 0.05)
    )


def test_a_parameter_without_a_gradient_stays_without_one() -> None:
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.1)
    for name, parameter in p.net.named_parameters():
        parameter.grad = None if name.startswith("depth") else torch.zeros_like(parameter)
    with MaskSparsity(p.plan, p.graph, Subgradient(0.5)).attach(optimizer):
        optimizer.step()
    assert p.net.depth[1].weight.grad is None
    assert torch.equal(p.net.depth[1].weight, torch.ones(16))


# -- averages --------------------------------------------------------------------------------------


def test_an_average_of_weights_is_silenced_once_it_is_close() -> None:
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.05)
    average = torch.optim.swa_utils.AveragedModel(
        p.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    with MaskSparsity(p.plan, p.graph, Decay(4)).attach(optimizer):
        for _ in range(6):
            train_step(p.net, optimizer, p.x)
            average.update_parameters(p.net)
    ema = average.module
    assert silenced(p.plan, p.graph).done and not silenced(p.plan, p.graph, model=ema).done
    with pytest.raises(InputError, match=r"not within 0\.0001 of zero.*Train further"):
        silence_(p.plan, p.graph, model=ema, tolerance=1e-4)
    kept = {n: t.clone() for n, t in ema.state_dict().items()}
    silence_(p.plan, p.graph, model=ema, tolerance=0.5)
    assert silenced(p.plan, p.graph, model=ema, tolerance=0.0).done
    for name, tensor in ema.state_dict().items():
        changed = tensor != kept[name]
        assert not changed.any() or not tensor[changed].any()


def test_nan_is_never_silent() -> None:
    p = planned()
    with torch.no_grad():
        p.net.stem[1].weight.fill_(float("nan"))
    assert not silenced(p.plan, p.graph, tolerance=10.0).done


# -- loops of others -------------------------------------------------------------------------------


def _data(p: Planned) -> DataLoader[Any]:
    x = torch.rand(24, 3, 8, 8)
    return DataLoader(TensorDataset(x, torch.arange(24) % 4), batch_size=4)


def test_in_the_loop_of_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    p = planned()

    class Task(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = p.net

        def training_step(self, batch: Any, index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Optimizer:
            optimizer = SGD(self.net.parameters(), 0.05, momentum=0.9)
            self.regularizer = MaskSparsity(p.plan, p.graph, Subgradient(0.01), shift=Decay(3))
            self.regularizer.attach(optimizer)
            return optimizer

    task = Task()
    trainer = lightning.Trainer(
        max_epochs=1,
        accumulate_grad_batches=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(task, _data(p))
    assert task.regularizer.steps_done == 3  # 6 batches, 2 for each step
    (cut,) = (cut for cut in p.plan.cuts if cut.tensor == "stem.1.bias")
    assert (p.net.stem[1].bias == 0).nonzero().flatten().tolist() == list(cut.removed)


def test_in_the_loop_of_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate")
    p = planned()
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    net, optimizer, loader = accelerator.prepare(p.net, SGD(p.net.parameters(), 0.05), _data(p))
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(Within([0.05] * 3)))
    handle = regularizer.attach(optimizer)
    for x, y in loader:
        with accelerator.accumulate(net):
            accelerator.backward(F.cross_entropy(net(x), y))
            optimizer.step()
            optimizer.zero_grad()
    assert regularizer.steps_done == 3 and silenced(p.plan, p.graph, tolerance=0.0).done
    handle.remove()


def test_in_the_loop_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    p = planned()

    class Task(nn.Module):
        def __init__(self, net: NormedNet) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
            logits = self.net(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    task, optimizer = Task(p.net), SGD(p.net.parameters(), 0.05)
    regularizer = MaskSparsity(p.plan, p.graph, Proximal(Within([0.05] * 3)))
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    data = [{"x": torch.rand(3, 8, 8), "labels": i % 4} for i in range(24)]
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    trainer = transformers.Trainer(task, arguments, train_dataset=data, optimizers=(optimizer, constant))
    with regularizer.attach(optimizer):
        trainer.train()
    assert regularizer.steps_done == 3 and silenced(p.plan, p.graph, tolerance=0.0).done


def test_attach_says_what_it_needs() -> None:
    attach: Callable[[Any], object] = Watching().attach
    with pytest.raises(InputError, match=r"expected a torch optimizer, .* got int"):
        attach(3)


# -- our own loop ----------------------------------------------------------------------------------


class Stopped(list[Any]):
    """Batches of which one is Ctrl-C, the first time that it is reached."""

    def __init__(self, batches: list[Any], at: int) -> None:
        super().__init__(batches)
        self.left = at

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            yield batch


@pytest.mark.parametrize("form", [Decay(7), Proximal(Within([0.05] * 7)), Subgradient(0.05)])
def test_an_interrupted_training_goes_on_to_the_same_bit(form: Form, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    batches = [(torch.rand(4, 3, 8, 8, generator=generator), torch.arange(4)) for _ in range(4)]
    recipe = Recipe(epochs=2, lr=0.05, batches_per_epoch=4)
    start = planned().net.state_dict()

    def trained(given: list[Any], file: Path) -> Planned:
        p = planned()
        p.net.load_state_dict(start)
        regularizer = MaskSparsity(p.plan, p.graph, form, shift=Decay(7))
        fine_tune_(
            p.net, given, F.cross_entropy, recipe, regularizer=regularizer, checkpoint=file, progress=False
        )
        return p

    whole = trained(batches, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        trained(Stopped(batches, at=6), tmp_path / "stopped.pt")
    resumed = trained(batches, tmp_path / "stopped.pt")
    for (name, a), b in zip(whole.net.named_parameters(), resumed.net.parameters(), strict=True):
        assert torch.equal(a, b), name
    if not isinstance(form, Subgradient):
        assert silenced(resumed.plan, resumed.graph, tolerance=0.0).done
