"""Nothing holds a model that the user let go, no hook stays behind, and many prunings leave nothing."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.training import Recipe, fine_tune_, sparsity

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """With a number in its forward, so that what is cut of it is patched, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.two, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.one(x)))
        x = torch.relu(self.two(x.reshape(-1, 8, *x.shape[2:])))
        return self.head(x.mean((2, 3)))


BATCHES = [(X, torch.tensor([0, 1]))]


def prune(net: nn.Module, _folder: Path) -> Any:
    return cp.prune(net, X, budget=cp.budget.Macs(0.5), steps=2)


def score(net: nn.Module, _folder: Path) -> Any:
    graph = cp.capture(net, X)
    cp.score(graph, cp.scoring.MeanActivation([X]))
    cp.score(graph, cp.scoring.Taylor(BATCHES, F.cross_entropy))
    return None


def fail_to_capture(net: nn.Module, _folder: Path) -> Any:
    with pytest.raises(cp.errors.CaptureError):
        cp.capture(net, torch.ones(1, 2))
    with pytest.raises(cp.errors.CompressorError):
        cp.prune(net, X, budget=cp.budget.Macs(0.001))


def save(net: nn.Module, folder: Path) -> Any:
    small = cp.prune(net, X, budget=cp.budget.Macs(0.5))
    cp.save(small, folder / "small", example=X)
    return cp.load(folder / "small", Net)


def fine_tune(net: nn.Module, folder: Path) -> Any:
    recipe = Recipe(epochs=1, lr=0.01, ema=0.9)
    fine_tune_(net, BATCHES, F.cross_entropy, recipe, checkpoint=folder / "training.pt", progress=False)


def sparse(net: nn.Module, _folder: Path) -> Any:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    lasso = sparsity.GroupLasso(cp.capture(net, X), sparsity.Proximal(1e-3))
    handle = lasso.attach(optimizer)
    F.cross_entropy(net(X), BATCHES[0][1]).backward()
    optimizer.step()
    handle.remove()


def recover(net: nn.Module, _folder: Path) -> Any:
    return cp.prune(net, X, budget=cp.budget.Macs(0.5), recover=cp.recovery.Reconstruction([X]))


def report(net: nn.Module, _folder: Path) -> Any:
    cp.filters.report(net)
    cp.profile(net, X)


VERBS: dict[str, Callable[[nn.Module, Path], Any]] = {
    verb.__name__: verb for verb in (prune, score, fail_to_capture, save, fine_tune, sparse, recover, report)
}


def hooks(model: nn.Module) -> int:
    """All hooks on the modules and parameters of a model, and those of all modules there are."""
    names = [name for name in vars(nn.Module()) if "hooks" in name and "global" not in name]
    own = sum(len(getattr(module, name)) for module in model.modules() for name in names)
    tensors = sum(
        len(parameter._backward_hooks or ())
        + len(getattr(parameter, "_post_accumulate_grad_hooks", None) or ())
        for parameter in model.parameters()
    )
    shared = vars(nn.modules.module).items()
    everywhere = [held for name, held in shared if name.startswith("_global_") and isinstance(held, dict)]
    return own + tensors + sum(map(len, everywhere))


@pytest.mark.parametrize("verb", VERBS)
def test_a_model_dies_when_the_user_lets_it_go(verb: str, tmp_path: Path) -> None:
    net = Net()
    before, kinds = hooks(net), [type(module) for module in net.modules()]
    small = VERBS[verb](net, tmp_path)
    assert hooks(net) == before
    assert [type(module) for module in net.modules()] == kinds
    refs = [weakref.ref(one) for one in (net, net.two, net.two.weight)]
    result = None if small is None else weakref.ref(small)
    del net, small
    gc.collect()
    assert [ref() for ref in refs] == [None, None, None]
    assert result is None or result() is None


def test_a_small_model_does_not_hold_the_original() -> None:
    net = Net()
    small = cp.prune(net, X, budget=cp.budget.Macs(0.5))
    gone = weakref.ref(net)
    del net
    gc.collect()
    assert gone() is None and cp.plan_of(small) is not None


def test_a_plan_holds_neither_graph_nor_model() -> None:
    graph = cp.capture(Net(), X)
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Macs(0.5))
    gone = weakref.ref(graph.model)
    del graph
    gc.collect()
    assert gone() is None and plan.cuts


def test_a_leak_would_be_seen() -> None:
    net = Net()
    held, gone = [net], weakref.ref(net)
    handle = net.register_forward_hook(lambda *_: None)
    assert hooks(net) == 1
    handle.remove()
    del net
    gc.collect()
    assert gone() is held[0]


def alive() -> Counter[str]:
    """How many objects there are of the kinds that a pruning makes, after a look for garbage."""
    gc.collect()
    kinds = (nn.Module, Tensor, Graph, Plan)
    return Counter(type(one).__name__ for one in gc.get_objects() if issubclass(type(one), kinds))


def grown(times: int) -> tuple[Counter[str], int]:
    """The objects, and bytes by Python's own count, that so many prunings leave behind."""

    def once() -> None:
        net = Net()
        small = cp.prune(net, X, budget=cp.budget.Macs(0.5))
        cp.score(cp.capture(small, X), cp.scoring.MeanActivation([X]))

    for _ in range(12):
        once()
    before = alive()
    tracemalloc.start()
    try:
        once()
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(times):
            once()
        gc.collect()
        end = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return alive() - before, end - start


def test_prunings_leave_nothing_behind() -> None:
    objects, size = grown(10)
    assert not objects
    assert size < 20_000  # interned names and what torch keeps; ten models take 50 kB


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_thousand_prunings_leave_nothing_behind() -> None:
    objects, size = grown(1000)
    assert not objects
    assert size < 500_000  # a thousand models take 5 MB
