"""Data for the examples, one recipe for all of them, and what they print and draw of a pruned model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate

import compressor as cp


@dataclass(frozen=True)
class Data:
    """Images [N, C, H, W] and labels [N], for training and for testing."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    def loader(self, *, batch: int = 64, shift: int = 1) -> DataLoader[tuple[Tensor, Tensor]]:
        """Shuffled training images, each batch shifted at random by up to `shift` pixels."""
        images = TensorDataset(self.x_train, self.y_train)
        return DataLoader(images, batch, shuffle=True, collate_fn=partial(_shifted, shift))

    def unlabelled(self, n: int, *, batch: int = 128) -> list[Tensor]:
        """The first `n` training images as they are, without their labels."""
        return list(self.x_train[:n].split(batch))


def train(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    lr: float,
    seed: int,
    batch: int = 64,
    shift: int = 1,
    teacher: nn.Module | None = None,
) -> None:
    """SGD with a warm-up and a cosine schedule; with a `teacher` (the unpruned model) by its outputs, too."""
    loss = F.cross_entropy if teacher is None else cp.training.Distillation(teacher, F.cross_entropy)
    recipe = cp.training.Recipe(epochs=epochs, lr=lr, weight_decay=5e-4, warmup_epochs=epochs / 4, seed=seed)
    cp.training.fine_tune_(model, data.loader(batch=batch, shift=shift), loss, recipe)
    model.eval()


def _shifted(shift: int, items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    x, y = default_collate(items)
    top, left = torch.randint(2 * shift + 1, (2,)).tolist()
    return F.pad(x, (shift,) * 4)[:, :, top : top + x.shape[2], left : left + x.shape[3]], y


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The fraction of images that the model names correctly."""
    model.eval()
    hits = sum(int((model(a).argmax(1) == b).sum()) for a, b in zip(x.split(250), y.split(250), strict=True))
    return hits / len(x)


def draw(path: Path, comparison: cp.profiling.Comparison, accuracies: tuple[float, float]) -> None:
    """Bars of everything that was measured, after as a share of before."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    before, after = comparison.before, comparison.after
    old_ms, new_ms = (timing.ms for timing in comparison.latency.timings)
    rows = [
        (f"accuracy\n{accuracies[0]:.1%} → {accuracies[1]:.1%}", accuracies[1] / accuracies[0]),
        (f"MACs\n{before.macs / 1e6:.1f} M → {after.macs / 1e6:.1f} M", after.macs / before.macs),
        (f"parameters\n{before.params:,} → {after.params:,}", after.params / before.params),
        (
            f"weight bytes\n{before.weight_bytes / 1e3:.0f} kB → {after.weight_bytes / 1e3:.0f} kB",
            after.weight_bytes / before.weight_bytes,
        ),
        (f"latency\n{old_ms:.2f} ms → {new_ms:.2f} ms", 1 / comparison.latency.timings[1].speedup),
    ]
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    names, shares = zip(*reversed(rows), strict=True)
    axes.barh(names, [1] * len(rows), color="#d8dee6", label="before")
    bars = axes.barh(names, shares, color="#2b6cb0", height=0.55, label="after")
    axes.bar_label(bars, [f"{share:.0%}" for share in shares], padding=4)
    axes.set_xlim(0, 1.15)
    axes.set_xticks([])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
