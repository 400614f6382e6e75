"""Tables of sketches: files, groups, merging."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from compressor.errors import FileError, InputError
from compressor.filters import FilterBank
from compressor.filters.sketching import Sketches, SketchSetting, sketch_all
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.sketching.store_source import Stored
from compressor.filters.store import Store, StoreWriter
from tests.filters.sketching.synthetic import Made, basis_of, kernels_of, setting_of

SETTING = setting_of()


@pytest.fixture(scope="module")
def made() -> Sketches:
    return sketch_all(Made.of(6), SETTING)


def test_a_file_keeps_every_bit(made: Sketches, tmp_path: Path) -> None:
    made.write(tmp_path / "some.parquet")
    read = Sketches.read(tmp_path / "some.parquet")
    assert read.layers == made.layers and not read.setting.differences(made.setting)
    for (_, one), (_, other) in zip(made, read, strict=True):
        assert torch.equal(one.counts_KB, other.counts_KB) and torch.equal(one.sparse_2E, other.sparse_2E)
        for name in ("raw", "clean", "scaled", "scaled_clean"):
            first, second = getattr(one, name), getattr(other, name)
            assert first.count == second.count and torch.equal(first.mean_K, second.mean_K)
            assert torch.equal(first.scatter_KK, second.scatter_KK)
        assert [getattr(one, n) for n in ("layers", "peak", "zeros", "dead_filters")] == [
            getattr(other, n) for n in ("layers", "peak", "zeros", "dead_filters")
        ]
    assert list(tmp_path.iterdir()) == [tmp_path / "some.parquet"]


def test_a_layer_takes_some_kilobytes(made: Sketches) -> None:
    assert made.to_arrow().nbytes / len(made) < 8192


def test_files_that_are_none_are_refused(made: Sketches, tmp_path: Path) -> None:
    file = tmp_path / "some.parquet"
    with pytest.raises(FileError, match=r"some.parquet: no sketches can be read"):
        Sketches.read(file)
    made.write(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"some.parquet: no sketches can be read"):
        Sketches.read(file)
    changed = bytearray(whole)
    changed[len(whole) // 3] ^= 255
    file.write_bytes(changed)
    with pytest.raises(FileError, match=r"some.parquet: no sketches can be read"):
        Sketches.read(file)
    with pytest.raises(FileError, match=r"expected a table of sketches of version 1, got another table"):
        Sketches.from_arrow(pa.table({"a": [1]}))


def test_groups_are_merged_sketches(made: Sketches) -> None:
    groups = made.group(lambda layer: layer.model)
    assert {label: group.layers for label, group in groups.items()} == {"model0": 4, "model1": 2}
    assert torch.equal(sum(group.counts_KB for group in groups.values()), made.total().counts_KB)
    assert list(made.group(lambda layer: layer.layer_id or None)) == [1, 2, 3]  # None is left out
    assert len(made.chosen(lambda layer: layer.layer_id == 0)) == 2


def test_tables_merge_once(made: Sketches) -> None:
    one, other = made.chosen(lambda layer: layer.key < 3), made.chosen(lambda layer: layer.key >= 3)
    assert one.merge(other).to_arrow().equals(made.to_arrow())
    with pytest.raises(InputError, match=r"model0: conv \(layer_id 0\) is in twice, and a layer counts once"):
        made.merge(one)
    with pytest.raises(InputError, match="model1: conv was sketched in another way; bins: 70 and 64"):
        one.merge(
            sketch_all(Made.of(6), SketchSetting(basis_of(), bins=64)).chosen(lambda layer: layer.key >= 4)
        )
    with pytest.raises(InputError, match="6 layers and 5 sketches"):
        Sketches(SETTING, made.layers, made.sketches[1:])


def test_a_store_gives_the_sketches_of_its_banks(pool: ProcessPoolExecutor, tmp_path: Path) -> None:
    banks = [
        FilterBank(kernels_of(seed).reshape(64, 32, 3, 3), f"conv{seed}", model="net", layer_id=seed)
        for seed in range(3)
    ]
    with StoreWriter(tmp_path / "store") as writer:
        writer.add("net", banks, metadata={"task": "Classification"})
    store = Store.open(tmp_path / "store")
    stored = sketch_all(store, SETTING, executor=pool, into=tmp_path / "run")
    for (_, one), (_, other) in zip(stored, sketch_all(banks, SETTING), strict=True):
        assert torch.equal(one.counts_KB, other.counts_KB) and torch.equal(
            one.raw.scatter_KK, other.raw.scatter_KK
        )
        assert one.dead_filters == other.dead_filters
    groups = Sketches.read(tmp_path / "run" / "sketches.parquet").group(lambda layer: layer.metadata["task"])
    assert list(groups) == ["Classification"]
    assert Stored(store).identity != Stored(store.of(store.layers[1:])).identity


def test_the_total_of_layers_is_the_sketch_of_their_kernels(made: Sketches) -> None:
    assert made.total().count == sum(sketch.count for sketch in made.sketches)
    assert isinstance(made.total(), Sketch) and made.total().layers == 6


def test_quality_has_a_row_for_each_layer(made: Sketches) -> None:
    rows = made.quality()
    assert [row.name for row in rows] == [str(layer) for layer in made.layers]
    assert all(row.count == 2048 and row.filters == 64 and row.dead_filters >= 0 for row in rows)


def test_drifts_are_between_every_two_groups(made: Sketches) -> None:
    found = made.drifts(lambda layer: layer.layer_id)
    assert list(found) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    groups = made.group(lambda layer: layer.layer_id)
    assert found[1, 3] == groups[1].drift(groups[3])
