"""Two processes that train together end where one does, and masks that differ are refused."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from compressor.errors import InputError
from compressor.training.sparsity import Decay, MaskSparsity, Proximal, Subgradient, Within
from tests.training.sparsity.nets import Planned

STEPS = 4
FORMS = (Subgradient(0.2), Proximal(Within([0.05] * STEPS)))


def _net() -> nn.Module:
    """GroupNorm: its statistics are of one example, so that two halves of a batch are the batch."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.GroupNorm(4, 4)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)),
    )


def _batch() -> torch.Tensor:
    return torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def _trained(p: Planned, net: nn.Module, x: torch.Tensor, y: torch.Tensor, form: int) -> None:
    optimizer = SGD(net.parameters(), 0.05, momentum=0.9)
    with MaskSparsity(p.plan, p.graph, FORMS[form], shift=Decay(STEPS)).attach(optimizer):
        for _ in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()


def _worker(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        net, x, y = _net(), _batch(), torch.arange(8) % 4
        p = Planned(net, x)
        mine = slice(4 * rank, 4 * rank + 4)
        for form in range(len(FORMS)):
            net.load_state_dict(_net().state_dict())
            _trained(p, DistributedDataParallel(net), x[mine], y[mine], form)
            torch.save(net.state_dict(), folder / f"{form}-{rank}.pt")
        other = Planned(net, x, seed=rank)
        optimizer = SGD(net.parameters(), 0.1)
        with pytest.raises(
            InputError, match=rf"process {rank} has another mask .* than processes \[{1 - rank}\]"
        ):
            MaskSparsity(other.plan, other.graph, Proximal(0.1)).attach(optimizer)
        (folder / f"{rank}.done").touch()
    finally:
        distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    multiprocessing.spawn(_worker, (_free_port(), tmp_path), nprocs=2)
    assert all((tmp_path / f"{rank}.done").exists() for rank in (0, 1))
    x = _batch()
    for form in range(len(FORMS)):
        alone = _net()
        _trained(Planned(alone, x), alone, x, torch.arange(8) % 4, form)
        first, second = (torch.load(tmp_path / f"{form}-{rank}.pt") for rank in (0, 1))
        for name, tensor in alone.state_dict().items():
            assert torch.equal(first[name], second[name]), name
            torch.testing.assert_close(first[name], tensor, rtol=1e-4, atol=1e-6)
