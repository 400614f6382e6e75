"""Where user code raises in the middle, the model and the process are left as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.recovery import Reconstruction
from compressor.training import Recipe, fine_tune_, sparsity
from tests.leaks.test_leaks import hooks

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1])


class Failure(Exception):
    """What the user's code raises."""


class Brittle(nn.Module):
    """Counts its forwards, and raises in the middle of the n-th, in a submodule, after it drew and wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.two, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)
        self.drop = nn.Dropout(0.5)
        self.calls, self.fails_at = [0], [-1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.norm(self.one(x))))
        self.calls[0] += 1
        if self.calls[0] == self.fails_at[0]:
            torch.rand(3)
            raise Failure("in the forward")
        x = torch.relu(self.two(x.reshape(-1, 8, *x.shape[2:])))
        return self.head(x.mean((2, 3)))


def failing_loss(output: Tensor, target: Tensor) -> Tensor:
    raise Failure("in the loss")


def failing_batches() -> Iterator[tuple[Tensor, Tensor]]:
    yield X, Y
    raise Failure("in the loader")


class Batches:
    """Can be read again and again, and fails each time after one batch."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return failing_batches()

    def __len__(self) -> int:
        return 2


GOOD = [(X, Y), (X, Y)]
Verb = Callable[[Brittle, Path], Any]


def graph_of(net: Brittle) -> Any:
    fails_at, net.fails_at[0] = net.fails_at[0], -1
    graph = cp.capture(net, X)
    net.fails_at[0], net.calls[0] = fails_at, 0
    return graph


FORWARDS: dict[str, Verb] = {
    "capture": lambda net, _: cp.capture(net, X),
    "score on data": lambda net, _: cp.score(graph_of(net), cp.scoring.MeanActivation(GOOD)),
    "score on a loss": lambda net, _: cp.score(graph_of(net), cp.scoring.Taylor(GOOD, F.cross_entropy)),
    "score of parameters": lambda net, _: cp.score(graph_of(net), cp.scoring.SynFlow()),
    "prune": lambda net, _: cp.prune(net, X, budget=cp.budget.Macs(0.5)),
    "reconstruct": lambda net, _: cp.prune(net, X, budget=cp.budget.Macs(0.5), recover=Reconstruction([X])),
    "profile": lambda net, _: cp.profile(net, X),
    "latency": lambda net, _: cp.profiling.measure_latency([net], (X,)),
    "export": lambda net, folder: cp.export.onnx(net, X, folder / "net.onnx"),
    "filters": lambda net, _: cp.filters.banks(net, X),
}
CODE: dict[str, Verb] = {
    "a loss in a score": lambda net, _: cp.score(graph_of(net), cp.scoring.Taylor(GOOD, failing_loss)),
    "batches of a score": lambda net, _: cp.score(graph_of(net), cp.scoring.MeanActivation(Batches())),
    "batches of a loss": lambda net, _: cp.score(
        graph_of(net), cp.scoring.Taylor(Batches(), F.cross_entropy)
    ),
    "batches of a repair": lambda net, _: cp.prune(
        net, X, budget=cp.budget.Macs(0.5), recover=Reconstruction(Batches())
    ),
}


def flags(net: nn.Module) -> dict[str, Any]:
    """All of a model that is no number: modes, classes, what is trained, hooks, gradients."""
    return {
        "modes": [module.training for module in net.modules()],
        "classes": [type(module) for module in net.modules()],
        "methods": [sorted(set(vars(module)) - {"calls"}) for module in net.modules()],
        "trained": [parameter.requires_grad for parameter in net.parameters()],
        "gradients": [None if p.grad is None else p.grad.tolist() for p in net.parameters()],
        "hooks": hooks(net),
    }


def numbers(net: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in net.state_dict().items()}


def process() -> dict[str, Any]:
    """What belongs to the process: switches of torch."""
    return {
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "kernels": torch._C._get_mkldnn_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def random_state() -> tuple[Any, ...]:
    numpy_state = np.random.get_state()[1].tolist()  # type: ignore[index,union-attr] # noqa: NPY002
    return torch.get_rng_state().tolist(), numpy_state, random.getstate()


def assert_as_before(net: Brittle, call: Callable[[], Any]) -> None:
    """A call that raises Failure, or an error of the library that comes from it, changes nothing."""
    before = flags(net), numbers(net), process(), random_state()
    with pytest.raises((Failure, cp.errors.CompressorError)) as raised:
        call()
    chain: BaseException | None = raised.value
    while chain is not None and not isinstance(chain, Failure):
        chain = chain.__cause__ or chain.__context__
    assert isinstance(chain, Failure), f"another fault: {raised.value!r}"
    after = flags(net), numbers(net), process(), random_state()
    for name, (old, new) in zip(
        ("flags", "numbers", "process", "random"), zip(before, after, strict=True), strict=True
    ):
        assert old == new, name


def brittle(fails_at: int = -1) -> Brittle:
    """In training mode, with a part in eval mode, one parameter frozen, and gradients there."""
    torch.manual_seed(1)
    net = Brittle().train()
    net.norm.eval()
    F.cross_entropy(net(X), Y).backward()
    net.one.bias.requires_grad_(False)  # type: ignore[union-attr]
    net.calls[0], net.fails_at[0] = 0, fails_at
    return net


@pytest.mark.parametrize(
    ("verb", "fails_at"), [*((verb, 1) for verb in FORWARDS), ("score on data", 2), ("score on a loss", 2)]
)
def test_a_forward_that_raises(verb: str, fails_at: int, tmp_path: Path) -> None:
    net = brittle(fails_at)
    assert_as_before(net, lambda: FORWARDS[verb](net, tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", CODE)
def test_code_of_the_user_that_raises(verb: str, tmp_path: Path) -> None:
    net = brittle()
    assert_as_before(net, lambda: CODE[verb](net, tmp_path))


@pytest.mark.parametrize("what", ["forward", "loss", "batches"])
def test_a_training_that_raises_lets_go_of_the_model(what: str, tmp_path: Path) -> None:
    net = brittle(3 if what == "forward" else -1)
    before = flags(net), process()
    loss = failing_loss if what == "loss" else F.cross_entropy
    lasso = sparsity.GroupLasso(graph_of(net), sparsity.Proximal(1e-3))
    with pytest.raises(Failure):
        fine_tune_(
            net,
            Batches() if what == "batches" else GOOD,
            loss,
            Recipe(epochs=2, lr=0.01, ema=0.9),
            regularizer=lasso,
            checkpoint=tmp_path / "training.pt",
            progress=False,
        )
    after = flags(net), process()
    for old, new in zip(before, after, strict=True):
        assert {**old, "gradients": 0} == {**new, "gradients": 0}
