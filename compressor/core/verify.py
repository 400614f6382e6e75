"""Proof that a pruned model computes what its plan says.

The reference is the original model in which every *reader* of a removed channel is silenced: its
input slices are zero. (Zeroing writers would not be exact: sigmoid(0) is not 0.) Both models are
copied to float64 and given the same scrambled weights first, because a freshly initialised network
hides wrong cuts behind constant BatchNorm vectors. Norms and reductions over cut axes are run on the
kept channels in the reference: the tolerance is never loosened. Not only the outputs are compared but
every product on the way, so that a fault is found however little of it arrives at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree

from compressor.core.alone import alone
from compressor.core.attention import sized
from compressor.core.capture import capture
from compressor.core.divergence import first_divergence, relative_error
from compressor.core.doubles import as_double, copies, scrambled, settle_norms, silence_readers, with_weights
from compressor.core.graph import Graph, Mask
from compressor.core.layerwise import Sums, difference, products_of
from compressor.core.plan import Plan
from compressor.core.reference import Doubling, Restricted, call_in_double, plainly
from compressor.core.surgery import apply, check_plan, signature_of
from compressor.core.tape import output_tensors, undisturbed
from compressor.errors import InputError, VerifyError

__all__ = ["TOLERANCE", "Report", "verify"]

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Report:
    """The outcome of a successful verification.

    `error` is the largest difference between the outputs relative to the largest output, or between
    the results of one of the `layers` (products such as convolutions, compared on the channels that
    stay) relative to their norm, whichever is larger.
    `statistics` counts operators (norms, reductions) whose statistics now run over fewer channels, so
    that kept channels see other values than in the unpruned model.
    """

    error: float
    outputs: int
    statistics: int
    layers: int

    def __str__(self) -> str:
        over = f"{self.outputs} output(s) and {self.layers} layer(s)"
        text = f"verified: relative error {self.error:.1e} over {over} in float64"
        if self.statistics:
            text += f"; {self.statistics} operator(s) take statistics over the kept channels only"
        return text


def verify(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    *args: Any,
    graph: Graph | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    **kwargs: Any,
) -> Report:
    """A report that `small` is `model` cut as `plan` says, and computes what it should.

    `args` and `kwargs` are example inputs. `graph` saves capturing the model again. Weights of
    `small` may have been trained since: what is proved is its structure; the cut itself is proved on
    scrambled weights. Both models are unchanged afterwards.

    Raises VerifyError with the first diverging module, PlanMismatchError, or InputError where an example
    input holds NaN: nothing could be compared behind it. The one plan of several prunings may remove what no
    single pruning could, and is then refused: see `removed_units`.
    """
    with alone():
        return _verified(model, small, plan, args, kwargs, graph, tolerance, seed)


def _verified(
    model: nn.Module,
    small: nn.Module,
    plan: Plan,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    graph: Graph | None,
    tolerance: float,
    seed: int,
) -> Report:
    check_plan(model, plan)
    _check_numbers(args, kwargs)
    mismatch = plan.result.first_mismatch(signature_of(small))
    if mismatch is not None:
        raise VerifyError(f"the pruned model is not what the plan makes of the original: {mismatch}")
    was_given = graph is not None and graph.model is model
    if graph is None or graph.model is not model:
        graph = capture(model, *args, **kwargs)
    removed = removed_units(graph, plan)
    proof = _Proof(model, small, plan, args, kwargs, graph, removed, was_given, tolerance, seed)
    try:
        return proof.run(settled=False)
    except VerifyError:
        if not any(isinstance(module, _BatchNorm) for module in model.modules()):
            raise
    # Scrambled statistics can make a deep network chaotic: rounding errors grow from layer to layer. A wrong
    # cut fails with statistics that fit, too.
    return proof.run(settled=True)


def _check_numbers(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    for place, value in (*enumerate(args), *kwargs.items()):
        for tensor in _pytree.tree_leaves(value):
            if isinstance(tensor, Tensor) and tensor.isnan().any():
                count = int(tensor.isnan().sum())
                raise InputError(
                    f"example input {place!r}: {count} of its {tensor.numel()} numbers are NaN, which hides "
                    f"every difference behind it; give numbers as the model meets them"
                )


@dataclass(frozen=True, eq=False)
class _Proof:
    """The numeric half of the proof, on scrambled copies of both models."""

    model: nn.Module
    small: nn.Module
    plan: Plan
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    graph: Graph
    removed: Mask
    was_given: bool
    tolerance: float
    seed: int

    def run(self, *, settled: bool) -> Report:
        """The report; `settled` gives batch norms statistics that fit what reaches them."""
        plan, graph, removed, tolerance = self.plan, self.graph, self.removed, self.tolerance
        args, kwargs = as_double((self.args, self.kwargs))
        with torch.random.fork_rng(devices=[]):
            generator = torch.Generator("cpu").manual_seed(self.seed)
            full = scrambled(self.model, generator)
            if settled:
                settle_norms(full, *copies(args, kwargs), generator)
        wide = apply(full, replace(plan, signature=signature_of(full)))
        double = with_weights(self.small, wide)
        silence_readers(full, plan.cuts)
        layers = products_of(graph, removed)
        wide_sums, small_sums = Sums(layers), Sums()
        reference = Restricted(graph.restrictions, removed, wide_sums)
        # Only in plain kernels are the operators those that were recorded.
        with sized(full), plainly(full), reference:
            expected = _run(full, args, kwargs, "the original model")
        if self.was_given and reference.strays_from(graph.tape):
            # A loop over the inputs takes more steps, or fewer, than when the graph was captured.
            return verify(
                self.model,
                self.small,
                plan,
                *self.args,
                tolerance=tolerance,
                seed=self.seed,
                **self.kwargs,
            )
        with Doubling(small_sums):
            found = _run(double, args, kwargs, "the pruned model")
        if small_sums.calls != wide_sums.calls:
            small_sums = Sums()
            with plainly(double), Doubling(small_sums):
                _run(double, args, kwargs, "the pruned model")
        inner = difference(layers, wide_sums, small_sums, tolerance)
        error = max(relative_error(expected, found), inner.error)
        if not error <= tolerance:
            with sized(full):
                where = first_divergence(graph, removed, full, double, args, kwargs, tolerance)
            if inner.first is not None and "diverges" not in where:
                where = f"the first layer that diverges is {inner.first!r}; {where}"
            raise VerifyError(
                f"the pruned model differs from the plan by {error:.2e} (relative, float64; allowed "
                f"{tolerance:.0e}); {where}"
            )
        return Report(error, len(expected), reference.used, inner.compared)


def removed_units(graph: Graph, plan: Plan) -> Mask:
    """Which units [n_units] the plan removes; raises VerifyError where no removal of the graph is the plan.

    This is the structural half of the proof: every site of a unit goes, or none, and equally many of each
    cell of a group. The one plan of two prunings need not be such a removal: where the first left one channel
    for each group of a convolution, the second may remove whole groups.
    """
    cuts = {(cut.tensor, cut.axis): cut for cut in plan.cuts}
    flags = []
    stays = np.zeros(graph.n_units + 1, dtype=bool)
    for axis in graph.axes:
        away = np.zeros(axis.size, dtype=bool)
        cut = cuts.pop((axis.tensor, axis.axis), None)
        if cut is not None:
            away[list(cut.removed)] = True
        if not axis.free[away].all():
            index = int(np.flatnonzero(away & ~axis.free)[0])
            why = "; ".join(graph.reasons.get((axis.tensor, axis.axis), ("no reason known",)))
            raise VerifyError(f"the plan cuts {axis.tensor!r} axis {axis.axis} at {index}, pinned: {why}")
        stays[axis.units[..., ~away]] = True
        flags.append(away)
    if cuts:
        tensor, number = next(iter(cuts))
        raise VerifyError(f"the plan cuts {tensor!r} axis {number}, which the graph does not know")
    # A unit goes when all that it takes away goes.
    removed = ~stays[:-1]
    for axis, away in zip(graph.axes, flags, strict=True):
        wrong = axis.gone(removed) != away
        if wrong.any():
            raise VerifyError(
                f"the plan cuts {axis.tensor!r} axis {axis.axis} at index "
                f"{int(np.flatnonzero(wrong)[0])} otherwise than what depends on it elsewhere{_SEVERAL}"
            )
    for group in graph.groups:
        counts = sorted({int(removed[cell].sum()) for cell in group.cells})
        if len(counts) > 1:
            raise VerifyError(
                f"the plan removes {' and '.join(map(str, counts))} units of the cells of {group}, which "
                f"lose equally many{_SEVERAL}"
            )
    return removed


_SEVERAL = (
    ". If it is the one plan of several prunings, a later one may have removed what only the model that it "
    "started from could lose: verify each against the model that it started from"
)


def _run(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], who: str) -> list[Tensor]:
    args, kwargs = copies(args, kwargs)
    try:
        with undisturbed(model, training=False), torch.no_grad():
            result = call_in_double(model, args, kwargs)
    except Exception as error:
        raise VerifyError(
            f"{who} cannot run on the example inputs in float64: {type(error).__name__}: {error}"
        ) from error
    return [t for t in output_tensors(result) if t.is_floating_point() or t.is_complex()]
