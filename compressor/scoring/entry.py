"""The one function that runs a scorer on a graph."""

from __future__ import annotations

import torch

from compressor.core.alone import alone
from compressor.core.graph import Graph, require_graph
from compressor.errors import InputError
from compressor.observing.processes import Processes, across
from compressor.scoring.base import Scorer
from compressor.scoring.scores import Scores
from compressor.scoring.weight_function import WeightFunction, WeightScore

__all__ = ["score"]


def score(graph: Graph, scorer: Scorer | WeightScore, *, processes: Processes | None = None) -> Scores:
    """The scores of all units of `graph`; the model is left as it is.

    `scorer` is a Scorer, or a function of (weight, axis) that returns one number for each channel
    along that axis: see `WeightFunction`. Where torch.distributed runs several processes, a scorer that
    reads batches must be told whose count: "all" (every process scores its own share of the data, and all
    get the same scores) or those of "this" process. Raises ScoreError where the numbers are not finite, not
    as many as channels, or leave a unit without a score.

    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> graph = cp.capture(net, torch.ones(1, 4))
    >>> score(graph, lambda weight, axis: weight.abs().transpose(0, axis).flatten(1).amax(1))
    Scores(WeightFunction(function=<lambda>) of Sequential: 3 units in 1 group, ...)
    """
    require_graph("score", graph)
    chosen = scorer if isinstance(scorer, Scorer) else _from_function(scorer)
    with alone(), torch.inference_mode(False), torch.no_grad(), across(processes):
        return Scores(graph, chosen.unit_scores(graph), repr(chosen))


def _from_function(function: WeightScore) -> WeightFunction:
    if isinstance(function, type):
        raise InputError(
            f"the scorer is the class {function.__name__}, expected an object of it: write "
            f"{function.__name__}(…)"
        )
    return WeightFunction(function)
