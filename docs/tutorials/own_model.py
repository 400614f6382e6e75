"""From a trained network of one's own to files for a phone, with what each step costs.

Extra `onnx`. Writes into the current folder.
"""

from __future__ import annotations

import torch
from spotter import Spotter, words
from torch import nn
from torch.nn.functional import cross_entropy

import compressor as cp
from compressor.training import Distillation, Recipe, fine_tune_

torch.manual_seed(0)

# 1. Train it, in whatever loop. This is the library's.
x, y = words(1500, seed=0)
train = list(zip(x.split(50), y.split(50), strict=True))
test_x, test_y = words(500, seed=1)
model = Spotter()
fine_tune_(model, train, cross_entropy, Recipe(epochs=6, lr=0.1), progress=False)


def accuracy(net: nn.Module) -> float:
    """The share of unseen words that are named rightly."""
    with torch.no_grad():
        return float((net.eval()(test_x).argmax(1) == test_y).float().mean())


print(f"trained: {accuracy(model):.1%}")

# 2. See what can go: what is free, what is removed together with what.
example = x[:1]
graph = cp.capture(model, example)
print(graph)
print(graph.explain("over_time"))

# 3. Leave 40 % of the MACs, fitted anew without labels. Proved before it is returned.
recordings = [images for images, _ in train[:6]]
budget = cp.budget.Macs(0.4, round_to=4)
print(f"as cut: {accuracy(cp.prune(model, example, budget=budget)):.1%}")
small = cp.prune(model, example, budget=budget, recover=cp.recovery.Reconstruction(recordings))
print(f"reconstructed: {accuracy(small):.1%}")

# 4. Train on, the original as a teacher.
fine_tune_(small, train, Distillation(model, cross_entropy), Recipe(epochs=2, lr=0.02), progress=False)
print(f"fine-tuned: {accuracy(small):.1%}")

# 5. Keep it. Safetensors, JSON, a loader that needs torch only.
cp.save(small, "smaller/")
assert accuracy(cp.load("smaller/", Spotter)) == accuracy(small)

# 6. Measure it, in the runtime of the phone as well.
print(cp.compare(model, small, example))
print(cp.profiling.latency(model, small, example, runtime=cp.runtimes.OnnxRuntime()))

# 7. Make files for the phone, float32 and int8, each checked and timed, and a page of what was done.
print(cp.export.onnx(model, example, "before.onnx"))
print(cp.export.mobile(small, example, "spotter_app/", calibration=recordings, baseline=model, page=False))
print(cp.report(model, small, example).write("spotter.html"))
