"""From a model and example inputs to a Graph: record, couple, rehearse, count."""

from __future__ import annotations

import gc
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from compressor.core.alone import alone
from compressor.core.attention import sized
from compressor.core.attributes import bare_norm_sizes, layer_sizes
from compressor.core.coupling import Coupling
from compressor.core.graph import Activation, Graph, Restriction, UnitArray, Work
from compressor.core.nested import output_tensors
from compressor.core.pieces import with_loose_pieces
from compressor.core.plan import Signature
from compressor.core.recurrent_sizes import recurrent_sizes
from compressor.core.rehearsal import read
from compressor.core.restoring import Held
from compressor.core.sizes import Sizes
from compressor.core.specialised import branching_modules
from compressor.core.subject import Subject, check_inputs, check_model
from compressor.core.surgery import signature_of
from compressor.core.tape import Ref, Tape, record
from compressor.core.units import Units
from compressor.errors import CaptureError, SpecializationWarning

__all__ = ["capture"]


def capture(model: nn.Module, *args: Any, **kwargs: Any) -> Graph:
    """The graph of `model(*args, **kwargs)`: what can be removed, together with what, and why not.

    The model is run once in eval mode and is unchanged afterwards, also on failure. Parameters that
    only training reaches (auxiliary heads) are coupled through a second run in training mode.

    Raises ModelError for a model that cannot be pruned (quantised, integer weights, inference
    tensors), InputError for inputs of the wrong kind, CaptureError when the forward fails.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> capture(net, torch.zeros(1, 3, 8, 8))
    Graph(Sequential: 3 operators, 8 units in 1 groups)
    """
    with alone():
        check_model(model)
        check_inputs(model, args, kwargs)
        # Inference mode hides the operators that others are made of.
        with torch.inference_mode(False), _no_collection(), sized(model):
            return _capture(model, args, kwargs)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Within, Python does not look for garbage.

    A capture makes many small objects and drops none until its end; every look for cycles among
    them walks the whole heap, torch included, and finds none.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _capture(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
    before = Held(model)
    tapes = _record(model, args, kwargs, before)
    signature = signature_of(model)

    def build(coupling: Coupling, units: Units, sizes: Sizes) -> Graph:
        return _graph(model, args, kwargs, tapes[0], signature, coupling, units, sizes)

    return read(Subject(model, args, kwargs, before), tapes, build)


# -- recording -----------------------------------------------------------------------------------


def _record(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], before: Held
) -> tuple[Tape, ...]:
    try:
        tape = with_loose_pieces(record(model, args, kwargs, before=before))
    except CaptureError:
        raise
    except Exception as error:
        shapes = [list(leaf.shape) for leaf in output_tensors((args, kwargs))]
        raise CaptureError(
            f"{type(model).__name__} fails on the example inputs of shape {shapes}: "
            f"{type(error).__name__}: {error}. Check that model(*args, **kwargs) runs in eval mode with them"
        ) from error
    _warn_of_branches(tape)
    missing = [
        name for name, tensor in model.named_parameters() if name not in tape.by_name and tensor.numel() > 1
    ]
    if not missing:
        return (tape,)
    try:
        training = with_loose_pieces(record(model, args, kwargs, training=True, before=before))
    except Exception as error:
        warnings.warn(
            f"{len(missing)} parameters ({', '.join(missing[:3])}, …) are not used in eval mode, and the "
            f"training forward fails on the example inputs ({error}); they are not cut, and a training "
            f"forward that uses them may break. An example batch of two may help",
            SpecializationWarning,
            stacklevel=5,
        )
        return (tape,)
    if all(name not in training.by_name for name in missing):
        return (tape,)
    return (tape, training)


def _warn_of_branches(tape: Tape) -> None:
    modules = branching_modules(tape)
    if modules:
        names = ", ".join(repr(name) if name else "the model itself" for name in modules[:3])
        more = f" and {len(modules) - 3} more" if len(modules) > 3 else ""
        warnings.warn(
            f"{names}{more}: forward reads a number that depends on the inputs (`if x.mean() > 0`, "
            f"`.item()`, a loop over a tensor's value). What the graph says holds for the path that the "
            f"example inputs take; where others take another one, capture with an example of each and "
            f"compare what can be removed",
            SpecializationWarning,
            stacklevel=5,
        )


# -- putting together ----------------------------------------------------------------------------


def _graph(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tape: Tape,
    signature: Signature,
    coupling: Coupling,
    units: Units,
    sizes: Sizes,
) -> Graph:
    return Graph(
        model=model,
        args=tuple(args),
        kwargs=dict(kwargs),
        tape=tape,
        signature=signature,
        n_units=units.count,
        axes=units.axes,
        groups=units.groups,
        works=_works(coupling, units),
        activations=_activations(sizes, tape),
        size_rules=(
            *layer_sizes(model, units.axes),
            *bare_norm_sizes(model, tape, sizes.axes),
            *recurrent_sizes(model, units.axes),
        ),
        restrictions=_restrictions(coupling, sizes, tape),
        axes_of=sizes.axes,
        reasons=units.reasons,
    )


def _works(coupling: Coupling, units: Units) -> tuple[Work, ...]:
    return tuple(
        Work(
            fact.op.index,
            fact.op.module,
            fact.op.target,
            fact.coefficient,
            tuple(units.of(ids) for ids in fact.dims),
            fact.divisor,
        )
        for tape, fact in coupling.works
        if tape == 0
    )


def _activations(sizes: Sizes, tape: Tape) -> tuple[Activation, ...]:
    found = []
    for op in tape.ops:
        if op.shares_memory or op.mutated:
            continue
        for out in op.outputs:
            if out is None:
                continue
            meta, axes = tape.values[out], sizes.axes(out)
            fixed = math.prod([n for axis, n in enumerate(meta.shape) if axis not in axes])
            dims: tuple[UnitArray, ...] = tuple(axes.values())
            found.append(Activation(op.index, op.module, op.target, fixed, dims, meta.dtype.itemsize))
    return tuple(found)


def _restrictions(coupling: Coupling, sizes: Sizes, tape: Tape) -> tuple[Restriction, ...]:
    """Operators the reference must run on kept channels, found again by counting calls of a target."""
    wanted = {fact.op.index: fact for number, fact in coupling.restrictions if number == 0}
    calls: dict[str, int] = {}
    found = []
    for op in tape.ops:
        call = calls[op.target] = calls.get(op.target, 0) + 1
        if op.index in wanted:
            fact = wanted[op.index]
            operands = tuple(
                {
                    axis: units
                    for axis, units in (sizes.axes(arg.value) if isinstance(arg, Ref) else {}).items()
                    if axis in fact.axes.get(position, ())
                }
                for position, arg in enumerate(op.args)
            )
            found.append(Restriction(op.target, call, fact.kind, operands))
    return tuple(found)
