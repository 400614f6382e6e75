"""Two processes train as one with the same global batches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import compressor as cp
from compressor.errors import InputError
from compressor.training import (
    Adversarial,
    GradualPruning,
    History,
    Recipe,
    Validation,
    accuracy,
    fine_tune_,
    sparsity,
    step_rates,
)
from tests.training.conftest import make_data

RECIPE = Recipe(epochs=3, lr=0.05, accumulate=2, clip_norm=1.0, ema=0.9)


def network() -> nn.Module:
    """No batch norm: its statistics would be those of each process's share."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3)
    )


def shares(rank: int, world: int, batch: int, n: int = 24) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    data = TensorDataset(*make_data(n))
    sampler = DistributedSampler(data, world, rank, seed=7)
    return DataLoader(data, batch, sampler=sampler)


def validation(rank: int, world: int) -> Validation:
    """13 samples: the sampler pads them to 14, and one of them would count twice."""
    data = TensorDataset(*make_data(13, seed=5))
    sampler = DistributedSampler(data, world, rank, shuffle=False)
    return Validation(batches=DataLoader(data, 3, sampler=sampler))


def trained(rank: int, world: int, *, checkpoint: Path | None = None) -> tuple[nn.Module, History]:
    model = network()
    history = fine_tune_(
        model,
        shares(rank, world, 6 // world),
        F.cross_entropy,
        RECIPE,
        validation=validation(rank, world),
        checkpoint=checkpoint,
    )
    return model, history


def planned(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], **options: Any) -> cp.Plan:
    """A plan by gradients on these batches."""
    graph = cp.capture(model, make_data()[0])
    scores = cp.score(graph, cp.scoring.Taylor(batches, F.cross_entropy), **options)
    return cp.plan(scores, cp.budget.Uniform(0.5))


def emptied(model: nn.Module, plan: cp.Plan, loader: Any) -> nn.Module:
    """The model after sparse training."""
    graph = cp.capture(model, make_data()[0])
    recipe = Recipe(epochs=2, lr=0.05)
    within = sparsity.Within(step_rates(recipe, len(loader)))
    penalty = sparsity.MaskSparsity(plan, graph, sparsity.Proximal(within))
    fine_tune_(model, loader, F.cross_entropy, recipe, regularizer=penalty)
    return model


