"""A pruned model is a model: whatever can be done with the original can be done with it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from compressor.core.capture import capture
from compressor.core.plan import Plan
from compressor.core.surgery import apply, apply_
from compressor.core.verify import verify
from tests.core.driver import masks


class Residual(nn.Module):
    """Convolutions with a skip, a depthwise one among them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.up, self.depthwise = nn.Conv2d(8, 12, 1), nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.down, self.head = nn.Conv2d(12, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.stem(x)))
        y = y + self.down(F.hardswish(self.depthwise(self.up(y))))
        return self.head(F.adaptive_avg_pool2d(y, 1).flatten(1))


class Mixer(nn.Module):
    """The perceptrons of a transformer without its attention."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8)) for _ in range(2)
        )
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        for block in self.blocks:
            y = y + block(y)
        return self.head(self.norm(y).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 6)
        self.rnn = nn.LSTM(6, 8, num_layers=2, batch_first=True, bidirectional=True)
        self.cell, self.head = nn.GRUCell(16, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(torch.tanh(self.stem(x)))
        state = None
        for step in range(3):
            state = self.cell(y[:, step], state)
        return self.head(state)


NETWORKS = {Residual: (4, 3, 6, 6), Mixer: (4, 5, 5), Recurrent: (4, 3, 5)}
Case = tuple[nn.Module, nn.Module, Plan, Tensor]


@pytest.fixture(params=NETWORKS, ids=lambda kind: kind.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    """A model, the model pruned, the plan, and an input."""
    torch.manual_seed(0)
    model, x = request.param().eval(), torch.randn(NETWORKS[request.param])
    graph = capture(model, x)
    plan = graph.plan(next(masks(graph)))
    return model, apply(model, plan), plan, x


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def assert_same(a: nn.Module, b: nn.Module, x: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(a(x), b(x), atol=tolerance, rtol=tolerance)


# -- copies and files ----------------------------------------------------------------------------


def test_the_state_dict_goes_around(case: Case) -> None:
    model, small, plan, x = case
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    fresh = apply(type(model)(), plan).eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert_same(fresh, small, x, 0)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), copy.copy])
def test_copies_compute_the_same(case: Case, again: Callable[[nn.Module], nn.Module]) -> None:
    _, small, _, x = case
    other = again(small)
    assert shapes(other) == shapes(small)
    assert_same(other, small, x, 0)


def test_a_whole_module_in_a_file(case: Case, tmp_path: Path) -> None:
    _, small, _, x = case
    torch.save(small, tmp_path / "small.pt")
    assert_same(torch.load(tmp_path / "small.pt", weights_only=False), small, x, 0)


def test_both_modes_and_back(case: Case) -> None:
    _, small, _, x = case
    before = small(x)
    small.train()
    assert all(module.training for module in small.modules())
    small.eval()
    torch.testing.assert_close(small(x), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_of_numbers(case: Case, dtype: torch.dtype) -> None:
    _, small, _, x = case
    assert small.to(dtype)(x.to(dtype)).dtype == dtype


# -- training ------------------------------------------------------------------------------------


def train(model: nn.Module, x: Tensor, steps: int = 3) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_goes_down_and_reaches_every_parameter(case: Case) -> None:
    _, small, _, x = case
    losses = train(small.train(), x)
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_training_under_autocast(case: Case) -> None:
    _, small, _, x = case
    with torch.autocast("cpu", torch.bfloat16):
        out = small.train()(x)
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_gradient_checkpointing(case: Case) -> None:
    _, small, _, x = case
    grads = []
    for run in (small, lambda x: checkpoint(small, x, use_reentrant=False)):
        small.zero_grad()
        run(x).square().mean().backward()
        grads.append([p.grad.clone() for p in small.parameters()])
    torch.testing.assert_close(*grads)


def test_data_parallel(case: Case) -> None:
    _, small, _, x = case
    wrapped = nn.DataParallel(small)
    assert_same(wrapped, small, x, 0)
    train(wrapped, x, 1)


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """A group of this process alone; delete what wraps a model before the end.

    A wrapper that holds the last reference to the group waits, with Python's lock, for the group's threads,
    one of which may be waiting for that lock.
    """
    where = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def test_distributed_data_parallel(case: Case, tmp_path: Path) -> None:
    _, small, _, x = case
    with one_process(tmp_path):
        wrapped = nn.parallel.DistributedDataParallel(small.train())
        losses = train(wrapped, x)
        del wrapped
    assert losses[-1] < losses[0]


def test_a_model_inside_a_distributed_one_is_cut_and_wrapped_anew(case: Case, tmp_path: Path) -> None:
    model, small, plan, x = case
    with one_process(tmp_path):
        wrapped = nn.parallel.DistributedDataParallel(model)
        apply_(wrapped.module, plan)
        again = nn.parallel.DistributedDataParallel(wrapped.module)
        assert_same(again, small, x)
        train(again.train(), x, 1)
        del wrapped, again


# -- averages ------------------------------------------------------------------------------------


def averaged(model: nn.Module) -> AveragedModel:
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)


def test_an_average_made_after_surgery(case: Case) -> None:
    _, small, _, x = case
    ema = averaged(small)
    train(small.train(), x, 1)
    ema.update_parameters(small)
    assert shapes(ema.module) == shapes(small)
    ema(x)


@pytest.mark.parametrize("in_place", [False, True])
def test_an_average_made_before_surgery_is_cut_by_the_same_plan(case: Case, in_place: bool) -> None:
    """`apply_(ema.module, plan)`: its weights are other numbers in the same places."""
    model, _, plan, x = case
    ema = averaged(model)
    train(model.train(), x, 2)
    ema.update_parameters(model)
    kept = apply(ema.module, plan)
    assert_cut(ema.module, kept, plan)
    if in_place:
        apply_(ema.module, plan)
        apply_(model, plan)
    else:
        ema.module, model = kept, apply(model, plan)
    for name, tensor in ema.module.state_dict().items():
        assert torch.equal(tensor, kept.state_dict()[name])
    train(model, x, 1)
    ema.update_parameters(model)
    ema(x)


def assert_cut(full: nn.Module, small: nn.Module, plan: Plan) -> None:
    """Every cut tensor of `small` holds the kept entries of that of `full`."""
    before, after = full.state_dict(), small.state_dict()
    for name in {cut.tensor for cut in plan.cuts}:
        tensor = before[name]
        for cut in (cut for cut in plan.cuts if cut.tensor == name and cut.blocks == 1):
            tensor = tensor.index_select(cut.axis, torch.tensor(cut.keep))
        assert torch.equal(tensor, after[name]), name


# -- compilers and exporters ---------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_without_a_break(case: Case, backend: str) -> None:
    _, small, _, x = case
    torch._dynamo.reset()
    # Dynamo asks to be told that recurrent layers are wanted.
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(small, backend=backend, fullgraph=True)
        assert_same(compiled, small, x, 1e-5)


def test_exported_with_any_batch(case: Case) -> None:
    _, small, _, x = case
    if isinstance(small, Recurrent):
        program = torch.export.export(small, (x,))
    else:
        batch = torch.export.Dim("batch", min=2, max=64)
        program = torch.export.export(small, (x,), dynamic_shapes=({0: batch},))
        assert_same(program.module(), small, torch.cat([x, x]), 1e-5)
    assert_same(program.module(), small, x, 1e-5)


def test_traced_to_torchscript(case: Case) -> None:
    _, small, _, x = case
    assert_same(torch.jit.trace(small, x), small, x, 1e-5)


# -- pruned again --------------------------------------------------------------------------------


def test_pruned_again_and_again(case: Case) -> None:
    model, small, _, x = case
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    for seed in range(2):
        train(small.train(), x, 1)
        graph = capture(small.eval(), x)
        assert graph.n_units > 0
        plan = graph.plan(list(masks(graph))[seed])
        smaller = apply(small, plan)
        assert verify(small, smaller, plan, x, graph=graph).error < 1e-9
        sizes.append(sum(p.numel() for p in smaller.parameters()))
        small = smaller
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)


def test_what_a_pruned_model_offers_is_what_the_original_had_left(case: Case) -> None:
    model, small, plan, x = case
    before, after = capture(model, x), capture(small, x)
    removed = {cut.tensor: len(cut.removed) for cut in plan.cuts if cut.axis == 0}
    for axis in before.axes:
        if axis.axis == 0 and (axis.units >= 0).all():
            (same,) = [a for a in after.axes if (a.tensor, a.axis) == (axis.tensor, 0)]
            assert same.size == axis.size - removed.get(axis.tensor, 0)
