"""Pickles are read as data: arrays of plain values come out, and nothing of anything else is run."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compressor.errors import FileError
from compressor.filters.store.plain_pickles import plain_array, plain_value

ARRAYS = {
    "texts": np.array(["natural", "faces", ""], dtype=object),
    "a mixture": np.array([["natural", 3, None], [True, 2.5, "x"]], dtype=object),
    "in Fortran's order": np.asfortranarray(np.array([["a", "b", "c"], ["d", "e", "f"]], dtype=object)),
    "numbers of NumPy": np.array([np.float64(1.5), np.int64(-3), np.uint8(7), np.bool_(True)], dtype=object),
    "of one text": np.array(["x"] * 7, dtype=object),
    "of none": np.array([], dtype=object),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_plain_values_come_back(name: str, protocol: int) -> None:
    array = ARRAYS[name]
    found = plain_array(pickle.dumps(array, protocol), "a block")
    assert found.shape == array.shape
    assert found.tolist() == array.tolist()
    assert {type(value) for value in found.ravel()} <= {str, int, float, bool, type(None)}


def test_arrays_written_by_numpy_1_come_back() -> None:
    pickled = pickle.dumps(ARRAYS["texts"], 2)
    older = pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert plain_array(older, "a block").tolist() == ["natural", "faces", ""]


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", ">u4", "|b1"])
def test_arrays_of_numbers_come_back(dtype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 0]]).astype(dtype)
    assert plain_array(pickle.dumps(array, 2), "a block").tolist() == array.tolist()


def test_what_is_not_finite_is_missing() -> None:
    array = np.array(["a", np.nan, float("inf"), np.float64("nan")], dtype=object)
    assert plain_array(pickle.dumps(array), "a block").tolist() == ["a", None, None, None]


class _Runs:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.called = (function, arguments)

    def __reduce__(self) -> object:
        return self.called


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("how", ["system", "open", "eval", "Popen", "partial"])
def test_a_program_in_a_pickle_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, hidden: bool
) -> None:
    import functools

    monkeypatch.chdir(tmp_path)
    program = {
        "system": _Runs(os.system, "touch run"),
        "open": _Runs(open, "run", "w"),
        "eval": _Runs(eval, "open('run', 'w')"),
        "Popen": _Runs(subprocess.Popen, ["touch", "run"]),
        "partial": functools.partial(os.system, "touch run"),
    }[how]
    content = np.array(["natural", program], dtype=object) if hidden else program
    pickled = pickle.dumps(content)
    with pytest.raises(
        FileError, match=r"a block: is no array of plain values: it names \S+, which no array"
    ):
        plain_array(pickled, "a block")
    assert not (tmp_path / "run").exists()
    if how in ("system", "open", "eval"):  # the payload does run where it is let
        pickle.loads(pickled)
        assert (tmp_path / "run").exists()


def _setting(**state: object) -> bytes:
    """A pickle of an array whose state is written by hand: version, shape, dtype, order, data."""

    class Forged:
        def __reduce__(self) -> object:
            made = np.array([]).__reduce__()[0], (np.ndarray, (0,), b"b")
            return *made, (1, state["shape"], state["dtype"], False, state["data"])

    return pickle.dumps(Forged())


def test_bytes_are_never_taken_for_objects_and_lists_never_for_numbers() -> None:
    """NumPy itself, given flags that lie, takes these bytes for pointers to objects."""
    numbers, objects = np.dtype("f8"), np.dtype("O")
    for dtype, data in ((objects, b"\x41" * 16), (numbers, [1.0, 2.0]), (numbers, b"\x00" * 15)):
        with pytest.raises(FileError, match="does not hold 2 numbers"):
            plain_array(_setting(shape=(2,), dtype=dtype, data=data), "a block")
    with pytest.raises(FileError, match=r"an array of \[3\] holds 2 values"):
        plain_array(_setting(shape=(3,), dtype=objects, data=["a", "b"]), "a block")
    with pytest.raises(FileError, match="without a dtype or a shape"):
        plain_array(_setting(shape=(-2,), dtype=objects, data=["a", "b"]), "a block")


@pytest.mark.parametrize(
    "content", [["a"], {"a": 1}, ("a",), np.array([["a"], {"b": 1}], dtype=object), b"abc", None]
)
def test_other_kinds_of_data_are_refused(content: object) -> None:
    with pytest.raises(FileError, match=r"it (is|holds) a (list|dict|tuple|bytes|NoneType)"):
        plain_array(pickle.dumps(content), "a block")


def test_damaged_pickles_are_named() -> None:
    whole = pickle.dumps(ARRAYS["a mixture"])
    for length in range(len(whole)):
        with pytest.raises(FileError, match="a block: is no array of plain values"):
            plain_array(whole[:length], "a block")


def test_plain_values_are_read_alike() -> None:
    assert plain_value(pickle.dumps("model_id", 0), "a name") == "model_id"
    assert plain_value(pickle.dumps(None, 0), "a name") is None
    with pytest.raises(FileError, match="a name: is no plain value"):
        plain_value(pickle.dumps(print), "a name")
