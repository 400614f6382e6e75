"""What a store reads, and how it says that its files are not what was written."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compressor.errors import FileError, InputError
from compressor.filters.store import Store, StoreWriter, StreamedLayer
from tests.filters.store.zoo import banks_of


def test_layers_of_unknown_filters_give_kernels_and_no_bank(tmp_path: Path) -> None:
    rows = torch.randn(12, 9)
    with StoreWriter(tmp_path) as writer:
        writer.add("net", [StreamedLayer("conv", 12, [rows])])
    store = Store.open(tmp_path)
    assert torch.equal(store.kernels(store.layers[0]), rows)
    with pytest.raises(InputError, match=r"layer 0 \(net: conv\) is known by its kernels only"):
        list(store.banks())


def test_a_store_is_a_value_that_other_processes_can_be_given(store: Store) -> None:
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert torch.equal(again.kernels(again.layers[2]), store.kernels(store.layers[2]))


def test_some_layers_are_a_store_too(store: Store) -> None:
    some = store.of(store.layers[5:7])
    assert [bank.name for bank in some.banks()] == ["layer1", "layer2"]
    assert (some.count, some.models, some.table.num_rows) == (8 + 128, ("beta",), 2)
    assert "2 layers of 1 models, 136 kernels of 3 x 3" in repr(some)


def test_what_is_no_layer_is_refused(store: Store) -> None:
    for read in (store.kernels, store.bank, lambda layer: next(store.chunks(layer))):
        with pytest.raises(InputError, match=r"a layer of a store is one of store\.layers, got int"):
            read(0)


def test_layers_of_another_store_are_noticed(store: Store) -> None:
    last = replace(store.layers[-1], count=2)
    with pytest.raises(FileError, match=r"holds 1 kernels of layer 11 \(gamma: layer3\), expected 2"):
        store.kernels(last)


def test_a_store_can_be_moved(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    banks = Store.open(tmp_path / "elsewhere").banks()
    assert torch.equal(next(banks).weight, banks_of("alpha")[0].weight)


def test_truncated_and_missing_files_are_named_when_the_store_is_opened(folder: Path) -> None:
    kernels, layers = folder / "kernels" / "000001.parquet", folder / "layers" / "000002.parquet"
    os.truncate(kernels, 100)
    layers.unlink()
    with pytest.raises(FileError, match="2 files of the store are not as written") as caught:
        Store.open(folder)
    assert "kernels/000001.parquet: has 100 bytes, expected" in str(caught.value)
    assert "layers/000002.parquet: is missing (gamma)" in str(caught.value)
    with pytest.raises(FileError, match=r"the file layers/000002\.parquet is missing"):
        StoreWriter(folder)


def _flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.write_bytes(bytes(content))


def test_a_changed_byte_of_the_kernels_is_noticed_when_they_are_read(folder: Path, store: Store) -> None:
    # Checksums of pages cover the values; what else a file holds is for `verify`.
    file = folder / "kernels" / "000000.parquet"
    whole = file.read_bytes()
    expected = [bank.weight for bank in banks_of("alpha")]
    for at in range(4, len(whole), 97):
        _flip(file, at)
        try:
            found = [store.bank(layer).weight for layer in store.layers[:4]]
        except FileError as error:
            assert "000000.parquet" in str(error)
        else:
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), at
        file.write_bytes(whole)


def test_files_that_change_places_are_noticed(folder: Path, store: Store) -> None:
    first, second = (folder / "kernels" / f"00000{i}.parquet" for i in (0, 1))
    spare = first.with_name("spare")
    first.rename(spare)
    second.rename(first)
    spare.rename(second)
    with pytest.raises(FileError, match=r"layer 0 \(alpha: layer0\) cannot be read.*holds the layers 4 to 4"):
        store.kernels(store.layers[0])


def test_a_torn_last_line_counts_for_nothing_and_a_changed_one_is_an_error(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = folder / "models.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-20])
    assert Store.open(folder).models == ("alpha", "beta")
    assert "its last line is torn" in caplog.text
    journal.write_bytes(whole.replace(b'"kernels": ', b'"kernels": 1', 1))
    with pytest.raises(FileError, match=r"models\.jsonl: line 1 was changed or damaged"):
        Store.open(folder)
    journal.write_bytes(b"\n".join(whole.split(b"\n")[1:]))
    with pytest.raises(FileError, match=r"line 1 is of part 1 from key 4, expected 0 from 0"):
        Store.open(folder)
