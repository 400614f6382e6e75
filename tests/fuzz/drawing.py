"""Random graphs, scores and budgets of every kind, on the random networks that the core is tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

import compressor as cp
from compressor.budget import (
    All,
    Budget,
    Bytes,
    Global,
    Latency,
    Macs,
    Memory,
    OptimalThreshold,
    Params,
    Threshold,
    Uniform,
    by_ratio,
    by_score,
    by_score_per_mac,
)
from compressor.core.graph import Graph
from compressor.profiling import LatencyTable, latency_table
from compressor.scoring import Scores
from tests.core.networks import networks
from tests.core.transformers import Sizes, Transformer, example, sizes
from tests.profiling.latency_table.synthetic import Synthetic

Build = Callable[[], nn.Module]


@dataclass(frozen=True)
class Drawn:
    """A random network: the choices it is made of, what builds it, the same one each time, and its graph."""

    choices: str
    build: Build
    graph: Graph


@dataclass(frozen=True)
class Outcome:
    """What became of an example; `budget` and `plan` where it came to one (of `plan`, the digest)."""

    what: str
    network: str
    budget: str | None = None
    plan: str | None = None


def drawn(data: st.DataObject) -> Drawn:
    """A random convolutional network or, one time in four, a transformer."""
    if data.draw(st.integers(0, 3), label="transformer where 0") == 0:
        numbers = data.draw(sizes())
        graph = cp.capture(_transformer(numbers), example())
        return Drawn(repr(numbers), lambda: _transformer(numbers), graph)
    case = data.draw(networks())
    network, x = case.build()
    return Drawn(repr(case), lambda: case.build()[0], cp.capture(network, x))


def _transformer(numbers: Sizes) -> nn.Module:
    torch.manual_seed(0)
    return Transformer(numbers).eval()


def scores(data: st.DataObject, graph: Graph) -> Scores:
    """Norms, or random numbers with ties and zeros, as scorers give them."""
    if data.draw(st.booleans(), label="norms"):
        return cp.score(graph, cp.scoring.Norm())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16), label="seed of the scores"))
    values = rng.choice([0.0, 1e-12, 0.5, 1.0, 1e9], graph.n_units)
    return Scores(
        graph, np.where(rng.random(graph.n_units) < 0.5, values, rng.random(graph.n_units)), "random"
    )


FRACTIONS = st.floats(0.05, 0.99).map(lambda value: round(value, 3))
RATIOS = st.floats(0.01, 0.95).map(lambda value: round(value, 3))


def budgets(data: st.DataObject, graph: Graph) -> Budget:
    """A budget of any kind with any limits."""
    limits = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "max_ratio": st.floats(0.1, 1.0),
                "min_channels": st.integers(1, 5),
                "round_to": st.sampled_from([1, 2, 4, 8]),
                "ignore": st.sampled_from([(nn.Linear,), (nn.Conv2d,), ()]),
                "ratios": st.sampled_from([{}, {"*": 0.3}, {"*": 0.0}]),
            },
        ),
        label="limits",
    )
    if data.draw(st.integers(0, 2), label="without limits where not 0"):
        limits = {}
    order = data.draw(st.sampled_from([by_score, by_ratio, by_score_per_mac]), label="order")
    parts = [Macs, Params, Bytes, Memory]
    kinds: dict[str, Callable[[], Budget]] = {
        "uniform": lambda: Uniform(data.draw(RATIOS), **limits),
        "global": lambda: Global(data.draw(RATIOS), **limits),
        **{
            kind.__name__: lambda kind=kind: kind(data.draw(FRACTIONS), order=order, **limits)
            for kind in parts
        },
        "all": lambda: All(
            [kind(data.draw(FRACTIONS)) for kind in data.draw(st.permutations(parts))[:2]],
            order=order,
            **limits,
        ),
        "threshold": lambda: Threshold(data.draw(st.floats(-1.0, 2.0)), **limits),
        "optimal threshold": lambda: OptimalThreshold(data.draw(st.floats(1e-6, 0.5)), **limits),
        "latency": lambda: Latency(data.draw(FRACTIONS), _table(graph), **limits),
    }
    return kinds[data.draw(st.sampled_from(sorted(kinds)), label="kind")]()


def _table(graph: Graph) -> LatencyTable:
    with TemporaryDirectory() as folder:
        return latency_table(graph, runtime=Synthetic(block=4), path=Path(folder) / "table.json")
