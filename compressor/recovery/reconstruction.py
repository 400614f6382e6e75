"""Reconstruction: the layers of a pruned model fitted anew to what the original computes, layer by layer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from compressor.core.plan import Plan
from compressor.core.surgery import plan_of, signature_of
from compressor.core.tape import named_tensors
from compressor.errors import InputError, PlanMismatchError, RecoveryError
from compressor.observing import (
    Followed,
    LayerCall,
    NormalEquations,
    Places,
    Sums,
    across,
    inputs_at,
    loaded,
    n_places,
    outputs_at,
    running,
)
from compressor.observing.batches import check_max_batches, device_of
from compressor.observing.processes import Processes
from compressor.recovery.passes import Held, Passes, Repeated
from compressor.recovery.ridge import ridge as solve
from compressor.recovery.survey import Survey, Target, keep_of, survey
from compressor.recovery.weights import as_matrix, as_weight

__all__ = ["LayerFit", "Reconstructed", "Reconstruction", "reconstruct_"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LayerFit:
    """How far a layer is from what it should write, as a share of its target's variance."""

    weight: str
    before: float
    after: float

    def __str__(self) -> str:
        return f"{self.weight}: {self.before:.4f} -> {self.after:.4f}"


@dataclass(frozen=True)
class Reconstructed:
    """What a reconstruction did: the layers it fitted, in order, and why others were left as they were."""

    layers: tuple[LayerFit, ...]
    left: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.layers)} layers fitted (unexplained share of the target, before and after)"]
        lines += [f"  {layer}" for layer in self.layers]
        return "\n".join(lines + [f"  {name} left as it was: {why}" for name, why in self.left.items()])


@dataclass(frozen=True)
class Reconstruction:
    """`reconstruct_` with its options, for `prune(..., recover=Reconstruction(batches))`."""

    batches: Iterable[object] = field(repr=False)
    ridge: float = field(default=1e-2, kw_only=True)
    places: int | None = field(default=128, kw_only=True)
    max_inputs: int = field(default=8192, kw_only=True)
    max_batches: int | None = field(default=None, kw_only=True)
    hold: bool = field(default=False, kw_only=True)
    processes: Processes | None = field(default=None, kw_only=True)
    progress: Callable[[int, int], None] | None = field(default=None, kw_only=True, repr=False)

    def __call__(self, small: nn.Module, original: nn.Module, plan: Plan) -> Reconstructed:
        """Fit `small` in place, see `reconstruct_`."""
        return reconstruct_(
            small,
            original,
            self.batches,
            plan=plan,
            ridge=self.ridge,
            places=self.places,
            max_inputs=self.max_inputs,
            max_batches=self.max_batches,
            hold=self.hold,
            processes=self.processes,
            progress=self.progress,
        )


