"""SynFlow: how much flows through a channel of a network whose weights are all positive."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.core.attention import sized
from compressor.core.graph import Graph
from compressor.core.nested import output_tensors, with_tensors
from compressor.core.reference import Doubling, call_in_double, plainly
from compressor.core.restoring import undisturbed
from compressor.core.surgery import cut_copy
from compressor.core.tape import named_tensors
from compressor.errors import ScoreError
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.gradient_scorer import unit_sums
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, Values
from compressor.scoring.weights import READERS, RolesLike, own_axes, roles_of, spread, weight_axes

__all__ = ["SynFlow", "synaptic_flow"]


@dataclass(frozen=True, repr=False)
class SynFlow(Scorer):
    """Scores a unit by the synaptic flow Σ |∂R/∂θ · θ| through the weights that read it.

    R is the sum of the outputs for an input of ones and weights |θ|; no data is read. Removed a few at a
    time, as in the paper, with scores taken anew (`cp.budget` has the schedules), no layer is cut off
    before all others. In one step the score is that of a single round.

    *Source: H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli, 2020, arXiv 2006.05467,
    algorithm 1.* As in the authors' code: BatchNorm in eval mode, biases as |b|, everything in float64
    (deep networks overflow float32). Departures: sums over units instead of single weights; running
    means count as zero, which they are where the authors prune, at initialisation (the |mean| of a
    trained network would be taken off the flow). Inputs that are not real numbers, such as token ids,
    stay those of the capture. Networks that subtract (LayerNorm) get a score, not
    the paper's theorems; one that ends in a plain LayerNorm sums to the same whatever comes in, and
    raises ScoreError.

    >>> import compressor as cp
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), SynFlow())
    Scores(SynFlow() of Sequential: 3 units in 1 group, ...)
    """

    _: KW_ONLY
    roles: RolesLike = READERS
    reduce: ReduceLike = Reduce.SUM
    normalize: NormalizeLike = Normalize.NONE

    def __post_init__(self) -> None:
        object.__setattr__(self, "roles", roles_of(self.roles))
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """For each slice the flow through its unit."""
        return spread(self.raw_unit_scores(graph), weight_axes(graph, self.roles))

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The flow through each unit [n_units]."""
        axes = own_axes(graph, self.roles)
        flows = synaptic_flow(graph, {axis.tensor for axis in axes})
        return unit_sums(self, graph, axes, flows).numpy()


def synaptic_flow(graph: Graph, names: Collection[str]) -> dict[str, Tensor]:
    """|∂R/∂θ · θ| of the named tensors, in float64 and their shape; R as `SynFlow` says.

    Raises ScoreError where R is not finite, or nothing flows at all.
    """
    positive = _positive(graph.model)
    wanted = {name: tensor for name, tensor in named_tensors(positive).items() if name in names}
    args, kwargs = with_tensors(_ones, (graph.args, graph.kwargs))
    with ExitStack() as stack:
        stack.enter_context(undisturbed(positive, training=False))
        stack.enter_context(sized(positive))
        stack.enter_context(plainly(positive))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(Doubling())
        for tensor in wanted.values():
            tensor.requires_grad_(True)
        result = output_tensors(call_in_double(positive, args, kwargs))
        total = sum((leaf.sum() for leaf in result if leaf.requires_grad), torch.zeros(()))
        if not torch.isfinite(total):
            raise ScoreError(
                f"SynFlow: the flow through {graph.signature.model} is {total.item()} in float64, expected "
                "a finite number; look for NaN or infinite weights"
            )
        found = torch.autograd.grad(total, list(wanted.values()), allow_unused=True) if result else ()
    flows = {
        name: torch.zeros_like(tensor) if gradient is None else (gradient * tensor).detach().abs()
        for (name, tensor), gradient in zip(wanted.items(), found, strict=True)
    }
    if not any(flow.any() for flow in flows.values()):
        raise ScoreError(
            f"SynFlow: nothing flows through {graph.signature.model}, expected positive numbers: some layer "
            "has only zeros, or subtracts all that comes in; score with Norm()"
        )
    return flows


def _ones(value: Tensor) -> Tensor:
    return torch.ones_like(value, dtype=torch.float64) if value.is_floating_point() else value.clone()


def _positive(model: nn.Module) -> nn.Module:
    """A float64 copy in eval mode with every parameter positive and every running mean zero."""
    means = {id(m.running_mean) for m in model.modules() if isinstance(m, _BatchNorm)}

    def convert(tensor: Tensor, _cuts: object) -> Tensor:
        value = tensor.detach().clone()
        if not value.is_floating_point():
            return value.abs().to(value.dtype) if value.is_complex() else value
        value = value.to(torch.float64)
        if id(tensor) in means:
            return torch.zeros_like(value)
        return value.abs() if isinstance(tensor, nn.Parameter) else value

    return cut_copy(model, (), convert).eval()
