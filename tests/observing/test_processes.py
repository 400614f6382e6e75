"""Statistics of several processes, merged where all take part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.functional import cross_entropy

import compressor as cp
from compressor.errors import InputError
from compressor.observing import across, gathered, merged


def test_one_process_is_its_own_total() -> None:
    statistic = torch.arange(3.0)
    for processes in ("all", "this", None):
        with across(processes):
            assert merged(statistic) is statistic and gathered(statistic) == [statistic]


def test_other_words_are_refused() -> None:
    with pytest.raises(InputError, match="'all' or 'this'"), across("both"):
        pass


def model_and_data() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten())
    data = [(torch.randn(5, 3, 5, 5), torch.randint(0, 4, (5,))) for _ in range(4)]
    return model, data


def one_of_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    model, data = model_and_data()
    graph = cp.capture(model, data[0][0])
    taylor = cp.scoring.Taylor(data[rank::2], cross_entropy)
    try:
        cp.score(graph, taylor)
    except InputError as error:
        (folder / f"refused{rank}").write_text(str(error))
    scores = {which: cp.score(graph, taylor, processes=which).values for which in ("all", "this")}
    activation = cp.scoring.MeanActivation(data[rank::2])
    scores["activation"] = cp.score(graph, activation, processes="all").values
    statistic = torch.tensor([float(rank), 1.0])
    with across("all"):
        scores["sum"], scores["each"] = merged(statistic).numpy(), torch.stack(gathered(statistic)).numpy()
    np.savez(folder / f"scores{rank}.npz", **scores)
    distributed.destroy_process_group()


def test_two_processes_score_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (tmp_path,), nprocs=2)
    found = [np.load(tmp_path / f"scores{rank}.npz") for rank in range(2)]
    model, data = model_and_data()
    graph = cp.capture(model, data[0][0])
    expected = cp.score(graph, cp.scoring.Taylor(data, cross_entropy)).values
    activation = cp.score(graph, cp.scoring.MeanActivation(data)).values
    for rank in range(2):
        np.testing.assert_allclose(found[rank]["activation"], activation, rtol=1e-9)
        assert np.array_equal(found[rank]["all"], found[0]["all"])
        np.testing.assert_allclose(found[rank]["all"], expected, rtol=1e-9)
        assert found[rank]["sum"].tolist() == [1.0, 2.0]
        assert found[rank]["each"].tolist() == [[0.0, 1.0], [1.0, 1.0]]
        assert "2 processes are running" in (tmp_path / f"refused{rank}").read_text()
    assert not np.allclose(found[0]["this"], found[1]["this"])
