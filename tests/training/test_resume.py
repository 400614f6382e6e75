"""Interrupted anywhere, a training ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.errors import FileError, InputError, ModelError
from compressor.training import History, Recipe, Validation, fine_tune_, step_rates
from compressor.training.checkpoint import read_checkpoint
from compressor.training.interrupting import uninterrupted
from compressor.training.settings import settings_of
from compressor.training.sparsity import Decay, MaskSparsity, Proximal, Within, silenced
from tests.conftest import ROOT
from tests.training.conftest import make_data, make_loader, make_net


@pytest.fixture(autouse=True)
def _ctrl_c_counts() -> Iterator[None]:
    """A process that was started in the background ignores Ctrl-C, and its children do."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


RECIPES = {
    "sgd": Recipe(epochs=3, lr=0.05),
    "everything": Recipe(
        epochs=3,
        lr=0.01,
        optimizer=torch.optim.AdamW,
        warmup_epochs=0.5,
        accumulate=3,
        clip_norm=1.0,
        ema=0.9,
        autocast=torch.bfloat16,
    ),
    "scaled": Recipe(epochs=3, lr=0.05, clip_norm=1.0, autocast=torch.float16),
}


class InterruptedLoss:
    """Cross entropy, by whose name it goes, and Ctrl-C in its n-th call."""

    def __init__(self, at: int | None) -> None:
        self.at, self.calls = at, 0
        self.__qualname__ = F.cross_entropy.__qualname__

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return F.cross_entropy(output, target)


class CrashingLoss(InterruptedLoss):
    """Cross entropy, and an error in its n-th call, of which no checkpoint is made."""

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        try:
            return super().__call__(output, target)
        except KeyboardInterrupt:
            raise ZeroDivisionError from None


def validation() -> Validation:
    x, y = make_data(12, seed=4)
    return Validation(
        batches=[(x, y)],
        metric=lambda out, labels: -float(F.cross_entropy(out, labels)),
    )


def trained(
    recipe: Recipe, loss: Any, *, workers: int = 0, seed: int | None = 2, **options: Any
) -> tuple[nn.Module, History]:
    net = make_net()
    loader = make_loader(workers=workers, seed=seed)
    history = fine_tune_(net, loader, loss, recipe, validation=validation(), progress=False, **options)
    return net, history


def assert_same(one: tuple[nn.Module, History], other: tuple[nn.Module, History]) -> None:
    assert one[1] == other[1]
    for name, tensor in one[0].state_dict().items():
        assert torch.equal(tensor, other[0].state_dict()[name]), name


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
@pytest.mark.parametrize("seed", [2, None], ids=["own generator", "global generator"])
@pytest.mark.parametrize("at", [1, 3, 4, 5, 10, 12])
def test_a_training_that_is_taken_up_equals_one_in_one_go(
    tmp_path: Path, recipe: Recipe, at: int, seed: int | None
) -> None:
    path = tmp_path / "run" / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, InterruptedLoss(at), seed=seed, checkpoint=path)
    resumed = trained(recipe, F.cross_entropy, seed=seed, checkpoint=path)
    assert_same(resumed, trained(recipe, F.cross_entropy, seed=seed))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", [2, None], ids=["own generator", "global generator"])
@pytest.mark.parametrize("at", [5, 6, 11])
def test_after_a_crash_it_goes_on_from_the_end_of_an_epoch(
    tmp_path: Path, at: int, seed: int | None, workers: int
) -> None:
    path, recipe = tmp_path / "training.pt", RECIPES["sgd"]
    with pytest.raises(ZeroDivisionError):
        trained(recipe, CrashingLoss(at), seed=seed, workers=workers, checkpoint=path)
    resumed = trained(recipe, F.cross_entropy, seed=seed, workers=workers, checkpoint=path)
    assert_same(resumed, trained(recipe, F.cross_entropy, seed=seed, workers=workers))


