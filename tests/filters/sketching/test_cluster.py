"""A Dask cluster: a scheduler and two worker processes of their own, one of which may die."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from compressor.errors import InputError, MeasurementError
from compressor.filters.sketching import group_on_cluster, sketch_all, sketch_on_cluster
from tests.filters.sketching.synthetic import Made, setting_of

distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
SETTING = setting_of()


@pytest.fixture(scope="module")
def client() -> Iterator[object]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=0
        ) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


def test_a_cluster_makes_the_table_of_one_process(client, tmp_path: Path) -> None:
    made = sketch_on_cluster(Made.of(10), SETTING, client, into=tmp_path)
    assert made.to_arrow().equals(sketch_all(Made.of(10), SETTING).to_arrow())
    # The folder is that of any other run.
    assert sketch_all(Made.of(10), SETTING, into=tmp_path).to_arrow().equals(made.to_arrow())


def test_groups_merge_as_a_tree_on_the_workers(client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.filters.sketching.tasks._TASK_KERNELS", 1)
    made = group_on_cluster(Made.of(10), SETTING, client, by=lambda layer: layer.model, split_every=2)
    expected = sketch_all(Made.of(10), SETTING).group(lambda layer: layer.model)
    assert made.keys() == expected.keys()
    for label, sketch in made.items():
        assert torch.equal(sketch.counts_KB, expected[label].counts_KB)
        torch.testing.assert_close(
            sketch.raw.scatter_KK, expected[label].raw.scatter_KK, rtol=1e-12, atol=1e-12
        )
    with pytest.raises(InputError, match="a Made without layers"):
        group_on_cluster(Made.of(0), SETTING, client, by=lambda layer: layer.model)


def test_errors_name_the_layer(client) -> None:
    source = Made.of(3, faults={1: "raise"})
    with pytest.raises(MeasurementError, match=r"model0: conv could not be sketched \(ZeroDivisionError"):
        sketch_on_cluster(source, SETTING, client)
    with pytest.raises(MeasurementError, match=r"model0: conv could not be sketched \(ZeroDivisionError"):
        group_on_cluster(source, SETTING, client, by=lambda layer: layer.model)
    made = sketch_on_cluster(source, SETTING, client, skip_unreadable=True)
    assert [layer.key for layer in made.layers] == [0, 2]


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(InputError, match=r"client is a distributed.Client, got str"):
        sketch_on_cluster(Made.of(1), SETTING, "tcp://127.0.0.1:8786")


def test_the_death_of_a_worker_is_survived(client, tmp_path: Path) -> None:
    source = Made.of(6, faults={3: f"die{tmp_path / 'died'}"})
    made = sketch_on_cluster(source, SETTING, client)
    assert (tmp_path / "died").exists()
    assert made.to_arrow().equals(sketch_all(Made.of(6), SETTING).to_arrow())


@pytest.mark.slow
def test_a_layer_that_kills_every_worker_is_told(client) -> None:
    with pytest.raises(MeasurementError, match=r"a worker died while model0: conv .*KilledWorker"):
        sketch_on_cluster(Made.of(2, faults={1: "die"}), SETTING, client)
