"""What a graph, scores and plans say before anything is cut."""

from __future__ import annotations

import torch

import compressor as cp

torch.manual_seed(0)
model = cp.models.create("resnet20_cifar")
x = torch.rand(2, 3, 32, 32)

# 1. What can go, and what holds the rest.
graph = cp.capture(model, x)
print(graph)
for name, _ in list(model.named_modules())[1:3]:
    print(graph.explain(name))

# 2. Two criteria can be held against each other without cutting anything.
norms = cp.score(graph, cp.scoring.Norm(1))
chance = cp.score(graph, cp.scoring.Random(seed=0))
for scores in (norms, chance):
    plan = cp.plan(scores, cp.budget.Macs(0.5, round_to=4))
    print(plan.note)
    print(plan.summary())

# 3. What each budget leaves, counted before anything is cut: what the pruned model costs, to the unit.
macs, params = cp.profiling.macs(graph), cp.profiling.params(graph)
for budget in (
    cp.budget.Uniform(0.3),
    cp.budget.Global(0.3),
    cp.budget.Macs(0.5),
    cp.budget.Params(0.5),
    cp.budget.Memory(0.8),
):
    removed = budget.choose(norms)
    left = macs.total(removed) / macs.total(), params.total(removed) / params.total()
    print(f"{budget!r:16} MACs {left[0]:6.1%}  parameters {left[1]:6.1%}")

# 4. A plan is a value: it can be kept, compared and applied elsewhere.
plan = cp.plan(norms, cp.budget.Macs(0.5))
print(plan.cuts[0])
print(cp.verify(model, cp.apply(model, plan), plan, x))
