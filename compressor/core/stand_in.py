"""A forward on shapes alone: tensors on the meta device, and answers in place of arithmetic.

The meta kernels of many operators are written in Python and cost more than the arithmetic they
replace. Where an operator takes no size from the model and its operands have the shapes that the
labels demand, its result has, too, so it need not run at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.core.plan import Plan
from compressor.core.recurrent import relisted
from compressor.core.sizes import Mask, Sizes, steps
from compressor.core.surgery import set_sizes
from compressor.core.tape import Op, Ref, Tape, named_tensors

__all__ = ["Answers", "disguised"]

# Operators without size arguments, or whose size arguments `Sizes.arguments` compares.
_ANSWERED = frozenset(
    f"aten.{name}"
    for name in (
        "native_batch_norm.default",
        "native_layer_norm.default",
        "native_group_norm.default",
        "convolution.default",
        "max_pool2d_with_indices.default",
        "avg_pool2d.default",
        "_adaptive_avg_pool2d.default",
        "mean.dim",
        "addmm.default",
        "mm.default",
        "bmm.default",
        "hardswish.default",
        "hardswish_.default",
        "_softmax.default",
        "cat.default",
    )
)


class Answers:
    """A `StandIn` for one tape under one removal."""

    def __init__(self, tape: Tape, sizes: Sizes, padded: Mask) -> None:
        self._tape, self._sizes, self._padded = tape, sizes, padded
        self._steps = iter(steps(tape))

    def __call__(self, _index: int, target: str, args: tuple[Any, ...]) -> Any:
        """The result of the next operator, or None where it has to run."""
        if target == "aten.clone.default":
            return None
        op = next(self._steps, None)
        if op is None:
            return None
        if target != op.target or not (op.is_pointwise or target in _ANSWERED):
            return None
        if not self._as_expected(op.args, args):
            return None
        if op.mutated and op.outputs[0] == op.mutated[0][1]:
            return args[0] if op.args[0] == Ref(op.mutated[0][0]) else None
        results = tuple(self._empty(op, out) for out in op.outputs)
        return results if len(results) > 1 else results[0]

    def _as_expected(self, refs: Any, args: Any) -> bool:
        """Whether every operand is a meta tensor of the shape that the removal leaves."""
        if len(refs) != len(args):
            return False
        for ref, arg in zip(refs, args, strict=True):
            if isinstance(arg, Tensor):
                if not isinstance(ref, Ref) or arg.device.type != "meta":
                    return False
                if tuple(arg.shape) != self._sizes.shape(ref.value, self._padded):
                    return False
            elif isinstance(arg, (list, tuple)) and not (
                isinstance(ref, (list, tuple)) and self._as_expected(ref, arg)
            ):
                return False
        return True

    def _empty(self, op: Op, out: int | None) -> Tensor | None:
        if out is None:
            return None
        shape = self._sizes.shape(out, self._padded)
        return torch.empty(shape, dtype=self._tape.values[out].dtype, device="meta")


@contextmanager
def disguised(model: nn.Module, plan: Plan) -> Iterator[None]:
    """Within, the model's tensors are meta tensors of the plan's shapes and its sizes are changed.

    Everything its modules hold is put back at the end, also what a forward assigned meanwhile.
    """
    shapes = dict(plan.result.tensors)
    meta: dict[int, Tensor] = {}
    for name, tensor in named_tensors(model).items():
        empty = torch.empty(shapes[name], dtype=tensor.dtype, device="meta")
        meta[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    modules = list(model.modules())
    before = [
        (module, dict(vars(module)), dict(module._parameters), dict(module._buffers)) for module in modules
    ]
    try:
        for module in modules:
            for held in (vars(module)["_parameters"], vars(module)["_buffers"]):
                for key, own in held.items():
                    if own is not None:
                        held[key] = meta[id(own)]
            if isinstance(module, nn.RNNBase):
                vars(module).update(relisted(module, meta))
        set_sizes(model, plan.sizes)
        yield
    finally:
        for module, attributes, parameters, buffers in before:
            vars(module).clear()
            vars(module).update(attributes)
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)
