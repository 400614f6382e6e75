"""The ONNX files of a bench: what goes in, and a name for each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compressor.errors import ExportError, InputError
from compressor.runtimes.extras import require_onnx
from compressor.runtimes.sessions import Session

__all__ = ["Array", "Candidate", "Models", "Port", "read_candidates"]

Array = npt.NDArray[Any]
# Files, named after themselves, or files by name; the first is the baseline.
Models = Sequence[str | os.PathLike[str]] | Mapping[str, str | os.PathLike[str]]

_TYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    **{name: name for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
}


@dataclass(frozen=True)
class Port:
    """One input of a model: `dims` holds sizes, free axes by name, `type` is NumPy's name."""

    name: str
    type: str
    dims: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.type} [{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A file that onnxruntime loads."""

    name: str
    path: Path
    content: bytes
    inputs: tuple[Port, ...]
    session: Session

    @property
    def file_bytes(self) -> int:
        """The size of the file."""
        return len(self.content)

    def run(self, feeds: Mapping[str, Array]) -> Array:
        """The first output; raises InputError where the model cannot run on `feeds`."""
        try:
            return self.session.run_arrays(feeds)[0]
        except ExportError as error:
            raise InputError(str(error)) from error


def read_candidates(models: Models) -> tuple[Candidate, ...]:
    """The files, loaded in onnxruntime, the baseline first.

    Raises InputError for a file that is missing, is no whole ONNX or ORT file, or has weights outside it; for
    two of one name, and for none.
    """
    require_onnx()
    paths = _named(models)
    return tuple(_candidate(name, path) for name, path in paths.items())


def _named(models: Models) -> dict[str, Path]:
    if isinstance(models, (str, os.PathLike)):
        raise InputError(f"models is a list of files, the baseline first; got one, {str(models)!r}")
    if isinstance(models, Mapping):
        named = {str(name): Path(path) for name, path in models.items()}
    else:
        named = {}
        for path in map(Path, models):
            name = path.name.removesuffix(path.suffix)
            if name in named:
                raise InputError(
                    f"{named[name]} and {path} are both called {name!r}; rename one, or give a dict of "
                    "name to file"
                )
            named[name] = path
    if not named:
        raise InputError("models is empty; give at least the baseline")
    return named


def _candidate(name: str, path: Path) -> Candidate:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the model {str(path)!r}: {error.strerror}") from error
    try:
        session = Session(content, what=str(path), threads=1)  # of the bytes alone, as in a browser
    except ExportError as error:
        raise InputError(
            f"{path} is no model that onnxruntime loads from one file. Expected a whole .onnx, its weights "
            f"inside (external_data=False), or .ort file: {error.__cause__}"
        ) from error
    if path.suffix != ".ort":
        _refuse_external_weights(path, content)
    ports = tuple(_ports(path, session))
    if not ports:
        raise InputError(f"{path} has no input, so there is nothing to run it on")
    return Candidate(name, path, content, ports, session)


def _refuse_external_weights(path: Path, content: bytes) -> None:
    """Raise InputError for weights in another file, which onnxruntime may have found and a phone will not."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    for tensor in onnx.load_model_from_string(content).graph.initializer:
        if uses_external_data(tensor):
            raise InputError(
                f"{path} keeps {tensor.name!r} in another file; save the model as one file "
                "(external_data=False)"
            )


def _ports(path: Path, session: Session) -> Iterator[Port]:
    types = session.input_types
    for name, sizes in session.inputs.items():
        known = _TYPES.get(types[name].removeprefix("tensor(").removesuffix(")"))
        if known is None:
            raise InputError(
                f"{path} takes {name!r} of type {types[name]}; the bench feeds tensors of numbers only"
            )
        dims = (size if isinstance(size, int) else size or f"axis{axis}" for axis, size in enumerate(sizes))
        yield Port(name, known, tuple(dims))