def reconstruct_(
    small: nn.Module,
    original: nn.Module,
    batches: Iterable[object],
    *,
    plan: Plan | None = None,
    ridge: float = 1e-2,
    places: int | None = 128,
    max_inputs: int = 8192,
    max_batches: int | None = None,
    hold: bool = False,
    processes: Processes | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reconstructed:
    """Fit the weights of a pruned model anew, so that its layers write what the original's wrote.

    Layer by layer, in the order of the forward pass: the weights (and bias) of each convolution and
    matrix behind the first cut become the least-squares solution from what the layer reads *now*, in the
    pruned model with all earlier layers fitted, to what the same layer writes in the original, on the
    channels that stayed. Where the output is added to something (a residual stream), the target is that of
    the sum: the error that the stream carries so far is made up for, too. No labels, no gradients.

    `batches` are a few hundred examples, in the form `Taylor` reads; they are run through once for each
    layer, each pass up to that layer only, and no more than one batch is held. With `hold` all batches pass
    through the models once, side by side: as many times faster as there are layers to fit, for the memory
    of one forward pass of all examples together; RecoveryError where a weight is used more than once in a
    pass.

    `plan` leads from `original` to `small`; where it is not given it is that which `plan_of` knows. `ridge`
    is the pull towards the weights as they are, relative to the mean square of a layer's inputs: fewer
    examples need more. `places` of each example, drawn with a fixed seed, enter the sums (None: all).
    Layers with more than `max_inputs` inputs (channels times taps) are left, as the sums have that many
    rows and columns. `processes` is "all" where every process of a run fits the same model to its own share
    of the data, see `score`. `progress` gets how many steps are done and how many there are.

    Both models run in eval mode. A layer without a bias in front of a batch norm hands its intercept to the
    running mean. Batch norms keep their statistics otherwise: what they read is what they read before.

    Raises PlanMismatchError where the plan does not join the models, InputError for batches of the wrong
    kind, RecoveryError for activations that are not finite or equations that cannot be solved; `small` is
    then as it was.

    *Source: least squares after channel pruning: Y. He, X. Zhang, J. Sun, 2017, arXiv 1707.06168, section
    3.1 (there with the input of the original); J.-H. Luo, J. Wu, W. Lin, 2017, arXiv 1707.06342, section
    3.2.3. Targets of the sum for multi-branch networks: He et al., section 3.3.* Departures: all layers
    behind the cut are fitted, not only those that lost inputs, and around their weights.

    >>> import compressor as cp
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))  # no activation: 4 channels are enough
    >>> x = torch.randn(64, 4)
    >>> small = cp.prune(net, x, budget=cp.budget.Uniform(0.5))
    >>> done = reconstruct_(small, net, [x], ridge=1e-8)
    >>> torch.allclose(small(x), net(x), atol=1e-3)
    True
    """
    options = _checked(small, original, batches, plan, ridge, max_batches)
    device = device_of(small)
    fits: list[LayerFit] = []
    values: dict[str, Tensor] = {}
    with ExitStack() as stack:
        stack.enter_context(across(processes))
        contents = [(model, stack.enter_context(running(model))) for model in (original, small)]
        again = partial(loaded, batches, device, max_batches=max_batches)
        found = survey(small, options, next(again()), max_inputs=max_inputs)
        for name, reason in found.left.items():
            log.warning("%s is left as it was: %s", name, reason)
        passes: Passes = Repeated(original, small, again)
        if hold:
            _check_held(found)
            for model, held in contents:
                held.keep(model.buffers())  # passes are threads of their own, whose writes are not seen
            passes = stack.enter_context(Held(original, small, again()).open())
        for number, step in enumerate(found.steps, start=1):
            tensors = named_tensors(small)
            for fit in _summed(passes, step, options, Places(places)):
                fitted, changes = fit.solved(ridge)
                fits.append(fitted)
                log.info("%s", fitted)
                for name, value in changes.items():
                    values[name] = value.to(tensors[name].dtype)
                    tensors[name].copy_(values[name])
            passes.fitted()
            if progress is not None:
                progress(number, len(found.steps))
    tensors = named_tensors(small)
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)
    return Reconstructed(tuple(fits), found.left)


def _checked(
    small: nn.Module,
    original: nn.Module,
    batches: Iterable[object],
    plan: Plan | None,
    ridge: float,
    max_batches: int | None,
) -> Plan:
    """The plan, once everything that can be checked before a forward pass has been."""
    if isinstance(batches, Iterator):
        raise InputError(
            f"batches are run through once for every layer, and a {type(batches).__name__} can be run "
            "through only once; pass a list or a DataLoader"
        )
    if isinstance(batches, Sized) and len(batches) == 0:
        raise InputError("batches gave no batch, expected at least one; is the data set empty?")
    if not ridge > 0:
        raise InputError(f"ridge must be above 0, got {ridge!r}; 1e-2 suits most data")
    check_max_batches(max_batches)
    known = plan if plan is not None else plan_of(small)
    if known is None:
        raise InputError(
            "it is not known which plan made this model (it is a copy, say); give it: "
            "reconstruct_(small, original, batches, plan=plan)"
        )
    for model, expected, role in (
        (original, known.signature, "original"),
        (small, known.result, "pruned model"),
    ):
        mismatch = expected.first_mismatch(signature_of(model))
        if mismatch is not None:
            raise PlanMismatchError(f"the {role} does not fit the plan: {mismatch}")
    if device_of(small) != device_of(original):
        raise InputError(
            f"the pruned model is on {device_of(small)}, the original on {device_of(original)}; move one of "
            "them"
        )
    return known


