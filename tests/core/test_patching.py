"""Patched calls: what the pruned model computes, and that it is still an ordinary module."""

from __future__ import annotations

import copy
import io
import logging
import math
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from compressor.core.capture import capture
from compressor.core.copying import copy_module
from compressor.core.graph import Graph, Mask
from compressor.core.patching import Patched, patch, patched, patches_of
from compressor.core.plan import Cut, Patch, Plan
from compressor.core.surgery import apply, apply_, plan_of, signature_of
from compressor.core.verify import verify
from compressor.errors import ModelError, PlanMismatchError
from compressor.export import onnx
from tests.core.driver import TOLERANCE, assert_mask, masks
from tests.core.forwards import NETWORKS, Forward


def _case(name: str) -> tuple[nn.Module, Tensor, Graph]:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model, x = make().eval(), torch.randn(shape)
    return model, x, capture(model, x)


def _mask(graph: Graph) -> Mask:
    return next(masks(graph))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_number_in_a_call_follows_the_cut_exactly(name: str) -> None:
    _, _, graph = _case(name)
    assert graph.n_units > 0
    assert graph.patch_rules
    for mask in masks(graph):
        assert_mask(graph, mask)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_patched_model_can_be_exported_and_compiled_whole(name: str) -> None:
    model, x, graph = _case(name)
    small = apply(model, graph.plan(_mask(graph)))
    more = torch.cat([x, x + 1, x])
    is_fixed = name in _OF_ONE_BATCH_SIZE
    shapes = None if is_fixed else _shapes()
    program = torch.export.export(small, (x,), dynamic_shapes=shapes, strict=False)
    seen = x if is_fixed else more
    torch.testing.assert_close(program.module()(seen), small(seen))
    torch._dynamo.reset()
    compiled = torch.compile(small, backend="eager", fullgraph=name not in _BROKEN)
    torch.testing.assert_close(compiled(x), small(x))
    torch.testing.assert_close(compiled(more), small(more))


def _shapes() -> dict[str, Any]:
    return {"x": {0: torch.export.Dim("batch")}}


# Torch (2.13) exports these for one batch size alone, patched or not.
_OF_ONE_BATCH_SIZE = ("gathered", "taken along")
# Calls that torch.compile (2.13) does not show to a function mode, or fails on under any: it leaves the
# module to Python then.
_BROKEN = ("pad", "rms_norm", "attention scaled first")


@pytest.mark.parametrize(
    "name", ["pad", "split", "attention", "fold twice", "zeros", "picked", "picked by a mask"]
)
def test_a_patched_model_becomes_an_onnx_file(name: str, tmp_path: Path) -> None:
    model, x, graph = _case(name)
    small = apply(model, graph.plan(_mask(graph)))
    onnx(small, x, tmp_path / "net.onnx")  # raises where onnxruntime differs, at a second batch size too


# -- by hand: patches whose effect can be said in one line ----------------------------------------


