"""From a trained network to one of 30 % of its MACs: digits, a small convolutional network, no download."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import compressor as cp
from compressor.training import Distillation, Recipe, fine_tune_

torch.manual_seed(0)

# 1. Data: 1,797 scans of digits, the last 397 held out.
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
labels = torch.tensor(digits.target)
train = [(images[i : i + 100], labels[i : i + 100]) for i in range(0, 1400, 100)]
test_x, test_y = images[1400:], labels[1400:]


def accuracy(net: torch.nn.Module) -> float:
    """The share of held-out digits that are named rightly."""
    with torch.no_grad():
        return float((net.eval()(test_x).argmax(1) == test_y).float().mean())


# 2. A network of one's own, trained with the loop of the library (any loop will do).
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 16, 3, padding=1),
    torch.nn.BatchNorm2d(16),
    torch.nn.ReLU(),
    torch.nn.Conv2d(16, 32, 3, stride=2, padding=1),
    torch.nn.BatchNorm2d(32),
    torch.nn.ReLU(),
    torch.nn.Conv2d(32, 32, 3, padding=1),
    torch.nn.BatchNorm2d(32),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(32, 10),
)
fine_tune_(model, train, cross_entropy, Recipe(epochs=20, lr=0.1), progress=False)
print(f"trained: {accuracy(model):.1%}")

# 3. Remove 70 % of the MACs. The result is proved before it is returned.
example = images[:2]
budget = cp.budget.Macs(0.3)
print(f"as cut: {accuracy(cp.prune(model, example, budget=budget)):.1%}")

# 4. The same, with the layers fitted anew to what the original computes: no labels, no gradients.
inputs = [x for x, _ in train[:4]]
small = cp.prune(model, example, budget=budget, recover=cp.recovery.Reconstruction(inputs))
print(f"reconstructed: {accuracy(small):.1%}")

# 5. Train on, the original as a teacher.
fine_tune_(small, train, Distillation(model, cross_entropy), Recipe(epochs=10, lr=0.05), progress=False)
print(f"fine-tuned: {accuracy(small):.1%}")

before, after = (cp.profile(net, example).macs for net in (model, small))
print(f"MACs: {before:,} -> {after:,}")
