"""What goes into a store comes out of it, and what should not go in is refused whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from compressor.errors import FileError, InputError
from compressor.filters import FilterBank
from compressor.filters.store import Store, StoreWriter, StreamedLayer, arrow, verify_store
from compressor.filters.store import journal as journal_file
from tests.filters.store.conftest import NAMES
from tests.filters.store.zoo import banks_of, metadata_of


def test_banks_come_back_to_the_bit_with_all_that_was_said_of_them(store: Store) -> None:
    expected = [bank for name in NAMES for bank in banks_of(name)]
    found = list(store.banks())
    assert len(found) == len(expected) == len(store.layers)
    for got, bank in zip(found, expected, strict=True):
        assert torch.equal(got.weight, bank.weight)
        for field in (
            "name",
            "model",
            "layer_id",
            "conv_depth",
            "conv_depth_norm",
            "groups",
            "transposed",
            "folded",
        ):
            assert getattr(got, field) == getattr(bank, field)
    for layer, bank in zip(store.layers, expected, strict=True):
        assert layer.peak == float(bank.weight.abs().max())
        assert layer.metadata == metadata_of(layer.model)
        assert (layer.source, layer.source_sha256, layer.count) == (f"{layer.model}.onnx", "ab", bank.count)
    assert store.count == sum(bank.count for bank in expected)
    assert store.models == NAMES


def test_the_files_are_parquet_that_other_tools_read(folder: Path) -> None:
    """Read with pyarrow alone: the columns, the key of the layer, one layer in a row group."""
    (first, *_), banks = sorted((folder / "kernels").iterdir()), banks_of(NAMES[0])
    table = pq.read_table(first)
    assert table.column_names == ["layer", *(f"f{i}" for i in range(9))]
    assert table["f4"].to_numpy().tolist() == torch.cat([bank.kernels for bank in banks])[:, 4].tolist()
    keys = table["layer"].to_numpy()
    assert np.array_equal(np.bincount(keys), [bank.count for bank in banks])
    footer = pq.read_metadata(first)
    column = footer.row_group(2).column(5)
    assert column.compression == "ZSTD"
    assert "BYTE_STREAM_SPLIT" in column.encodings
    assert footer.num_row_groups == len(banks)


def test_large_layers_fall_into_row_groups_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "_GROUP_BYTES", 100 * 36)
    rows = torch.randn(1050, 9)
    parts = [rows[:30], rows[30:30], rows[30:500], rows[500:501], rows[501:]]  # parts of any size
    with StoreWriter(tmp_path) as writer:
        writer.add(
            "net", [StreamedLayer("conv", 1050, parts, out_channels=50, in_channels=21), *banks_of("net")]
        )
    store = Store.open(tmp_path)
    assert [len(chunk) for chunk in store.chunks(store.layers[0])] == [100] * 10 + [50]
    assert torch.equal(store.kernels(store.layers[0]), rows)
    assert torch.equal(store.bank(store.layers[0]).weight, rows.view(50, 21, 3, 3))
    assert [layer.row_group for layer in store.layers[:3]] == [0, 11, 12]
    assert torch.equal(store.bank(store.layers[3]).weight, banks_of("net")[2].weight)


@pytest.mark.parametrize("size", [(1,), (5, 5), (3, 3, 3), (7,)])
def test_kernels_of_any_size_have_a_store_of_their_own(tmp_path: Path, size: tuple[int, ...]) -> None:
    with StoreWriter(tmp_path, kernel_size=size) as writer:
        writer.add("net", banks_of("net", size))
    store = Store.open(tmp_path)
    assert store.kernel_size == size
    assert all(
        torch.equal(a.weight, b.weight) for a, b in zip(store.banks(), banks_of("net", size), strict=True)
    )
    with (
        StoreWriter(tmp_path, kernel_size=size) as writer,
        pytest.raises(InputError, match=r"kernels are a floating"),
    ):
        writer.add("other", [FilterBank(torch.ones(2, 2, 9, 9), "wide")])
    with pytest.raises(
        InputError, match=r"is a store of kernels of .* and kernels of 4 x 4 .* was asked for"
    ):
        StoreWriter(tmp_path, kernel_size=(4, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_that_float32_holds_are_stored_as_such(tmp_path: Path, dtype: torch.dtype) -> None:
    banks = banks_of("net", dtype=dtype)  # of float32 values, or narrower ones
    with StoreWriter(tmp_path) as writer:
        writer.add("net", banks)
    found = list(Store.open(tmp_path).banks())
    assert all(torch.equal(got.weight, bank.weight.float()) for got, bank in zip(found, banks, strict=True))


def test_values_that_float32_does_not_hold_are_kept_or_rounded_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weight = torch.ones(2, 2, 3, 3, dtype=torch.float64)
    weight[0, 0] = 1 / 3
    bank = FilterBank(weight, "conv")
    with (
        StoreWriter(tmp_path / "a") as writer,
        pytest.raises(
            InputError, match=r"net: conv: 9 of 36 values are not exactly float32; dtype=torch\.float64"
        ),
    ):
        writer.add("net", [bank])
    with StoreWriter(tmp_path / "b", dtype=torch.float64) as writer:
        writer.add("net", [bank])
    (wide,) = Store.open(tmp_path / "b").banks()
    assert torch.equal(wide.weight, weight)
    with StoreWriter(tmp_path / "c", allow_rounding=True) as writer:
        writer.add("net", [bank])
        assert "9 of 36 values are not exactly float32; they are rounded" in caplog.text
        with pytest.raises(InputError, match="rounded to float32, holds 1 value that is NaN or infinite"):
            weight[1, 1, 1, 1] = 1e300
            writer.add("vast", [bank])
    (narrow,) = Store.open(tmp_path / "c").banks()
    assert torch.equal(narrow.weight[0, 0], torch.full((3, 3), 1 / 3))


def _bad(name: str) -> list[object]:
    good = banks_of("net")
    nan = torch.ones(6, 9)
    nan[2, 3] = torch.nan
    return {
        "not finite": [good[0], StreamedLayer("nan", 6, [nan])],
        "too few": [good[0], StreamedLayer("few", 7, [torch.ones(6, 9)])],
        "none": [StreamedLayer("empty", 0, [])],
        "no layers": [],
        "other size": [good[0], FilterBank(torch.ones(2, 2, 5, 5), "wide")],
        "whole numbers": [StreamedLayer("whole", 6, [np.ones((6, 9), np.int64)])],
        "channels": [StreamedLayer("odd", 6, [torch.ones(6, 9)], out_channels=4, in_channels=2)],
        "one channel": [StreamedLayer("odd", 6, [torch.ones(6, 9)], out_channels=6)],
        "another model's": [banks_of("other")[0]],
        "no bank": [torch.ones(2, 2, 3, 3)],
    }[name]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("not finite", r"net: nan holds 1 value that is NaN or infinite, first at \[2, 3\]"),
        ("too few", "net: few: 7 kernels were announced and 6 came"),
        ("none", "net: empty: 0 kernels were announced"),
        ("no layers", "model 'net' has no layers"),
        (
            "other size",
            r"net: wide: kernels are a floating \[n, 9\] or \[n, 3, 3\], got torch.float32 \[4, 5, 5\]",
        ),
        ("whole numbers", "net: whole: kernels are a floating"),
        ("channels", "net: odd: 4 filters of 2 kernels are 8, got 6"),
        ("one channel", "both known, or neither"),
        ("another model's", "layer0 is a bank of the model 'other' and was to be stored as 'net'"),
        ("no bank", "layers are FilterBanks or StreamedLayers, got Tensor"),
    ],
)
def test_a_model_that_is_refused_leaves_the_store_as_it_was(folder: Path, case: str, message: str) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with StoreWriter(folder) as writer:
        with pytest.raises(InputError, match=message):
            writer.add("net", _bad(case))
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        writer.add("net", banks_of("net"))
    assert Store.open(folder).models == (*NAMES, "net")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"task": 3}, "meta data 'task' is int here and str elsewhere"),
        ({"Task": "Style"}, "meta data 'Task' has the name of the column 'task'"),
        ({"Model": "x"}, "meta data 'Model' has the name of the column 'model'"),
        ({"count": 3}, "meta data 'count' has the name of the column 'count'"),
        ({"sizes": [1, 2]}, "meta data 'sizes' is a list; a column takes"),
        ({"Pretraining-Dataset": 1}, "is int here and bool elsewhere"),
        ({"": 1}, "names of meta data are strings"),
        ({"year": float("nan")}, "meta data 'year' is nan; None says that a value is missing"),
        ({"year": 1 << 63}, "a column takes whole numbers of 64 bits"),
    ],
)
def test_meta_data_that_cannot_be_a_column_is_refused(folder: Path, metadata: dict, message: str) -> None:
    with StoreWriter(folder) as writer, pytest.raises(InputError, match=message):
        writer.add("net", banks_of("net"), metadata=metadata)
    assert Store.open(folder).models == NAMES


def test_meta_data_may_lack_and_numbers_may_be_whole_or_not(folder: Path) -> None:
    with StoreWriter(folder) as writer:
        writer.add("net", banks_of("net"), metadata={"year": 2020.5, "task": None, "new": "x"})
        writer.add("last", [StreamedLayer("conv", 1, [torch.ones(1, 9)], metadata={"of the layer": 1.5})])
    table = Store.open(folder).table
    assert table["year"].to_pylist()[-5:] == [2020.5] * 4 + [None]
    assert table["task"].null_count == 5
    assert table["of the layer"].to_pylist()[-1] == 1.5
    assert table["layer_name"].to_pylist()[:2] == ["layer0", "layer1"]


def test_a_model_is_stored_once(folder: Path) -> None:
    with StoreWriter(folder) as writer:
        assert "beta" in writer
        assert "net" not in writer
        with pytest.raises(InputError, match="model 'beta' is in the store"):
            writer.add("beta", banks_of("beta"))


def test_two_processes_do_not_write_at_once(folder: Path) -> None:
    with StoreWriter(folder), pytest.raises(FileError, match="another process is writing"):
        StoreWriter(folder)
    writer = StoreWriter(folder)
    writer.close()
    with pytest.raises(InputError, match="the writer is closed"):
        writer.add("net", banks_of("net"))


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("…")
    with pytest.raises(FileError, match=r"is no store of filters and holds thesis\.tex"):
        StoreWriter(tmp_path)
    with pytest.raises(FileError, match=r"is no store of filters: it has no store\.json"):
        Store.open(tmp_path)
    (tmp_path / "thesis.tex").unlink()
    StoreWriter(tmp_path).close()
    assert Store.open(tmp_path).layers == ()


def test_a_store_of_another_version_or_dtype_is_named(folder: Path) -> None:
    with pytest.raises(InputError, match=r"in float32, and .* in float64 was asked for"):
        StoreWriter(folder, dtype=torch.float64)
    with pytest.raises(InputError, match=r"a store holds torch\.float32 or torch\.float64"):
        StoreWriter(folder, dtype=torch.float16)
    with pytest.raises(InputError, match="kernel_size is a tuple of positive lengths"):
        StoreWriter(folder, kernel_size=())
    head = folder / "store.json"
    said = json.loads(head.read_text())
    head.write_text(json.dumps({**said, "version": 2}))
    with pytest.raises(FileError, match="a store of version 2, and this library reads version 1"):
        Store.open(folder)
    for text in (
        "",
        "{}",
        "[]",
        json.dumps({**said, "format": "zip"}),
        json.dumps({**said, "dtype": "object x"}),
    ):
        head.write_text(text)
        with pytest.raises(FileError, match="is no head of a store"):
            Store.open(folder)


def test_a_store_that_was_only_begun_is_finished(tmp_path: Path) -> None:
    (tmp_path / "models.jsonl").touch()  # what comes first
    (tmp_path / ".store.json").write_text("{")
    with StoreWriter(tmp_path):
        pass
    for kind in ("kernels", "layers"):  # what comes last
        (tmp_path / kind).rmdir()
    with StoreWriter(tmp_path) as writer:
        writer.add("net", banks_of("net"))
    assert Store.open(tmp_path).models == ("net",)


def test_files_that_lost_their_lines_are_not_taken_for_unfinished_ones(folder: Path) -> None:
    journal = folder / "models.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole.split(b"\n")[0] + b"\n")
    with pytest.raises(
        FileError, match=r"no line of models\.jsonl speaks of kernels/000002\.parquet; lines were lost"
    ):
        StoreWriter(folder)
    journal.unlink()
    for read in (Store.open, StoreWriter):
        with pytest.raises(FileError, match=r"models\.jsonl: is missing, and with it the list of models"):
            read(folder)
    journal.write_bytes(whole)
    assert verify_store(folder).models == 3


def test_a_line_that_cannot_be_written_whole_is_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk = journal_file.on_disk

    def full(path: Path) -> None:
        if path == folder:
            raise OSError(28, "No space left on device")
        on_disk(path)

    with StoreWriter(folder) as writer:
        monkeypatch.setattr(journal_file, "on_disk", full)
        with pytest.raises(FileError, match=r"model 'net' cannot be written: .*No space left"):
            writer.add("net", banks_of("net"))
        monkeypatch.undo()
        assert "net" not in writer
        writer.add("other", banks_of("other"))
        writer.add("net", banks_of("net"))
    assert Store.open(folder).models == (*NAMES, "other", "net")
    assert verify_store(folder).models == 5


def test_kernels_of_zeros_and_layers_of_one_kernel_are_stored(tmp_path: Path) -> None:
    with StoreWriter(tmp_path) as writer:
        writer.add(
            "net", [FilterBank(torch.zeros(4, 2, 3, 3), "zeros"), FilterBank(torch.ones(1, 1, 3, 3), "one")]
        )
    zeros, one = Store.open(tmp_path).banks()
    assert not zeros.weight.any()
    assert one.count == 1
    assert [layer.peak for layer in Store.open(tmp_path).layers] == [0.0, 1.0]


@pytest.mark.parametrize("dtype", [">f4", "<f2", ">f8"])
def test_arrays_of_any_byte_order_are_taken(tmp_path: Path, dtype: str) -> None:
    rows = np.arange(18.0).reshape(2, 9).astype(dtype)
    with StoreWriter(tmp_path) as writer:
        writer.add("net", [StreamedLayer("conv", 2, [rows])])
        with pytest.raises(InputError, match="kernels are a floating array or tensor, got <U1"):
            writer.add("text", [StreamedLayer("conv", 2, [np.full((2, 9), "a")])])
    store = Store.open(tmp_path)
    assert store.kernels(store.layers[0]).tolist() == rows.tolist()


def test_an_interrupted_writer_has_to_be_opened_again(folder: Path) -> None:
    def layers() -> Iterator[FilterBank]:
        yield banks_of("net")[0]
        raise KeyboardInterrupt

    with StoreWriter(folder) as writer:
        with pytest.raises(KeyboardInterrupt):
            writer.add("net", layers())
        with pytest.raises(InputError, match="the writer is closed"):
            writer.add("net", banks_of("net"))
    with StoreWriter(folder) as writer:
        writer.add("net", banks_of("net"))
    assert Store.open(folder).models == (*NAMES, "net")