class _Fit:
    """The sums of one layer, and what follows from them."""

    def __init__(self, target: Target, plan: Plan) -> None:
        self._target = target
        self._plan = plan
        self._sums = Sums()
        self._call: LayerCall | None = None
        self._mean: Tensor | None = None

    def add(self, original: Followed, small: Followed, at: Places, index: int) -> None:
        """Take a pair of calls into the sums."""
        call = small.call
        examples, count = n_places(call)
        if not examples:
            return  # a batch without an example adds nothing
        self._call = call
        if n_places(original.call) != (examples, count):
            raise RecoveryError(
                f"{call.weight!r}: {n_places(original.call)} examples and places in the original, "
                f"{(examples, count)} in the pruned model; do the two run alike?"
            )
        written = original.call.output
        # Where a weight is called twice, what its output is added to may be its own.
        summed = original.other is not None and small.other is not None and self._target.calls == 1
        if summed and original.other is not None:
            written = written + original.carried_back(original.other)
        keep = keep_of(self._plan, call, written.device)
        if keep is not None:
            written = written.index_select(call.channel_dim, keep)
        if summed and small.other is not None:
            written = written - small.carried_back(small.other)
        if original.statistics is not None:
            self._mean = original.statistics if keep is None else original.statistics[keep]
        places = at.draw(examples, count, written.device)
        x, y = inputs_at(call, places), outputs_at(call, written, places)
        for what, rows in (("reads", x), ("should write", y)):
            if not torch.isfinite(rows).all():
                raise RecoveryError(
                    f"batch {index}: what {call.weight!r} {what} is not finite; look for NaN in the batch or "
                    "the weights"
                )
        self._sums.add(x, y)

    def solved(self, strength: float) -> tuple[LayerFit, dict[str, Tensor]]:
        """How good the fit is, and the new values by tensor name."""
        call, target = self._call, self._target
        if call is None:
            raise RecoveryError(f"{target.weight!r} saw no example of any batch but the first")
        equations = self._sums.equations(intercept=target.intercept is not None)
        old = as_matrix(call).to(equations.xx.dtype)
        new = solve(equations, strength, around_GKO=old, where=repr(target.weight))
        changes = {target.weight: as_weight(new, call)}
        if target.intercept is not None:
            shift = (equations.y - torch.einsum("gko,gk->go", new, equations.x)).flatten()
            is_bias = self._mean is None or call.bias is not None
            changes[target.intercept] = shift if is_bias else self._mean - shift  # type: ignore[operator]
        fit = LayerFit(target.weight, _unexplained(equations, old), _unexplained(equations, new))
        return fit, changes


def _summed(passes: Passes, step: tuple[Target, ...], plan: Plan, at: Places) -> list[_Fit]:
    """The sums of the step's layers over all batches."""
    fits = {target.weight: _Fit(target, plan) for target in step}
    for index, (theirs, ours) in enumerate(passes.calls(step)):
        for name, fit in fits.items():
            if len(theirs[name]) != len(ours[name]):
                raise RecoveryError(
                    f"batch {index}: {name!r} is called {len(theirs[name])} times in the original and "
                    f"{len(ours[name])} times in the pruned model; a forward that branches on values cannot "
                    "be reconstructed"
                )
            for one, other in zip(theirs[name], ours[name], strict=True):
                fit.add(one, other, at, index)
    return list(fits.values())


def _check_held(found: Survey) -> None:
    several = [target for step in found.steps for target in step if target.calls > 1]
    if several:
        raise RecoveryError(
            f"{several[0].weight!r} is called {several[0].calls} times in one forward pass, so no pass can "
            "wait until it is fitted; leave hold=False"
        )


def _unexplained(equations: NormalEquations, weights_GKO: Tensor) -> float:
    """The share of the target's variance that the weights leave unexplained."""
    inner = equations.xx @ weights_GKO
    error = equations.yy.sum() - (2 * equations.xy * weights_GKO).sum() + (weights_GKO * inner).sum()
    whole = equations.yy.sum()
    return float(error.clamp(min=0) / whole) if whole > 0 else 0.0
