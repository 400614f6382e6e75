"""Where a constant goes in a network that has lost its writers: a bias, a mean, or a new bias."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.core.batch_norms import sole_norms
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.tape import Op, Tape, named_tensors, references
from compressor.errors import ModelError
from compressor.recovery.constants import Constant

__all__ = ["Folding"]


class Folding:
    """Adds constants to what readers of `small` write: `model` cut by `plan`, with the names of the graph."""

    def __init__(self, small: nn.Module, plan: Plan, graph: Graph, model: nn.Module) -> None:
        self._small, self._plan, self._tape = small, plan, graph.tape
        self._names = {id(tensor): name for name, tensor in named_tensors(model).items()}
        self._users = _users(graph.tape)
        self._norms = sole_norms(graph.tape)

    @torch.no_grad()
    def add_(self, constant: Constant) -> str:
        """Add the constant to what its reader writes, and say where it went.

        To the bias that the reader has; else it is taken from the mean of the batch norm that alone reads
        the result; else the reader gets a bias. Raises ModelError where there is no such place.
        """
        kept = _kept(constant, self._plan)
        tensors = named_tensors(self._small)
        if constant.bias is not None:
            name = self._names.get(id(constant.bias))
            if name is None:
                raise ModelError(
                    f"{constant.reader!r} is used with a bias that is computed: the constant of its removed "
                    f"channels has no place; train the shifts to zero, too (MaskSparsity(shift=Decay(steps)))"
                )
            tensors[name].add_(kept.to(tensors[name]))
            return name
        mean = self._mean_after(constant.reader)
        if mean is not None:
            tensors[mean].sub_(kept.to(tensors[mean]))
            return mean
        return _new_bias_(self._small, constant, kept)

    def _mean_after(self, reader: str) -> str | None:
        """The running mean of the batch norm that alone reads what the reader writes, in its only call."""
        value = self._tape.by_name.get(reader)
        product = None if value is None else self._only_user(value)
        while product is not None and product.is_view:  # the transposed weight of a matrix
            product = self._only_user(_result(product))
        written = None if product is None else _result(product)
        norm = None if written is None else self._norms.get(written)
        if norm is None or norm.args[3] is None or len(self._users[norm.args[3].value]) > 1:
            return None
        return self._tape.values[norm.args[3].value].name or None

    def _only_user(self, value: int | None) -> Op | None:
        """The one operator that takes a value; None where there are more, or none."""
        taking = self._users.get(value, []) if value is not None else []
        return taking[0] if len(taking) == 1 else None


def _kept(constant: Constant, plan: Plan) -> Tensor:
    """The constant for the outputs that stay."""
    for cut in plan.cuts:
        if cut.tensor == constant.reader and cut.role == "writer" and cut.size == len(constant.added):
            return constant.added[list(cut.keep)]
    return constant.added


def _new_bias_(small: nn.Module, constant: Constant, kept: Tensor) -> str:
    path, _, _ = constant.reader.partition(".parametrizations.")
    if path == constant.reader:
        path = constant.reader.rpartition(".")[0]
    module = small.get_submodule(path)
    weight = named_tensors(small)[constant.reader]
    holders = [m for m in small.modules() if any(p is weight for p in m._parameters.values())]
    if "bias" not in module._parameters or len(holders) > 1:
        raise ModelError(
            f"{constant.reader!r} is used without a bias, and its module ({type(module).__name__}) has no "
            f"place for one: the constant of its removed channels cannot be folded; train the shifts to "
            f"zero, too (MaskSparsity(shift=Decay(steps)))"
        )
    module.bias = nn.Parameter(kept.to(weight))
    return f"{path}.bias" if path else "bias"


def _users(tape: Tape) -> Mapping[int, list[Op]]:
    """The operators that take each value."""
    found: dict[int, list[Op]] = {}
    for op in tape.ops:
        for value in set(references((op.args, tuple(op.kwargs.values())))):
            found.setdefault(value, []).append(op)
    return found


def _result(op: Op) -> int | None:
    return op.outputs[0] if op.outputs and not op.mutated else None