class Drawing:
    """Batches of one's own: noise from a generator of theirs is added anew in each pass."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(5)

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        x, y = make_data(16, seed=1)
        for own, labels in zip(x.split(4), y.split(4), strict=True):
            yield own + torch.randn(own.shape, generator=self.generator), labels


@pytest.mark.parametrize("at", [2, 5, 8])
def test_batches_with_a_generator_of_their_own_go_on_drawing(tmp_path: Path, at: int) -> None:
    def run(loss: Any, **options: Any) -> tuple[nn.Module, History]:
        net = make_net()
        return net, fine_tune_(net, Drawing(), loss, RECIPES["sgd"], progress=False, **options)

    path = tmp_path / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        run(InterruptedLoss(at), checkpoint=path)
    assert_same(run(F.cross_entropy, checkpoint=path), run(F.cross_entropy))


@pytest.mark.parametrize("after", [1, 4, 6])
def test_interrupted_right_after_a_step(tmp_path: Path, after: int) -> None:
    """As a signal can be that came during the step and was put off."""
    path = tmp_path / "training.pt"

    class Stopping:
        def __init__(self, after: int) -> None:
            self.left = after

        def attach(self, optimizer: torch.optim.Optimizer) -> Any:
            def stop(*_: object) -> None:
                self.left -= 1
                if self.left == 0:
                    os.kill(os.getpid(), signal.SIGINT)

            return optimizer.register_step_post_hook(stop)

    def run(stop_after: int, checkpoint: Path | None) -> tuple[nn.Module, History]:
        stopping = Stopping(stop_after)
        return trained(
            RECIPES["sgd"], F.cross_entropy, seed=None, regularizer=stopping, checkpoint=checkpoint
        )

    with pytest.raises(KeyboardInterrupt):
        run(after, path)
    kept = torch.load(path, weights_only=True)
    assert 4 * kept["epoch"] + kept["done"] == after
    assert_same(run(0, path), run(0, None))


@pytest.mark.parametrize("at", [2, 7])
def test_sparse_training_goes_on_where_it_was(tmp_path: Path, at: int) -> None:
    """How far the regulariser is stands in the optimizer's state."""
    path, recipe = tmp_path / "training.pt", RECIPES["sgd"]
    found = []
    for file in (path, None):
        for loss in (InterruptedLoss(at), F.cross_entropy) if file else (F.cross_entropy,):
            net = make_net()
            graph = cp.capture(net, make_data()[0])
            plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
            regularizer = MaskSparsity(plan, graph, Proximal(Within(step_rates(recipe, 4))), shift=Decay(12))
            with suppress(KeyboardInterrupt):
                fine_tune_(net, make_loader(), loss, recipe, regularizer=regularizer, checkpoint=file)
        assert silenced(plan, graph, tolerance=0.0).done
        found.append(net.state_dict())
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name])


def test_interrupted_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    recipe = RECIPES["sgd"]
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            trained(recipe, InterruptedLoss(3), checkpoint=path)
    assert_same(trained(recipe, F.cross_entropy, checkpoint=path), trained(recipe, F.cross_entropy))


def test_workers_start_where_they_were(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    recipe = Recipe(epochs=2, lr=0.05)
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, InterruptedLoss(6), workers=2, checkpoint=path)
    resumed = trained(recipe, F.cross_entropy, workers=2, checkpoint=path)
    assert_same(resumed, trained(recipe, F.cross_entropy, workers=2))


def test_numpy_and_python_random_numbers_go_on_too(tmp_path: Path) -> None:
    import random

    def loss(stop: int | None) -> Any:
        inner = InterruptedLoss(stop)
        return lambda output, target: inner(output, target) * (1 + np.random.rand() + random.random())  # noqa: NPY002

    path = tmp_path / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(RECIPES["sgd"], loss(7), checkpoint=path)
    resumed = trained(RECIPES["sgd"], loss(None), checkpoint=path)
    assert_same(resumed, trained(RECIPES["sgd"], loss(None)))


@pytest.mark.parametrize("where", ["validation", "reading"])
def test_interrupted_between_the_steps(tmp_path: Path, where: str) -> None:
    """In the second epoch's validation, or while a batch of it is read."""
    path = tmp_path / "training.pt"
    recipe = RECIPES["sgd"]
    measured, loader = validation(), make_loader()
    if where == "validation":
        values = iter([-1.0])

        def metric(*_: Tensor) -> float:
            for value in values:
                return value
            raise KeyboardInterrupt

        metric.__qualname__ = measured.metric.__qualname__
        measured = Validation(batches=measured.batches, metric=metric)
    else:
        read, data = iter(range(33)), loader.dataset
        inner = type(data).__getitem__

        class Stopping(type(data)):  # type: ignore[misc]
            def __getitem__(self, index: int) -> Any:
                if next(read, None) is None:
                    raise KeyboardInterrupt
                return inner(self, index)

        data.__class__ = Stopping
    with pytest.raises(KeyboardInterrupt):
        fine_tune_(make_net(), loader, F.cross_entropy, recipe, validation=measured, checkpoint=path)
    net = make_net()
    resumed = fine_tune_(
        net, make_loader(), F.cross_entropy, recipe, validation=validation(), checkpoint=path
    )
    expected, whole = trained(recipe, F.cross_entropy)
    assert resumed.losses == whole.losses
    if where == "reading":
        assert_same((net, resumed), (expected, whole))


