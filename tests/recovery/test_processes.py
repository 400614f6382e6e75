"""Two processes with half of the data each recover as one with all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn

import compressor as cp
from compressor.errors import InputError
from compressor.recovery import Reconstruction, reestimate_batch_norm_


def recovered(rank: int | None) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten()
    ).double()
    data = [torch.randn(n, 3, 5, 5, dtype=torch.float64) for n in (9, 5, 9, 5)]
    own, processes = (data, None) if rank is None else (data[rank::2], "all")
    reestimate_batch_norm_(net, own, processes=processes)
    small = cp.prune(net.eval(), data[0], budget=cp.budget.Uniform(0.4))
    plan = cp.plan_of(small)
    assert plan is not None
    Reconstruction(own, places=None, processes=processes)(small, net, plan)
    return {**net.state_dict(), **{f"small.{name}": value for name, value in small.state_dict().items()}}


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    torch.save(recovered(rank), folder / f"{rank}.pt")
    with pytest.raises(InputError, match="2 processes are running"):
        reestimate_batch_norm_(nn.BatchNorm1d(2), [torch.randn(4, 2)])
    distributed.destroy_process_group()


def test_two_processes_recover_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    expected = recovered(None)
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pt").items():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11)