class Scaled(nn.Module):
    """Divides by a number, through layers that divide as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Halved(), Halved()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) / 3.0
        return self.second(x) / 5.0


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2.0


def _division(module: str, call: int, old: float, new: float) -> Patch:
    return Patch(module, "torch.Tensor.div", call, "1", old, new)


X = torch.arange(6.0) + 1


def _same(module: nn.Module, divisor: float) -> None:
    torch.testing.assert_close(module(X), X / divisor)


def test_only_calls_of_the_modules_own_forward_count() -> None:
    model = Scaled()
    patch(model, [_division("", 1, 5.0, 50.0)])
    _same(model, 2 * 3 * 2 * 50)


def test_patches_of_a_module_and_of_one_within_it_do_not_mix() -> None:
    model = Scaled()
    patch(model, [_division("", 0, 3.0, 30.0), _division("second", 0, 2.0, 7.0)])
    _same(model, 2 * 30 * 7 * 5)


def test_each_run_of_a_shared_module_counts_anew() -> None:
    half = Halved()
    model = nn.Sequential(half, half, half)
    patch(model, [_division("0", 0, 2.0, 10.0)])
    _same(model, 1000)
    _same(model, 1000)


def test_a_module_within_itself_counts_for_itself() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor, again: bool = True) -> Tensor:
            x = self(x, again=False) if again else x
            return x / 2.0

    model = Twice()
    patch(model, [_division("", 0, 2.0, 10.0)])
    _same(model, 100)


def test_calls_of_hooks_are_not_counted() -> None:
    model = Scaled()
    model.first.register_forward_hook(lambda module, args, out: out / 1.0)
    model.register_forward_pre_hook(lambda module, args: (args[0] / 1.0,))
    patch(model, [_division("", 0, 3.0, 30.0)])
    _same(model, 2 * 30 * 2 * 5)


def test_a_forward_called_directly_is_patched_too() -> None:
    model = Scaled()
    patch(model, [_division("", 0, 3.0, 30.0)])
    torch.testing.assert_close(model.forward(X), X / (2 * 30 * 2 * 5))


def test_the_class_keeps_its_name_and_place() -> None:
    model = Scaled()
    patch(model, [_division("", 0, 3.0, 30.0)])
    assert isinstance(model, Scaled)
    assert type(model).__name__ == "Scaled"
    assert type(model).__module__ == Scaled.__module__
    assert repr(model) == repr(Scaled())
    assert type(model.first) is Halved
    other = Scaled()
    patch(other, [_division("", 0, 3.0, 4.0)])
    assert type(other) is type(model)


def test_copies_and_pickles_are_patched() -> None:
    model = Scaled()
    patch(model, [_division("", 0, 3.0, 30.0), _division("first", 0, 2.0, 4.0)])
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(file, weights_only=False),
        copy_module(model, {}),
        model._replicate_for_data_parallel(),
    ):
        assert type(other) is type(model)
        assert isinstance(other, Patched)
        assert patches_of(other) == patches_of(model)
        _same(other, 4 * 30 * 2 * 5)


def test_a_class_that_pickles_itself_stays_patched() -> None:
    model = Own(2.0)
    patch(model, [_division("", 0, 2.0, 8.0)])
    other = pickle.loads(pickle.dumps(model))
    assert other.divisor == 2.0
    _same(other, 8)


class Own(nn.Module):
    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor

    def __reduce__(self) -> Any:
        return Own, (self.divisor,)


def test_threads_count_each_for_itself() -> None:
    model = Scaled()
    patch(model, [_division("", 1, 5.0, 50.0)])
    results: list[Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(model(X))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    for result in results:
        torch.testing.assert_close(result, X / (2 * 3 * 2 * 50))


def test_gradients_pass_through_a_checkpointed_patched_module() -> None:
    model = Scaled()
    patch(model, [_division("", 1, 5.0, 50.0)])
    for reentrant in (False, True):
        x = X.clone().requires_grad_()
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
        torch.testing.assert_close(x.grad, torch.full_like(x, 1 / (2 * 3 * 2 * 50)))


def test_a_forward_that_checkpoints_a_part_of_itself_is_refused_where_it_would_be_wrong() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        return checkpoint(lambda y: y.sin() / 2.0, x, use_reentrant=False)

    model = Forward(run)
    patch(model, [_division("", 0, 2.0, 8.0)])
    with torch.no_grad():
        torch.testing.assert_close(model(X), X.sin() / 8)
    with pytest.raises(ModelError, match=r"checkpoints a part of itself"):
        model(X.clone().requires_grad_())


def test_what_is_patched_for_a_while_is_as_before_afterwards() -> None:
    model = Scaled()
    patch(model, [_division("first", 0, 2.0, 4.0)])
    before = {name: (type(module), dict(vars(module))) for name, module in model.named_modules()}
    with (
        pytest.raises(KeyError),
        patched(model, [_division("", 0, 3.0, 30.0), _division("first", 0, 4.0, 9.0)]),
    ):
        _same(model, 9 * 30 * 2 * 5)
        raise KeyError
    assert before == {name: (type(module), vars(module)) for name, module in model.named_modules()}
    _same(model, 4 * 3 * 2 * 5)


def test_torch_compile_gives_up_where_it_would_be_wrong() -> None:
    class Broken(Halved):
        def forward(self, x: Tensor) -> Tensor:
            torch._dynamo.graph_break()
            return super().forward(x)

    model = Scaled()
    model.second = Broken()
    patch(model, [_division("", 1, 5.0, 50.0)])
    missed = Scaled()
    patch(missed, [_division("", 1, 5.0, 50.0), Patch("", "torch.Tensor.reshape", 0, "1", 1, 1)])
    for module in (model, nn.Sequential(nn.Identity(), model, nn.Identity()), missed):
        torch._dynamo.reset()
        _same(torch.compile(module, backend="eager"), 2 * 3 * 2 * 50)


def test_torch_compile_counts_as_an_ordinary_run_does() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        x = functional.normalize(x, dim=0) * x.norm()  # divides, inside
        y, z = torch.split(x, 3)
        return torch.cat([y, z]).split(6)[0] / 2.0

    model = Forward(run)
    patch(model, [_division("", 0, 2.0, 8.0), Patch("", "torch.Tensor.split", 0, "1", 6, 6)])
    torch._dynamo.reset()
    _same(torch.compile(model, backend="eager", fullgraph=True), 8)
    patch(model, [Patch("", "torch.functional.split", 0, "1", 3, 2)])
    torch._dynamo.reset()
    with pytest.raises(ValueError, match=r"too many values"):
        torch.compile(model, backend="eager")(X)


def test_a_call_with_other_arguments_is_refused() -> None:
    model = Forward(lambda self, x: x.reshape(2, 3) if len(x) == 6 else x.reshape(4))
    patch(model, [Patch("", "torch.Tensor.reshape", 0, "2", 3, 3)])
    assert model(X).shape == (2, 3)
    with pytest.raises(ModelError, match=r"takes another way than on the captured"):
        model(X[:4])


def test_a_call_that_leaves_a_size_open_already_is_left_alone() -> None:
    model = Forward(lambda self, x: x.reshape(2, 1, 3) if len(x) == 6 else x.reshape(2, -1))
    patch(model, [Patch("", "torch.Tensor.reshape", 0, "1", 2, -1)])
    assert model(X).shape == (2, 1, 3)
    assert model(X[:4]).shape == (2, 2)
    patch(model, [Patch("", "torch.Tensor.reshape", 0, "3", 3, 3)])
    assert model(X).shape == (2, 1, 3)
    assert model(X[:4]).shape == (2, 2)


def test_a_forward_put_on_the_object_is_refused() -> None:
    model = Scaled()
    model.forward = lambda x: x / 3.0  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"make it a method"):
        patch(model, [_division("", 0, 3.0, 30.0)])
    assert type(model) is Scaled


# -- plans ---------------------------------------------------------------------------------------


class Headed(nn.Module):
    """Self-attention with 4 heads of 8, all numbers in its forward, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 96), nn.Linear(32, 6)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(x.shape[0], x.shape[1], 3, 4, 8).permute(2, 0, 3, 1, 4)
        weights = self.dropout((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1))
        return self.out((weights @ v).transpose(1, 2).reshape(x.shape[0], -1, 32))


