"""Properties that hold for every network: on random ones, dozens in CI and a thousand in the long run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.core.capture import capture
from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.core.verify import verify
from compressor.profiling import activation_bytes, macs, params
from tests.core.driver import random_removal
from tests.core.networks import Case, networks

QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SEEDS = st.integers(0, 2**16)
LONG = settings(QUICK, max_examples=1000)


def assert_trainable(model: nn.Module, x: torch.Tensor) -> None:
    model.train()
    outputs = model(x)
    sum(t.square().mean() for t in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    model.eval()


def exact(case: Case, seed: int) -> None:
    net, x = case.build()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = capture(net, x)
    removed = random_removal(graph, seed)
    plan = graph.plan(removed)
    small = apply(net, plan)
    report = verify(net, small, plan, x, graph=graph)
    assert report.error <= 1e-9
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    with torch.no_grad():
        small(torch.cat([x, x[:1]]))
    assert_trainable(small, x)
    assert Plan.from_json(plan.to_json()) == plan
    again = capture(small, x)
    nothing = np.zeros(again.n_units, dtype=bool)
    costs = [macs, params]
    # Reshaping an axis of length one needs no copy, so that a narrow model may run fewer operators.
    if [op.target for op in again.tape.ops] == [op.target for op in graph.tape.ops]:
        costs.append(activation_bytes)
    for cost in costs:
        assert cost(graph).total(removed) == cost(again).total(nothing)


@given(networks(), SEEDS)
@example(Case(2, ("padded", "shuffle"), 1), 0)
@QUICK
def test_every_legal_removal_is_exact(case: Case, seed: int) -> None:
    exact(case, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(networks(), SEEDS)
@LONG
def test_every_legal_removal_is_exact_in_the_long_run(case: Case, seed: int) -> None:
    exact(case, seed)


@given(networks(), SEEDS)
@settings(QUICK, max_examples=20)
def test_two_plans_in_a_row_are_one_plan(case: Case, seed: int) -> None:
    net, x = case.build()
    graph = capture(net, x)
    first = graph.plan(random_removal(graph, seed))
    halfway = apply(net, first)
    later = capture(halfway, x)
    second = later.plan(random_removal(later, seed + 1))
    step_by_step, at_once = apply(halfway, second), apply(net, second.after(first))
    for (name, a), (_, b) in zip(
        step_by_step.state_dict().items(), at_once.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


@given(networks())
@settings(QUICK, max_examples=15)
def test_a_plan_that_removes_nothing_changes_nothing(case: Case) -> None:
    net, x = case.build()
    graph = capture(net, x)
    plan = graph.plan(np.zeros(graph.n_units, dtype=bool))
    assert not plan.cuts and not plan.sizes
    with torch.no_grad():
        for a, b in zip(_outputs(net, x), _outputs(apply(net, plan), x), strict=True):
            assert torch.equal(a, b)


def _outputs(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    out = model(x)
    return out if isinstance(out, tuple) else (out,)


@given(networks(), st.integers(1, 3))
@settings(QUICK, max_examples=15)
def test_units_do_not_depend_on_the_example_batch(case: Case, batch: int) -> None:
    net, x = case.build()
    one, other = capture(net, x), capture(net, x[:1].repeat(batch, *[1] * (x.dim() - 1)))
    assert one.n_units == other.n_units
    for a, b in zip(one.axes, other.axes, strict=True):
        assert (a.tensor, a.axis, a.role) == (b.tensor, b.axis, b.role)
        assert np.array_equal(a.units, b.units)
