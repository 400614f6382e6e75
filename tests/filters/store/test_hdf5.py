"""The published HDF5 file: every value, in both releases' forms, and every way in which it may be damaged."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from compressor.errors import FileError, InputError
from compressor.filters.store import Extraction, Store, hdf5, import_filter_db, open_filter_db
from tests.filters.store.published_files import write_published

COUNTS = (12, 1, 6)
IDS = ["0:11", "12:12", "13:18"]


def _published(file: Path, **changed: Any) -> Path:
    """Three layers of two models; `changed` takes the place of columns, or of arguments."""
    rng = np.random.default_rng(3)
    filters = changed.pop("filters", rng.normal(size=(19, 3, 3)).astype(np.float32).astype(np.float64))
    index = changed.pop(
        "index", {"model_id": [5, 5, 9], "conv_depth": [0, 2, 1], "conv_depth_norm": [0.0, 1.0, 0.5]}
    )
    options = {name: changed.pop(name) for name in ("array", "pickles") if name in changed}
    columns = {
        "filter_ids": IDS,
        "model": ["net", "net", "other"],
        "Task": ["Auto-Segmentation", "Auto-Segmentation", "Style"],
        "Paper": ["p", np.nan, None],
        "Relu": [3.0, 3.0, np.nan],
        "op_set": [11, 11, 13],
        "Pretraining-Dataset": [True, True, False],
        **changed,
    }
    return write_published(
        file, filters, index, {k: v for k, v in columns.items() if v is not None}, **options
    )


def _imported(file: Path, folder: Path, **options: Any) -> Extraction:
    return import_filter_db(file, folder, **options)


def test_the_golden_file_is_imported_value_for_value(shared: Path, tmp_path: Path) -> None:
    golden = np.load(shared / "golden" / "filterdb_extract.npz", allow_pickle=False)
    found = _imported(shared / "golden" / "filterdb_sample.h5", tmp_path / "store")
    store = found.store
    assert found.added == store.models == tuple(golden["model_names"].tolist())
    kernels = torch.cat([store.kernels(layer) for layer in store.layers])
    np.testing.assert_array_equal(kernels.double().numpy().reshape(-1, 3, 3), golden["filters"])
    assert [layer.metadata["filter_ids"] for layer in store.layers] == golden["filter_ids"].tolist()
    start = 0
    for layer, row in zip(store.layers, golden["info"], strict=True):
        place = (layer.layer_id, layer.metadata["layer_depth"], layer.conv_depth, layer.conv_depth_norm)
        model = store.models.index(layer.model)
        said = (start, start + layer.count, model, *place, layer.in_channels, layer.out_channels)
        np.testing.assert_array_equal(np.array(said, dtype=float), row)
        start += layer.count
    first, last = store.layers[0].metadata, store.layers[-1].metadata
    own = {"model", "in_channels", "out_channels"}
    assert set(first) == set(golden["meta_columns"].tolist()) - own | {"model_id"}
    assert (first["Task"], first["Visual Category"], first["Pretraining-Dataset"]) == (
        "Classification",
        "natural",
        False,
    )
    assert (first["(5, 5) filters"], first["Relu"], first["Paper"]) == (18.0, None, None)
    assert (last["(5, 5) filters"], last["Relu"], last["op_set"]) == (None, 2.0, 13)
    assert next(store.banks()).weight.shape == (6, 1, 3, 3)


def test_the_first_release_gives_kernels_whose_filters_are_not_known(tmp_path: Path) -> None:
    file = _published(tmp_path / "dataset.h5")
    store = _imported(file, tmp_path / "store").store
    assert store.models == ("net", "other")
    assert [(layer.count, layer.conv_depth, layer.layer_id) for layer in store.layers] == [
        (12, 0, 0),
        (1, 2, 1),
        (6, 1, 0),
    ]
    assert store.layers[0].out_channels is None
    assert [layer.metadata["Pretraining-Dataset"] for layer in store.layers] == [True, True, False]
    assert [layer.metadata["Paper"] for layer in store.layers] == ["p", None, None]
    assert [layer.metadata["Relu"] for layer in store.layers] == [3.0, 3.0, None]
    assert [layer.metadata["model_id"] for layer in store.layers] == [5, 5, 9]
    with h5py.File(file) as handle:
        kernels = np.concatenate([store.kernels(layer).numpy() for layer in store.layers])
        np.testing.assert_array_equal(kernels.astype(float), handle["filters"][:].reshape(-1, 9))


@pytest.mark.parametrize("shape", [(19, 9), (19, 3, 3)])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2"])
def test_the_array_may_have_the_documented_name_shape_and_any_float(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    filters = np.random.default_rng(1).normal(size=shape).astype(np.float16).astype(dtype)
    file = _published(tmp_path / "dataset.h5", array="filter", filters=filters)
    store = _imported(file, tmp_path / "store").store
    kernels = torch.cat([store.kernels(layer) for layer in store.layers]).numpy()
    np.testing.assert_array_equal(kernels, filters.reshape(-1, 9).astype(np.float32))


def test_kernels_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "_AT_ONCE", 5)
    file = _published(tmp_path / "dataset.h5")
    with open_filter_db(file) as database:
        parts = [len(part) for part in database.models[0].layers[0].parts]
        assert parts == [5, 5, 2]
        assert "2 models, 19 kernels" in repr(database)
    store = _imported(file, tmp_path / "store").store
    with h5py.File(file) as handle:
        np.testing.assert_array_equal(
            store.kernels(store.layers[2]).numpy(), handle["filters"][13:].reshape(-1, 9)
        )


def test_rows_in_any_order_and_channels_are_taken(tmp_path: Path) -> None:
    file = _published(
        tmp_path / "dataset.h5",
        filter_ids=["13:18", "0:11", "12:12"],
        model=["net", "other", "net"],
        index={"model_id": [1, 2, 1], "layer_id": [0, 0, 1]},
        out_channels=[3, 4, 1],
        in_channels=[2, 3, 1],
    )
    store = _imported(file, tmp_path / "store").store
    assert [(bank.model, tuple(bank.weight.shape)) for bank in store.banks()] == [
        ("net", (3, 2, 3, 3)),
        ("net", (1, 1, 3, 3)),
        ("other", (4, 3, 3, 3)),
    ]
    with h5py.File(file) as handle:
        np.testing.assert_array_equal(
            store.kernels(store.layers[0]).numpy(), handle["filters"][13:19].reshape(-1, 9)
        )


def test_the_label_of_segmentation_is_unified_on_request(tmp_path: Path) -> None:
    file = _published(tmp_path / "dataset.h5")
    for unify, task in ((False, "Auto-Segmentation"), (True, "Segmentation")):
        store = _imported(file, tmp_path / f"store{unify}", unify_segmentation=unify).store
        assert [layer.metadata["Task"] for layer in store.layers] == [task, task, "Style"]


def test_models_of_one_name_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    file = _published(tmp_path / "dataset.h5", model=["net", "net", "net"])
    assert _imported(file, tmp_path / "store").store.models == ("net (5)", "net (9)")


def test_a_column_of_several_kinds_is_taken_as_text(tmp_path: Path) -> None:
    file = _published(tmp_path / "dataset.h5", Paper=["p", 3, None])
    store = _imported(file, tmp_path / "store").store
    assert [layer.metadata["Paper"] for layer in store.layers] == ["p", "3", None]


def test_values_that_are_not_exactly_float32_are_named_kept_or_rounded(tmp_path: Path) -> None:
    filters = np.ones((19, 3, 3))
    filters[12] = 1 / 3
    file = _published(tmp_path / "dataset.h5", filters=filters)
    with pytest.raises(
        FileError, match=r"(?s)1 of 2 models.*net: net: layer 1: 9 of 9 values are not exactly float32"
    ):
        _imported(file, tmp_path / "a")
    store = _imported(file, tmp_path / "b", dtype=torch.float64).store
    assert torch.equal(store.kernels(store.layers[1]), torch.full((1, 9), 1 / 3, dtype=torch.float64))
    store = _imported(file, tmp_path / "c", allow_rounding=True).store
    assert torch.equal(store.kernels(store.layers[1]), torch.full((1, 9), 1 / 3))


def test_values_that_are_not_finite_are_named_and_left_out_on_request(tmp_path: Path) -> None:
    filters = np.ones((19, 3, 3))
    filters[15, 1, 1] = np.nan
    file = _published(tmp_path / "dataset.h5", filters=filters)
    with pytest.raises(
        FileError, match=r"(?s)1 of 2 models cannot be stored, the others are.*other: layer 0 holds 1 value"
    ):
        _imported(file, tmp_path / "store")
    found = _imported(file, tmp_path / "store", skip_unreadable=True)
    assert (found.added, found.kept) == ((), ("net",))
    assert [entry.name for entry in found.skipped] == ["other"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["0:11", "12:12", "13:19"], r"row 2: '13:19' is no first:last within 0:18"),
        (["0:11", "12:12", "18:13"], r"row 2: '18:13' is no first:last"),
        (["0:11", "12", "13:18"], r"row 1: '12' is no first:last"),
        (["0:11", None, "13:18"], r"row 1: None is no first:last"),
        (["0:11", "-1:2", "13:18"], r"row 1: '-1:2' is no first:last"),
        (["0:12", "12:12", "13:18"], r"row 1: '12:12' overlaps with '0:12' of row 0"),
        (["0:18", "3:4", "13:14"], r"row 1: '3:4' overlaps with '0:18' of row 0"),
    ],
)
def test_ids_that_overlap_or_lie_outside_are_named(tmp_path: Path, ids: list[object], message: str) -> None:
    file = _published(tmp_path / "dataset.h5", filter_ids=ids)
    with pytest.raises(FileError, match=f"(?s)filter_ids are wrong.*{message}"):
        _imported(file, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_kernels_without_a_row_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = _published(tmp_path / "dataset.h5", filter_ids=["0:11", "12:12", "15:18"])
    with pytest.raises(FileError, match="no row of the meta data speaks of 2 of 19 kernels"):
        _imported(file, tmp_path / "store")
    assert _imported(file, tmp_path / "store", skip_unreadable=True).store.count == 17
    assert "no row of the meta data speaks of 2 of 19 kernels; they are left out" in caplog.text


def test_channels_that_contradict_the_count_are_named(tmp_path: Path) -> None:
    file = _published(tmp_path / "dataset.h5", out_channels=[4, 1, 5], in_channels=[3, 1, 2])
    with pytest.raises(FileError, match="other: layer 0: 5 filters of 2 kernels are 10, got 6"):
        _imported(file, tmp_path / "store")
    file = _published(tmp_path / "half.h5", out_channels=[4.5, 1, 3], in_channels=[3, 1, 2])
    with pytest.raises(FileError, match=r"out_channels is a whole number, got 4\.5 in the row of 0:11"):
        _imported(file, tmp_path / "store")


class _Runs:
    def __reduce__(self) -> object:
        return os.system, ("touch run",)


def test_a_program_in_the_meta_data_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    payload = pickle.dumps(np.array([["a"], ["b"], [_Runs()]], dtype=object))
    file = _published(tmp_path / "dataset.h5", pickles={"Task": payload})
    with pytest.raises(
        FileError, match=r"dataset\.h5: meta/block2_values: is no array of plain values: it names \w+\.system"
    ):
        _imported(file, tmp_path / "store")
    assert not (tmp_path / "run").exists()
    pickle.loads(payload)
    assert (tmp_path / "run").exists()


def test_missing_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such HDF5 file"):
        _imported(tmp_path / "absent.h5", tmp_path / "store")
    whole = _published(tmp_path / "dataset.h5").read_bytes()
    for length in (0, 4, 500, len(whole) // 2, len(whole) - 1):
        file = tmp_path / "cut.h5"
        file.write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"cut\.h5: cannot be read as an HDF5 file"):
            _imported(file, tmp_path / "store")
    (tmp_path / "text.h5").write_text("no HDF5 at all" * 100)
    with pytest.raises(FileError, match="fetch it again, and unpack it"):
        _imported(tmp_path / "text.h5", tmp_path / "store")


def _without(file: Path, *names: str) -> Path:
    with h5py.File(file, "r+") as handle:
        for name in names:
            del handle[name]
    return file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("filters", "lacks the array filters; it holds meta"),
        ("meta", "lacks the table meta; it holds filters"),
        ("meta/axis0", "parts of the table are missing or damaged"),
        ("meta/axis1_label1", "parts of the table are missing or damaged"),
        ("meta/block3_values", "parts of the table are missing or damaged"),
    ],
)
def test_missing_parts_are_named(tmp_path: Path, name: str, message: str) -> None:
    file = _without(_published(tmp_path / "dataset.h5"), name)
    with pytest.raises(FileError, match=message):
        _imported(file, tmp_path / "store")


def test_arrays_and_tables_of_another_form_are_named(tmp_path: Path) -> None:
    file = _published(tmp_path / "five.h5", filters=np.ones((19, 5, 5)))
    with pytest.raises(
        FileError, match=r"filters is a floating \[N, 3, 3\] or \[N, 9\], got float64 \[19, 5, 5\]"
    ):
        _imported(file, tmp_path / "store")
    file = _published(tmp_path / "whole.h5", filters=np.ones((19, 3, 3), np.int32))
    with pytest.raises(FileError, match=r"got int32 \[19, 3, 3\]"):
        _imported(file, tmp_path / "store")
    file = _published(tmp_path / "noids.h5", filter_ids=None)
    with pytest.raises(FileError, match="meta lacks filter_ids; it holds model_id"):
        _imported(file, tmp_path / "store")
    file = _published(tmp_path / "table.h5")
    with h5py.File(file, "r+") as handle:
        handle["meta"].attrs["pandas_type"] = np.bytes_(b"frame_table")
    with pytest.raises(FileError, match="is no table of pandas in its fixed format"):
        _imported(file, tmp_path / "store")
    file = _published(tmp_path / "label.h5")
    with h5py.File(file, "r+") as handle:
        handle["meta/axis1_label0"][0] = 7
    with pytest.raises(FileError, match="axis1_label0 points outside of its level"):
        _imported(file, tmp_path / "store")


def test_an_import_that_was_ended_goes_on(tmp_path: Path) -> None:
    filters = np.ones((19, 3, 3))
    filters[15] = np.inf
    file = _published(tmp_path / "dataset.h5", filters=filters)
    with pytest.raises(FileError):
        _imported(file, tmp_path / "store")
    assert Store.open(tmp_path / "store").models == ("net",)
    with h5py.File(file, "r+") as handle:
        handle["filters"][15] = 2.0
    found = _imported(file, tmp_path / "store", progress=True)
    assert (found.added, found.kept) == (("other",), ("net",))
    with pytest.raises(InputError, match="float64 was asked for"):
        _imported(file, tmp_path / "store", dtype=torch.float64)


def test_no_damage_of_the_file_gives_another_error_than_ours(tmp_path: Path) -> None:
    whole = _published(tmp_path / "dataset.h5").read_bytes()
    rng, file, faults = np.random.default_rng(7), tmp_path / "damaged.h5", 0
    for _ in range(150):
        content = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            content[at] = rng.integers(256)
        file.write_bytes(content)
        try:
            with open_filter_db(file) as database:
                assert database.kernels
        except FileError as error:
            assert "damaged.h5" in str(error)
            faults += 1
    assert faults > 30