def _headed_plan(model: nn.Module, heads: tuple[int, ...], of: int, place: str = "") -> Plan:
    """The plan that keeps these heads of `of`, written by hand."""
    features = tuple(h * 8 + d for h in heads for d in range(8))
    rows = tuple(part * of * 8 + f for part in range(3) for f in features)
    lead = f"{place}." if place else ""
    cuts = [
        Cut(f"{lead}qkv.weight", 0, of * 24, rows, "writer"),
        Cut(f"{lead}qkv.bias", 0, of * 24, rows, "writer"),
        Cut(f"{lead}out.weight", 1, of * 8, features, "reader"),
    ]
    patches = (
        Patch(place, "torch.Tensor.view", 0, "4", of, len(heads)),
        Patch(place, "torch.Tensor.reshape", 0, "3", of * 8, len(heads) * 8),
    )
    return Plan(tuple(cuts), (), signature_of(model), patches=patches)


def _kept_heads(model: Headed, x: Tensor, heads: tuple[int, ...]) -> Tensor:
    """What the original gives when only these heads speak."""
    q, k, v = model.qkv(x).view(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
    y = functional.scaled_dot_product_attention(q, k, v)
    silent = [h for h in range(4) if h not in heads]
    y[:, silent] = 0
    return model.out(y.transpose(1, 2).flatten(2))


def test_whole_heads_go_where_their_number_is_written_into_forward() -> None:
    model, x = Headed().eval(), torch.randn(2, 5, 6)
    small = apply(model, _headed_plan(model, (0, 2, 3), 4))
    torch.testing.assert_close(small(x), _kept_heads(model, x, (0, 2, 3)))
    assert small.state_dict().keys() == model.state_dict().keys()


def test_pruning_twice_is_the_plan_after_the_other() -> None:
    model, x = Headed().eval(), torch.randn(2, 5, 6)
    first = _headed_plan(model, (0, 2, 3), 4)
    small = apply(model, first)
    second = _headed_plan(small, (0, 2), 3)
    apply_(small, second)
    both = second.after(first)
    assert plan_of(small) == both
    assert [(p.old, p.new) for p in both.patches] == [(4, 2), (32, 16)]
    expected = _kept_heads(model, x, (0, 3))
    torch.testing.assert_close(small(x), expected)
    torch.testing.assert_close(apply(model, both)(x), expected)
    assert Plan.from_json(both.to_json()) == both


def test_a_patched_model_trains_and_drops_out() -> None:
    model, x = Headed().train(), torch.randn(2, 5, 6)
    small = apply(model, _headed_plan(model, (0, 2), 4))
    torch.manual_seed(1)
    first = small(x)
    assert not torch.equal(first, small(x))
    first.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in small.parameters())
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    optimizer.step()
    small.eval()
    assert torch.equal(small(x), small(x))


