"""Random transformers: every legal removal of heads, dims and widths is exact, and faults are caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Cut, Plan
from compressor.core.surgery import apply
from compressor.core.verify import verify
from compressor.errors import VerifyError
from tests.core.driver import random_removal
from tests.core.transformers import Sizes, example, sizes, transformer

QUICK = settings(deadline=None, max_examples=15)
SEEDS = st.integers(0, 999)


def exact(numbers: Sizes, seed: int) -> None:
    graph = transformer(numbers)
    removed = random_removal(graph, seed)
    if seed % 2:
        # Some groups stay whole: forward may take the length of one axis from another that was cut.
        for group in graph.groups[seed % 3 :: 2]:
            removed[np.concatenate(group.cells)] = False
    plan, x = graph.plan(removed), example()
    small = apply(graph.model, plan)
    assert verify(graph.model, small, plan, x, graph=graph).error <= 1e-9
    assert Plan.from_json(plan.to_json()) == plan
    small(torch.cat([x, x.flip(1), x])).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
    capture(small, x)


@given(sizes(), SEEDS)
@QUICK
def test_every_legal_removal_is_exact(numbers: Sizes, seed: int) -> None:
    exact(numbers, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@given(sizes(), SEEDS)
@settings(deadline=None, max_examples=400)
def test_every_legal_removal_is_exact_in_the_long_run(numbers: Sizes, seed: int) -> None:
    exact(numbers, seed)


def with_fault(graph: Graph, plan: Plan, generator: np.random.Generator) -> Plan | None:
    """The plan with another channel in place of one, in a cut of an axis with heads."""
    split = {(axis.tensor, axis.axis) for axis in graph.axes if axis.units.ndim == 2}
    places = [i for i, cut in enumerate(plan.cuts) if (cut.tensor, cut.axis) in split]
    if not places:
        return None
    position = int(generator.choice(places))
    cut: Cut = plan.cuts[position]
    keep = set(cut.keep) - {cut.keep[int(generator.integers(len(cut.keep)))]}
    keep.add(cut.removed[int(generator.integers(len(cut.removed)))])
    wrong = replace(cut, keep=tuple(sorted(keep)))
    return replace(plan, cuts=(*plan.cuts[:position], wrong, *plan.cuts[position + 1 :]))


@given(sizes(), SEEDS)
@QUICK
def test_one_wrong_channel_of_a_head_is_caught(numbers: Sizes, seed: int) -> None:
    graph = transformer(numbers)
    plan = graph.plan(random_removal(graph, seed))
    wrong = with_fault(graph, plan, np.random.default_rng(seed))
    if wrong is not None:
        with pytest.raises(VerifyError):
            verify(graph.model, apply(graph.model, wrong), wrong, example(), graph=graph)


def test_units_do_not_depend_on_the_example_batch() -> None:
    for kind in ("apart", "packed", "torch"):
        graph = transformer(Sizes(kind=kind))
        other = capture(graph.model, example().repeat(3, 1, 1))
        for a, b in zip(graph.axes, other.axes, strict=True):
            assert (a.tensor, a.axis, a.role) == (b.tensor, b.axis, b.role)
            assert np.array_equal(a.units, b.units)
