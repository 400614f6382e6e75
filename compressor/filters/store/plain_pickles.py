"""Arrays of strings and numbers out of a pickle, of which nothing is ever run."""

from __future__ import annotations

import io
import math
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.errors import FileError
from compressor.filters.store.layer import Plain

__all__ = ["plain_array", "plain_value"]

Objects = npt.NDArray[np.object_]

_NUMBERS = "biuf"


def plain_array(pickled: bytes, named: str) -> Objects:
    """The array of strings, numbers, truth values and None in a pickle; its own kind of array is no matter.

    A pickle is a program. This one runs on stand-ins: what NumPy writes for an array is read as plain data,
    and any other name in the pickle ends it before anything is called. Values that are not finite become
    None: that is how pandas writes what is missing.

    Raises FileError that says what `named` holds instead.

    >>> plain_array(pickle.dumps(np.array(["natural", None, 3], dtype=object)), "a block")
    array(['natural', None, 3], dtype=object)
    >>> plain_array(pickle.dumps(print), "a block")
    Traceback (most recent call last):
    compressor.errors.FileError: a block: is no array of plain values: it names builtins.print, ...
    """
    try:
        found = _Restricted(io.BytesIO(pickled)).load()
        if not isinstance(found, _Array):
            raise pickle.UnpicklingError(f"it is a {type(found).__name__}")
        return found.values()
    except Exception as error:  # damaged pickles raise nearly anything
        raise FileError(
            f"{named}: is no array of plain values: {error}. Nothing of it was run; a file from someone "
            "else that holds more than strings and numbers is not to be trusted"
        ) from error


def plain_value(pickled: bytes, named: str) -> Plain:
    """The string, number, truth value or None in a pickle; the same care and errors."""
    try:
        found = _Restricted(io.BytesIO(pickled)).load()
        return _plain(found)
    except Exception as error:
        raise FileError(f"{named}: is no plain value: {error}") from error


class _Restricted(pickle.Unpickler):
    """An unpickler that knows stand-ins for NumPy's arrays, and no other name.

    NumPy's own classes would not do: a dtype takes flags from a pickle as they are, and with the wrong ones
    an array takes bytes for pointers.
    """

    def find_class(self, module: str, name: str) -> Any:
        package = module.replace("numpy._core", "numpy.core")
        found = _STAND_INS.get((package, name))
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no array of plain values needs")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it names an object outside of itself")


class _Dtype:
    """What a pickle says of a dtype: its code, such as O8 or f8, and its byte order."""

    def __init__(self, code: object = "", *_: object) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def numbers(self, data: object, count: int) -> list[Plain]:
        """The numbers in raw bytes."""
        dtype = np.dtype(f"{self.order}{self.code}" if self.order in "<>" else self.code)
        if dtype.kind not in _NUMBERS or not isinstance(data, bytes) or len(data) != count * dtype.itemsize:
            raise pickle.UnpicklingError(f"an array of {self.code} does not hold {count} numbers")
        return [_plain(value) for value in np.frombuffer(data, dtype).tolist()]


class _Array:
    """What a pickle says of an array: its shape, its dtype, and its values as a list or as raw bytes."""

    def __init__(self, *_: object) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def values(self) -> Objects:
        _, shape, dtype, is_fortran, data = self.state
        if not isinstance(dtype, _Dtype) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise pickle.UnpicklingError("it holds an array without a dtype or a shape")
        count = math.prod(shape)
        listed = dtype.code.startswith("O") and isinstance(data, list)
        values = [_plain(value) for value in data] if listed else dtype.numbers(data, count)
        if len(values) != count:
            raise pickle.UnpicklingError(f"an array of {list(shape)} holds {len(values)} values")
        array = np.empty(count, dtype=object)
        array[:] = values
        # Objects are listed row by row whatever the array's order is, bytes are as they lay in memory.
        return array.reshape(shape, order="F" if is_fortran and not listed else "C")


def _encoded(text: object, encoding: object) -> bytes:
    """Bytes as the protocols before 3 write them."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it encodes something other than bytes")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


def _scalar(dtype: object, data: object = b"") -> Plain:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("it holds a number without a dtype")
    return dtype.numbers(data, 1)[0]


def _plain(value: object) -> Plain:
    if not isinstance(value, str | int | float | bool | None):
        raise pickle.UnpicklingError(f"it holds a {type(value).__name__}")
    return None if isinstance(value, float) and not math.isfinite(value) else value


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encoded,
    ("builtins", "bytes"): _no_bytes,
}
