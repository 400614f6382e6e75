"""Two ways to prune inside Lightning's own loop: channels driven to zero, and channels cut step by step.

    python examples/lightning_training.py [--quick]

The data are scikit-learn's handwritten digits. For yours, put your network, loaders and LightningModule in
the places of `network`, `digits` and `Task`; the callbacks need to know nothing else.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

import pytorch_lightning as lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import compressor as cp
from compressor.training import Recipe, Validation, sparsity, step_rates
from compressor.training.lightning import GradualPruningCallback, SparseTrainingCallback

Batches = DataLoader[tuple[Tensor, ...]]


class Task(lightning.LightningModule):
    """A classifier with SGD and a learning rate along a cosine; nothing in it speaks of pruning."""

    def __init__(self, net: nn.Module, steps: int) -> None:
        super().__init__()
        self.net, self.steps = net, steps

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> lightning.utilities.types.OptimizerLRScheduler:
        """SGD with momentum; the rate changes with each step."""
        optimizer = torch.optim.SGD(self.net.parameters(), 0.05, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def digits() -> tuple[Batches, Batches]:
    """Shuffled batches of 1,297 digits to train on, and of 500 others."""
    bunch = load_digits()
    x, y = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 8 - 1, torch.tensor(bunch.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = (
        TensorDataset(x[order[:-500]], y[order[:-500]]),
        TensorDataset(x[order[-500:]], y[order[-500:]]),
    )
    return DataLoader(train, 64, shuffle=True, drop_last=True), DataLoader(test, 250)


def network() -> nn.Module:
    """A small ResNet for 8x8 pixels, freshly drawn."""
    torch.manual_seed(0)
    return cp.models.create("resnet20_cifar", in_channels=1)


def fit(net: nn.Module, batches: Batches, epochs: int, *callbacks: lightning.Callback) -> None:
    """Lightning's loop with the callbacks; the network is trained in place."""
    trainer = lightning.Trainer(max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", logger=False,
                                enable_checkpointing=False, enable_progress_bar=False,
                                enable_model_summary=False)  # fmt: skip
    trainer.fit(Task(net, epochs * len(batches)), batches)
    net.eval()


def to_zero(batches: Batches, test: Validation, epochs: int, budget: cp.budget.Budget) -> nn.Module:
    """MaskSparsity: what a plan removes is at zero halfway through, so that the cut changes nothing."""
    net = network()
    x, _ = next(iter(batches))
    graph = cp.capture(net, x)
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), budget)
    half = epochs * len(batches) // 2
    rates = step_rates(Recipe(epochs=epochs, lr=0.05), len(batches))[:half]
    push = sparsity.MaskSparsity(plan, graph, sparsity.Proximal(sparsity.Within(rates)),
                                 shift=sparsity.Decay(half))  # fmt: skip
    fit(net, batches, epochs, SparseTrainingCallback(push))
    silent = sparsity.silenced(plan, graph)
    print(
        f"1. all planned channels at zero after {push.steps_done} steps: {'yes' if silent.done else silent}"
    )
    removal = cp.recovery.remove_silenced(plan, graph, batches)
    print(f"   accuracy {test.measure(net):.1%} before the cut, {test.measure(removal.model):.1%} after it")
    print(f"   {removal}")
    return removal.model


def step_by_step(batches: Batches, test: Validation, epochs: int, budget: cp.budget.Budget) -> nn.Module:
    """Train for a third of the epochs, cut at the start of each of the next ones, and train on."""
    net = network()
    x, _ = next(iter(batches))
    cuts = range(epochs // 3, 2 * epochs // 3)
    fit(
        net,
        batches,
        epochs,
        GradualPruningCallback(x, budget=budget, epochs=cuts, network=lambda task: task.net),
    )
    said = ", ".join(map(str, cuts))
    print(f"2. cut at the start of epochs {said} of {epochs}: accuracy {test.measure(net):.1%}")
    return net


def main() -> None:
    """The same network, data and budget in both ways, and without any pruning."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--macs", type=float, default=0.5, help="fraction of the MACs that stays")
    parser.add_argument("--epochs", type=int, default=12, help="of each of the three trainings")
    parser.add_argument("--out", type=Path, default=Path("out/lightning"))
    parser.add_argument("--quick", action="store_true", help="3 epochs")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")  # the digits are in memory
    epochs = 3 if options.quick else options.epochs
    batches, held_out = digits()
    test = Validation(batches=held_out)
    unpruned = network()
    fit(unpruned, batches, epochs)
    print(f"0. {epochs} epochs without pruning: accuracy {test.measure(unpruned):.1%} on 500 new digits")
    budget = cp.budget.Macs(options.macs)
    x = held_out.dataset[0][0][None]
    for name, way in {"to-zero": to_zero, "step-by-step": step_by_step}.items():
        small = way(batches, test, epochs, budget)
        cp.save(small, options.out / name, overwrite=True)  # a Lightning checkpoint would not fit `network()`
        again = cp.load(options.out / name, network).eval()
        with torch.no_grad():
            assert torch.equal(again(x), small(x))
        left = cp.profile(small, x).macs / cp.profile(unpruned, x).macs
        print(f"   {left:.1%} of the MACs left; saved to {options.out / name} and loaded again")


if __name__ == "__main__":
    main()