def competed(rank: int, world: int) -> dict[str, Any]:
    """A model and its discriminator after adversarial training; the first process's weights count."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 1))
    judge = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 1))
    if rank:
        nn.init.zeros_(judge[0].weight)  # type: ignore[arg-type]
    x = make_data(24)[0]
    data = TensorDataset(x, x - 0.2)
    batches = DataLoader(data, 4 // world, sampler=DistributedSampler(data, world, rank, seed=1))
    loss = Adversarial(judge, weight=0.3, optimizer=partial(torch.optim.SGD, lr=0.3))
    fine_tune_(model, batches, loss, Recipe(epochs=2, lr=0.05))
    return {"model": model.state_dict(), "judge": judge.state_dict()}


class Stopping:
    """Cross entropy, by whose name it goes, and an error in the eleventh call: in the third epoch."""

    calls = 0

    def __init__(self) -> None:
        self.__qualname__ = F.cross_entropy.__qualname__

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 11:
            raise ZeroDivisionError
        return F.cross_entropy(output, target)


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    model, history = trained(rank, 2, checkpoint=folder / "whole.pt")
    found: dict[str, Any] = {
        "model": model.state_dict(),
        "losses": history.losses,
        "metrics": history.metrics,
    }
    # Scored on halves, trained sparsely on halves.
    x, y = make_data()
    halves = [(x[i : i + 4], y[i : i + 4]) for i in range(0, 24, 4)][rank::2]
    plan = planned(network(), halves, processes="all")
    found["plan"] = plan.to_json()
    found["emptied"] = emptied(network(), plan, shares(rank, 2, 3)).state_dict()
    found["competed"] = competed(rank, 2)
    try:
        GradualPruning(network(), x, budget=cp.budget.Uniform(0.5), steps=2)
    except InputError as error:
        found["gradual"] = str(error)
    # Stopped by an error, and taken up: each process goes on with its own random numbers.
    try:
        fine_tune_(
            network(),
            shares(rank, 2, 3),
            Stopping(),
            RECIPE,
            validation=validation(rank, 2),
            checkpoint=folder / "part.pt",
        )
    except ZeroDivisionError:
        found["stopped"] = True
    found["resumed"] = trained(rank, 2, checkpoint=folder / "part.pt")[0].state_dict()
    # Batch norms see other samples in each process; afterwards all have the same statistics.
    norm = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(36, 3))
    fine_tune_(norm, shares(rank, 2, 3), F.cross_entropy, Recipe(epochs=1))
    found["norm"] = norm.state_dict()
    try:
        fine_tune_(model, DataLoader(TensorDataset(*make_data()), 6), F.cross_entropy, RECIPE)
    except InputError as error:
        found["refused"] = str(error)
    torch.save(found, folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(one_of_two, (folder,), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(2)]


def test_two_processes_train_as_one(ranks: list[dict[str, object]]) -> None:
    model, history = trained(0, 1)
    for rank in ranks:
        torch.testing.assert_close(rank["model"], model.state_dict(), rtol=0, atol=1e-5)
        assert rank["losses"] == pytest.approx(history.losses, abs=1e-6)
        assert rank["metrics"] == history.metrics
    assert not torch.equal(model[0].weight, network()[0].weight)  # type: ignore[index]


def test_the_metric_counts_every_sample_once(ranks: list[dict[str, object]]) -> None:
    images, labels = make_data(13, seed=5)
    model = network()
    state = ranks[0]["model"]
    assert isinstance(state, dict)
    model.load_state_dict(state)
    metrics = ranks[0]["metrics"]
    assert isinstance(metrics, tuple)
    assert max(metrics) == accuracy(model(images), labels)


@pytest.mark.parametrize("what", ["model", "norm", "resumed", "competed"])
def test_all_processes_hold_the_same(ranks: list[dict[str, object]], what: str) -> None:
    torch.testing.assert_close(ranks[0][what], ranks[1][what], rtol=0, atol=0)


def test_a_training_of_two_is_taken_up(ranks: list[dict[str, object]]) -> None:
    assert ranks[0]["stopped"] and ranks[1]["stopped"]
    torch.testing.assert_close(ranks[0]["resumed"], ranks[0]["model"], rtol=0, atol=0)


def test_two_processes_plan_as_one(ranks: list[dict[str, object]]) -> None:
    x, y = make_data()
    expected = planned(network(), list(zip(x.split(4), y.split(4), strict=True)))
    assert [cp.Plan.from_json(str(rank["plan"])) for rank in ranks] == [expected, expected]


def test_two_processes_train_sparsely_as_one(ranks: list[dict[str, object]]) -> None:
    plan = cp.Plan.from_json(str(ranks[0]["plan"]))
    expected = emptied(network(), plan, shares(0, 1, 6)).state_dict()
    removed = next(cut.removed for cut in plan.cuts if cut.tensor == "1.weight")
    assert expected["1.weight"][list(removed)].eq(0).all()
    for rank in ranks:
        torch.testing.assert_close(rank["emptied"], expected, rtol=0, atol=1e-5)


def test_two_processes_compete_as_one(ranks: list[dict[str, object]]) -> None:
    for rank in ranks:
        torch.testing.assert_close(rank["competed"], competed(0, 1), rtol=0, atol=1e-5)


def test_pruning_under_the_buffers_of_ddp_is_refused(ranks: list[dict[str, object]]) -> None:
    assert all("between two trainings" in str(rank["gradual"]) for rank in ranks)


def test_the_same_data_in_every_process_is_refused(ranks: list[dict[str, object]]) -> None:
    assert all("DistributedSampler" in str(rank["refused"]) for rank in ranks)


def test_a_checkpoint_of_two_processes_is_not_for_one(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    trained(0, 1, checkpoint=path)
    state = torch.load(path, weights_only=True)
    torch.save({**state, "processes": state["processes"] * 2}, path)
    with pytest.raises(InputError, match="written by 2 processes, now there are 1"):
        trained(0, 1, checkpoint=path)
