"""Four threads at once, on networks of their own and on a shared one, get what one thread gets alone."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.core.alone import alone

THREADS = 4


class Net(nn.Module):
    """Makes tensors whose dtype it does not name, draws, and holds a number in its forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.one, self.two = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 8, 3, padding=1)
        self.norm, self.drop = nn.BatchNorm2d(width), nn.Dropout(0.5)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.relu(self.norm(self.one(x)))) + torch.zeros(1)
        x = torch.relu(self.two(x.reshape(x.shape[0], self.width, *x.shape[2:])))
        return self.head(x.mean((2, 3)) * torch.linspace(0.5, 1.0, 1))


X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def made(width: int) -> Net:
    torch.manual_seed(width)
    return Net(width).train()


def results(net: nn.Module) -> dict[str, Any]:
    """All verbs on a network."""
    graph = cp.capture(net, X)
    scores = cp.score(graph, cp.scoring.Norm())
    on_data = cp.score(graph, cp.scoring.MeanActivation([X]))
    plan = cp.plan(scores, cp.budget.Macs(0.5))
    small = cp.apply(net, plan)
    report = cp.verify(net, small, plan, X, graph=graph)
    assert report.error <= 1e-9
    again = cp.prune(net, X, budget=cp.budget.Params(0.5), steps=2)
    return {
        "plan": plan.to_json(),
        "scores": scores.values.tolist(),
        "on data": on_data.values.tolist(),
        "small": {name: tensor.tolist() for name, tensor in small.state_dict().items()},
        "again": {name: tensor.tolist() for name, tensor in again.state_dict().items()},
        "profile": str(cp.profile(small, X)),
    }


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What the calls return, each in a thread, all let go at the same moment."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_networks_of_their_own() -> None:
    widths = [8, 10, 12, 14]
    expected = [results(made(width)) for width in widths]
    nets = [made(width) for width in widths]
    found = at_once([lambda net=net: results(net) for net in nets])  # type: ignore[misc]
    assert found == expected
    assert all(net.training and not net._forward_hooks for net in nets)


def test_one_network_that_all_share() -> None:
    expected = results(made(12))
    net = made(12)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert at_once([lambda: results(net)] * THREADS) == [expected] * THREADS
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_what_belongs_to_the_process_is_as_it_was(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        return (
            torch.get_default_dtype(),
            torch.backends.mha.get_fastpath_enabled(),
            torch._C._get_mkldnn_enabled(),
            torch.is_grad_enabled(),
            torch.get_rng_state().tolist(),
            np.random.get_state()[1].tolist(),  # type: ignore[index,union-attr] # noqa: NPY002
            random.getstate(),
            len(nn.modules.module._global_forward_hooks),
            len(nn.modules.module._global_forward_pre_hooks),
        )

    nets = [made(width) for width in (8, 12)]
    before = state()
    at_once([lambda net=net: results(net) for net in nets])  # type: ignore[misc]
    assert state() == before


def test_a_network_that_runs_beside_a_capture_is_not_recorded() -> None:
    expected = results(made(12))
    other, over = made(8).eval(), threading.Event()
    outputs: list[Tensor] = []

    def run() -> None:
        with torch.no_grad():
            while not over.is_set():
                outputs.append(other.two(other.one(X)))

    beside = threading.Thread(target=run)
    beside.start()
    try:
        found = [results(made(12))]
        while len(outputs) < 4:  # however the two take turns on this machine
            found.append(results(made(12)))
    finally:
        over.set()
        beside.join()
    assert all(result == expected for result in found)
    assert all(torch.equal(output, outputs[0]) for output in outputs)


def test_saving_while_others_capture(tmp_path: Path) -> None:
    net = made(12)
    small = cp.prune(net, X, budget=cp.budget.Macs(0.5))

    def save(number: int) -> None:
        for _ in range(3):
            cp.save(small, tmp_path / str(number), overwrite=True)

    def capture() -> None:
        for _ in range(3):
            cp.capture(small, X)

    at_once([lambda: save(0), capture, lambda: save(1), capture])
    for number in range(2):
        again = cp.load(tmp_path / str(number), lambda: Net(12))
        assert again.training
        for name, tensor in small.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name


def test_an_error_in_one_thread_lets_the_others_go_on() -> None:
    wrong, right = made(8), made(12)  # not in the threads: they are drawn from the one seed of the process

    def fail() -> None:
        for _ in range(3):
            with pytest.raises(cp.errors.CaptureError):
                cp.capture(wrong, torch.ones(1, 2))

    found = at_once([fail, lambda: results(right), fail])
    assert found[1] == results(made(12))


def test_turns_are_taken_and_may_be_entered_again() -> None:
    inside: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with alone(), alone():
            entered.set()
            leave.wait(10)
            inside.append("first")

    def wait() -> None:
        with alone():
            inside.append("second")

    first = threading.Thread(target=hold)
    first.start()
    assert entered.wait(10)
    second = threading.Thread(target=wait)
    second.start()
    assert not inside
    leave.set()
    first.join()
    second.join()
    assert inside == ["first", "second"]
