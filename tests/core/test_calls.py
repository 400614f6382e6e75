"""Which call of which module's forward every recorded operator belongs to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

from compressor.core.calls import Call, Held
from compressor.core.patching import patch
from compressor.core.plan import Patch
from compressor.core.tape import Tape, record
from tests.core.forwards import Forward

X = torch.randn(2, 6, 4)


def _calls(model: nn.Module) -> list[Call | None]:
    tape: Tape = record(model.eval(), (X,), {})
    return [op.call for op in tape.ops]


def _call_of(model: nn.Module, target: str, number: int = 0) -> Call:
    ops = [op for op in record(model.eval(), (X,), {}).ops if op.target == target]
    call = ops[number].call
    assert call is not None
    return call


def test_a_call_holds_its_arguments_as_they_were_written() -> None:
    model = Forward(lambda self, x: functional.pad(x.reshape(2, -1)[:, :8].reshape(shape=(4, 4)), (1, 0)))
    held = Held((2, 6, 4))
    assert _call_of(model, "aten.view.default") == Call("", "torch.Tensor.reshape", 0, (held, 2, -1), {})
    sliced = _call_of(model, "aten.slice.Tensor")
    assert sliced.args == (Held((2, 24)), (slice(None), slice(None, 8)))
    assert sliced.argument("1.1.stop") == 8
    padded = _call_of(model, "aten.constant_pad_nd.default")
    assert padded.function == "torch.nn.functional.pad"
    assert padded.argument("1.0") == 1
    assert padded.argument("9") is None


def test_operators_of_a_composite_function_belong_to_the_outermost_call() -> None:
    model = Forward(lambda self, x: functional.scaled_dot_product_attention(x, x, x))
    assert {str(call) for call in _calls(model)} == {
        "call 1 of torch.nn.functional.scaled_dot_product_attention in the model itself"
    }


def test_tensors_made_from_nothing_have_a_call() -> None:
    call = _call_of(Forward(lambda self, x: x + torch.ones(2, 6, 4)), "aten.ones.default")
    assert (call.function, call.args) == ("torch.ones", (2, 6, 4))


def test_ordinals_count_within_one_run_of_one_forward() -> None:
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x / 2) / 3

    inner = Inner()

    def outer(self: Any, x: Tensor) -> Tensor:
        return self.inner(self.inner(x / 4) / 5)

    found = [(c.module, c.ordinal, c.args[1]) for c in _calls(Forward(outer, inner=inner)) if c is not None]
    assert found == [
        *(("", 0, 4), ("inner", 0, 2), ("inner", 1, 3)),
        *(("", 1, 5), ("inner", 0, 2), ("inner", 1, 3)),
    ]


def test_calls_of_hooks_and_of_passing_modules_belong_to_no_forward() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return nn.Softmax(-1)(self.linear(x) / 2) / 3

    model = Forward(run, linear=nn.Linear(4, 4))
    model.linear.register_forward_hook(lambda module, args, out: out / 9)
    model.linear.register_forward_pre_hook(lambda module, args: (args[0] / 8,))
    divisions = [op for op in record(model.eval(), (X,), {}).ops if op.target == "aten.div.Tensor"]
    assert [op.call and op.call.ordinal for op in divisions] == [None, None, 0, 1]
    assert all(op.call is None for op in record(model, (X,), {}).ops if op.target == "aten._softmax.default")


def test_a_module_with_hooks_has_calls_of_its_own() -> None:
    model = nn.Sequential(spectral_norm(nn.Linear(4, 4)))
    assert _call_of(model, "aten.addmm.default").function == "torch.nn.functional.linear"


def test_a_patched_module_is_recorded_with_the_numbers_it_runs_with() -> None:
    model = Forward(lambda self, x: x.reshape(2, 24) / 2)
    patch(
        model,
        [Patch("", "torch.Tensor.reshape", 0, "1", 2, 4), Patch("", "torch.Tensor.reshape", 0, "2", 24, 12)],
    )
    assert _call_of(model, "aten.view.default").args == (Held((2, 6, 4)), 4, 12)


def test_a_recording_holds_no_tensor() -> None:
    def leaves(item: Any) -> list[Any]:
        return [x for entry in item for x in leaves(entry)] if isinstance(item, (list, tuple)) else [item]

    model = Forward(lambda self, x: torch.cat([x, torch.stack([x[0], x[1]])], 1))
    for call in _calls(model):
        assert call is not None
        assert not any(isinstance(x, Tensor) for x in leaves([*call.args, *call.kwargs.values()]))
