"""Callbacks in the loop of Lightning itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

import compressor as cp
from compressor.errors import InputError
from compressor.training import Distillation
from compressor.training.lightning import GradualPruningCallback, SparseTrainingCallback
from compressor.training.sparsity import MaskSparsity, Proximal, Within, silenced
from tests.training.conftest import make_data, make_net


class Task(lightning.LightningModule):
    def __init__(self, net: nn.Module, *, optimizers: int = 1, fail_at: int | None = None) -> None:
        super().__init__()
        self.net, self.n_optimizers, self.fail_at = net, optimizers, fail_at
        self.automatic_optimization = optimizers == 1

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        if index == self.fail_at:
            raise ZeroDivisionError
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        made = [torch.optim.SGD(self.net.parameters(), 0.05, momentum=0.9) for _ in range(self.n_optimizers)]
        return made if self.n_optimizers > 1 else made[0]


def trainer(
    folder: Path, *callbacks: lightning.Callback, epochs: int = 2, **options: Any
) -> lightning.Trainer:
    settings: dict[str, Any] = {
        "max_epochs": epochs,
        "callbacks": list(callbacks),
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return lightning.Trainer(**settings | options)


@pytest.fixture
def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*make_data()), 4)


def sparse(net: nn.Module, steps: int) -> tuple[cp.Plan, cp.Graph, MaskSparsity]:
    graph = cp.capture(net, make_data()[0])
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    return plan, graph, MaskSparsity(plan, graph, Proximal(Within([0.05] * steps)))


def hooks(optimizer: Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def test_exactly_the_planned_channels_become_zero(tmp_path: Path, loader: DataLoader[Any]) -> None:
    net = make_net()
    plan, graph, regularizer = sparse(net, 12)
    fit = trainer(tmp_path, SparseTrainingCallback(regularizer))
    fit.fit(Task(net), loader)
    assert silenced(plan, graph, tolerance=0.0).done
    removed = next(cut.removed for cut in plan.cuts if cut.tensor == "1.weight")
    assert (net[1].weight == 0).nonzero().flatten().tolist() == list(removed)
    assert hooks(fit.optimizers[0]) == 0


def test_a_fit_from_a_checkpoint_goes_on_where_it_was(tmp_path: Path, loader: DataLoader[Any]) -> None:
    file = tmp_path / "last.ckpt"
    results = []
    for stops in ((2,), (1, 2)):
        for number, epochs in enumerate(stops):
            net = make_net()
            net[3].p = 0.0  # type: ignore[assignment]
            _, _, regularizer = sparse(net, 12)
            callbacks = [SparseTrainingCallback(regularizer), Saving(file)]
            fit = trainer(tmp_path, *callbacks, epochs=epochs)
            fit.fit(Task(net), loader, ckpt_path=str(file) if number else None)
        results.append((regularizer.steps_done, net.state_dict()))
        file.unlink()
    assert results[0][0] == results[1][0] == 12
    for name, tensor in results[0][1].items():
        torch.testing.assert_close(tensor, results[1][1][name], rtol=0, atol=0)


class Saving(lightning.Callback):
    """Writes a checkpoint at the end of the first epoch, while the regulariser is attached."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.file)


def test_it_is_removed_after_an_error(tmp_path: Path, loader: DataLoader[Any]) -> None:
    net = make_net()
    _, _, regularizer = sparse(net, 12)
    fit = trainer(tmp_path, SparseTrainingCallback(regularizer))
    with pytest.raises(ZeroDivisionError):
        fit.fit(Task(net, fail_at=2), loader)
    assert hooks(fit.optimizers[0]) == 0
    regularizer.attach(torch.optim.SGD(net.parameters(), 0.1)).remove()


def test_several_optimizers_are_refused(tmp_path: Path, loader: DataLoader[Any]) -> None:
    net = make_net()
    _, _, regularizer = sparse(net, 12)
    with pytest.raises(InputError, match="2 optimizers, expected one"):
        trainer(tmp_path, SparseTrainingCallback(regularizer)).fit(Task(net, optimizers=2), loader)


def test_the_module_shrinks_while_it_trains(tmp_path: Path, loader: DataLoader[Any]) -> None:
    net = make_net()
    widths: list[int] = []

    class Watching(lightning.Callback):
        def on_train_epoch_end(self, *_: object) -> None:
            widths.append(net[0].out_channels)

    callback = GradualPruningCallback(
        make_data()[0], budget=cp.budget.Uniform(0.75), epochs=(1, 2), network=lambda task: task.net
    )
    trainer(tmp_path, callback, Watching(), epochs=4).fit(Task(net), loader)
    assert widths == [8, 4, 2, 2]
    assert callback.pruning is not None and callback.pruning.done


def test_distillation_needs_no_callback(tmp_path: Path, loader: DataLoader[Any]) -> None:
    teacher = make_net().eval()
    student = cp.prune(teacher, make_data()[0], budget=cp.budget.Uniform(0.5))

    class Distilled(Task):
        def on_fit_start(self) -> None:
            self.loss = Distillation(teacher, F.cross_entropy, features={"1": 0.1}).attach(self.net)

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            return self.loss(self.net(batch[0]), batch[1])

        def on_fit_end(self) -> None:
            self.loss.remove()

    before = student[0].weight.clone()  # type: ignore[index]
    trainer(tmp_path, epochs=1).fit(Distilled(student), loader)
    assert not torch.equal(before, student[0].weight)  # type: ignore[index]


@pytest.mark.parametrize(("epochs", "missed"), [((1, 4), "4"), ((7,), "7")])
def test_epochs_that_a_fit_does_not_reach_are_refused(
    tmp_path: Path, loader: DataLoader[Any], epochs: tuple[int, ...], missed: str
) -> None:
    callback = GradualPruningCallback(
        make_data()[0], budget=cp.budget.Uniform(0.5), epochs=epochs, network=lambda task: task.net
    )
    with pytest.raises(InputError, match=rf"from epoch 0 to 3, without {missed}: the budget"):
        trainer(tmp_path, callback, epochs=4).fit(Task(make_net()), loader)
    with pytest.raises(InputError, match="whole numbers from 0"):
        GradualPruningCallback(make_data()[0], budget=cp.budget.Uniform(0.5), epochs=())
