"""A plain training loop and what the examples print and draw of a pruned model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import compressor as cp


@dataclass(frozen=True)
class Data:
    """Images [N, C, H, W] and labels [N], for training and for testing."""

    x_train: Tensor
    y_train: Tensor
    x_test: Tensor
    y_test: Tensor

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """One shuffled pass over the training images."""
        for index in torch.randperm(len(self.x_train), generator=generator).split(size):
            yield self.x_train[index], self.y_train[index]


def train(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    lr: float,
    seed: int,
    batch: int = 64,
    shift: int = 1,
) -> None:
    """SGD with momentum and a cosine schedule; images are shifted at random by up to `shift` pixels."""
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * -(-len(data.x_train) // batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    model.train()
    with tqdm(total=steps, desc=f"{epochs} epochs", leave=False) as bar:
        for _ in range(epochs):
            for x, y in data.batches(batch, generator):
                loss = F.cross_entropy(model(_shifted(x, shift, generator)), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.update()
    model.eval()


def _shifted(x: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    down, right = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
    padded = F.pad(x, (shift,) * 4)
    top, left = shift + down, shift + right
    return padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]


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