def test_a_plan_that_patches_what_is_not_there_is_refused_before_anything_changes() -> None:
    model = Headed()
    before = copy.deepcopy(model.state_dict())
    plan = _headed_plan(model, (0,), 4)
    lost = Plan(plan.cuts, (), plan.signature, patches=(_division("inner", 0, 2.0, 3.0),))
    with pytest.raises(PlanMismatchError, match=r"inner.*no such module"):
        apply_(model, lost)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    small = apply(model, plan)
    again = Plan((), (), signature_of(small), patches=plan.patches)
    with pytest.raises(PlanMismatchError, match=r"the model has 1 there"):
        apply(small, again)


def test_the_user_is_told_what_is_patched(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(Headed())
    plan = _headed_plan(model, (0, 2), 4, "0")
    with caplog.at_level(logging.INFO, logger="compressor"):
        apply(model, plan)
    line = "0: torch.Tensor.view (call 1) argument 4: 4 -> 2"
    assert any(line in message for message in caplog.messages)
    assert line in str(plan) and line in plan.summary()


def test_a_pruned_model_is_captured_with_the_numbers_it_runs_with() -> None:
    model, x, graph = _case("attention by hand")
    plan = graph.plan(_mask(graph))
    small = apply(model, plan)
    second_graph = capture(small, x)
    second = second_graph.plan(_mask(second_graph))
    smaller = apply(small, second)
    assert verify(small, smaller, second, x, graph=second_graph).error <= TOLERANCE
    assert verify(model, smaller, second.after(plan), x, graph=graph).error <= TOLERANCE