def test_an_interrupted_model_is_usable_and_as_it_was_after_a_step(tmp_path: Path) -> None:
    net = make_net()
    modes = [module.training for module in net.modules()]
    path = tmp_path / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        fine_tune_(net, make_loader(), InterruptedLoss(6), RECIPES["sgd"], checkpoint=path)
    kept = torch.load(path, weights_only=True)
    assert kept["epoch"] == 1 and kept["done"] == 1
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, kept["tensors"][name])
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.grad is None for parameter in net.parameters())


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    first = trained(RECIPES["sgd"], F.cross_entropy, checkpoint=path)

    def never(*_: Tensor) -> Tensor:
        raise AssertionError

    never.__qualname__ = F.cross_entropy.__qualname__
    assert_same(trained(RECIPES["sgd"], never, checkpoint=path), first)


def test_a_signal_waits_for_the_end_of_a_step() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        os.kill(os.getpid(), signal.SIGINT)
        done.append(True)
    assert done and signal.getsignal(signal.SIGINT) is signal.default_int_handler


SCRIPT = """
import signal
import sys
import torch
from torch.nn import functional as F
from compressor.training import Recipe, fine_tune_
from tests.training.conftest import make_loader, make_net

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)

def loss(output, target):
    print("step", flush=True)
    return F.cross_entropy(output, target)

loss.__qualname__ = F.cross_entropy.__qualname__
try:
    fine_tune_(make_net(), make_loader(), loss, Recipe(epochs=400, lr=0.01), checkpoint=sys.argv[1])
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_a_process_that_gets_ctrl_c_is_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    command = [sys.executable, "-c", SCRIPT, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for _ in range(30):
            assert process.stdout.readline() == "step\n"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait() == 130
    state = torch.load(path, weights_only=True)
    assert 4 * state["epoch"] + state["done"] >= 29
    recipe = Recipe(epochs=400, lr=0.01)
    net, expected = make_net(), make_net()
    stops = (state["epoch"] + 2) * 4
    for model, file, calls in (
        (net, path, stops - 4 * state["epoch"] - state["done"]),
        (expected, tmp_path / "other.pt", stops),
    ):
        with suppress(KeyboardInterrupt):
            fine_tune_(model, make_loader(), InterruptedLoss(calls + 1), recipe, checkpoint=file)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name


def test_other_threads_have_no_signals() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done


# -- files that do not fit -----------------------------------------------------------------------


def refused(
    path: Path,
    net: nn.Module,
    recipe: Recipe,
    *,
    loss: Any = F.cross_entropy,
    loader: Any = None,
    **changed: Any,
) -> str:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    options = {"validation": validation(), "checkpoint": path} | changed
    with pytest.raises(FileError) as caught:
        fine_tune_(net, make_loader() if loader is None else loader, loss, recipe, **options)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    return str(caught.value)


def test_a_checkpoint_of_another_recipe(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(RECIPES["sgd"], F.cross_entropy, checkpoint=path)
    assert "lr=0.05, and now it is 0.1" in refused(path, make_net(), Recipe(epochs=3, lr=0.1))


def test_a_checkpoint_of_other_settings(tmp_path: Path) -> None:
    """Each would make another training of what is left, without a word."""
    path, net = tmp_path / "training.pt", make_net()
    recipe = Recipe(epochs=3, lr=0.05, schedule=lambda done: 1 - done)
    trained(recipe, F.cross_entropy, checkpoint=path)
    assert "loss='cross_entropy', and now it is 'CrossEntropyLoss()'" in refused(
        path, net, recipe, loss=nn.CrossEntropyLoss()
    )
    assert "batches in an epoch=4, and now it is 8" in refused(path, net, recipe, loader=make_loader(batch=3))
    assert "validation='validation.<locals>.<lambda>, larger is better', and now it is None" in refused(
        path, net, recipe, validation=None
    )
    smaller = Validation(batches=validation().batches, metric=validation().metric, larger_is_better=False)
    assert "smaller is better" in refused(path, net, recipe, validation=smaller)
    other = Recipe(epochs=3, lr=0.05, schedule=lambda done: 1 - done**2)
    other.schedule.__qualname__ = recipe.schedule.__qualname__  # type: ignore[attr-defined]
    assert "schedule of the learning rate='1 0.9375 " in refused(path, net, other)
    graph = cp.capture(net, make_data()[0])
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    sparse = MaskSparsity(plan, graph, Decay(12))
    assert "regularizer=None, and now it is 'MaskSparsity(4 channels" in refused(
        path, net, recipe, regularizer=sparse
    )


def test_a_checkpoint_that_is_a_folder(tmp_path: Path) -> None:
    text = refused(tmp_path, make_net(), RECIPES["sgd"])
    assert "is a folder" in text and "training.pt" in text and "delete" not in text


def test_a_checkpoint_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(RECIPES["sgd"], F.cross_entropy, checkpoint=path)
    other = make_net()
    other[0] = nn.Conv2d(1, 9, 3)
    text = refused(path, other, RECIPES["sgd"])
    assert "'0.weight' has shape [8, 1, 3, 3] there and [9, 1, 3, 3]" in text


def test_a_checkpoint_of_another_loader(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(RECIPES["sgd"], F.cross_entropy, seed=None, checkpoint=path)
    assert "had 0 generators" in refused(path, make_net(), RECIPES["sgd"])


def test_a_checkpoint_of_other_trainable_parameters(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(RECIPES["sgd"], F.cross_entropy, checkpoint=path)
    frozen = make_net()
    frozen[0].requires_grad_(False)
    assert "trainable" in refused(path, frozen, RECIPES["sgd"])


def test_damaged_and_strange_files(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    trained(RECIPES["sgd"], F.cross_entropy, checkpoint=path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refused(path, make_net(), RECIPES["sgd"])
    path.write_text("hello")
    assert "cannot be read" in refused(path, make_net(), RECIPES["sgd"])
    torch.save({"a": 1}, path)
    assert "no checkpoint of fine_tune_" in refused(path, make_net(), RECIPES["sgd"])
    torch.save({"format": "compressor-training", "version": 99}, path)
    assert "format version 99" in refused(path, make_net(), RECIPES["sgd"])


def test_a_file_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    path, trap = tmp_path / "training.pt", tmp_path / "trap"
    torch.save({"format": partial(os.mkdir, str(trap))}, path)

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(trap),)

    torch.save(Evil(), path)
    assert "cannot be read" in refused(path, make_net(), RECIPES["sgd"])
    assert not trap.exists()


def test_state_that_needs_a_pickle_is_refused_when_written(tmp_path: Path) -> None:
    class Odd(torch.optim.SGD):
        def state_dict(self) -> Any:
            return {**super().state_dict(), "odd": object()}

    with pytest.raises(InputError, match=r"checkpoint\['optimizer'\]\['odd'\] is a object"):
        fine_tune_(
            make_net(),
            make_loader(),
            F.cross_entropy,
            Recipe(epochs=1, optimizer=Odd),
            checkpoint=tmp_path / "c.pt",
        )
    assert list(tmp_path.iterdir()) == []


def test_state_outside_of_tensors_is_refused(tmp_path: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> Any:
            return 1

    net = nn.Sequential(nn.Flatten(), Counting(36, 3))
    with pytest.raises(ModelError, match=r"'1' \(Counting\) has extra state"):
        fine_tune_(net, make_loader(), F.cross_entropy, checkpoint=tmp_path / "c.pt")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused_at_end(tmp_path / "file" / "c.pt")


def refused_at_end(path: Path) -> str:
    with pytest.raises(FileError) as caught:
        fine_tune_(make_net(), make_loader(), F.cross_entropy, RECIPES["sgd"], checkpoint=path)
    return str(caught.value)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    _, history = trained(RECIPES["everything"], F.cross_entropy, checkpoint=path)
    settings = settings_of(RECIPES["everything"], 4, F.cross_entropy, validation(), None)
    state = read_checkpoint(path, make_net(), RECIPES["everything"], settings)
    assert state["losses"] == list(history.losses) and state["epoch"] == 3
    assert [file.name for file in tmp_path.iterdir()] == ["training.pt"]
