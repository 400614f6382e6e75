"""Two processes that score half of the data each, against one that scores all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn

import compressor as cp
from compressor.core.graph import Graph
from compressor.errors import ScoreError
from compressor.scoring import BetaRank

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "paper": {"direction": "paper"},
    "balanced": {"balanced": True, "n_classes": 3},
    "pooled": {"positions": "pool"},
    "published": {"published": True},
}


def graph_and_data() -> tuple[Graph, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, groups=2),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3),
        nn.Flatten(),
    )
    # Uneven batches; class 2 is in the data of one process only.
    labels = [torch.tensor(row) for row in ([0, 0, 1], [1, 2], [0, 1, 0, 0], [0, 2, 2])]
    data = [(torch.randn(len(row), 3, 5, 5) + 2 * row[:, None, None, None], row) for row in labels]
    return cp.capture(model.eval(), data[0][0]), data


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    graph, data = graph_and_data()
    found = {
        name: cp.score(graph, BetaRank(data[rank::2], **options), processes="all").values
        for name, options in OPTIONS.items()
    }
    found["own"] = cp.score(graph, BetaRank(data[rank::2]), processes="this").values
    np.savez(folder / f"scores{rank}.npz", **found)
    sizes = [(torch.randn(4, 3, 5 + rank, 5 + rank), None)]
    flexible = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    try:
        cp.score(cp.capture(flexible, data[0][0]), BetaRank(sizes), processes="all")
    except ScoreError as error:
        (folder / f"refused{rank}").write_text(str(error))
    distributed.destroy_process_group()


def test_two_processes_score_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    found = [np.load(tmp_path / f"scores{rank}.npz") for rank in range(2)]
    graph, data = graph_and_data()
    for name, options in OPTIONS.items():
        expected = cp.score(graph, BetaRank(data, **options)).values
        assert np.array_equal(found[0][name], found[1][name]), name
        np.testing.assert_allclose(found[0][name], expected, rtol=1e-6, err_msg=name)
    for rank in range(2):
        expected = cp.score(graph, BetaRank(data[rank::2])).values
        np.testing.assert_allclose(found[rank]["own"], expected, rtol=1e-9)
        assert "'0.weight' was not run in all processes" in (tmp_path / f"refused{rank}").read_text()
    assert not np.allclose(found[0]["own"], found[0]["plain"], rtol=1e-2)
