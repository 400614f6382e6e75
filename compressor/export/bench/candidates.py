"""The ONNX files of a bench: what goes in, and a name for each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compressor.errors import InputError, MissingExtraError

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
    file_bytes: int
    sha256: str
    inputs: tuple[Port, ...]
    session: Any

    def run(self, feeds: Mapping[str, Array]) -> Array:
        """The first output; raises InputError where the model cannot run on `feeds`."""
        try:
            output: Array = self.session.run(None, dict(feeds))[0]
        except Exception as error:  # onnxruntime's errors have no common base but this
            shapes = {name: list(array.shape) for name, array in feeds.items()}
            raise InputError(f"{self.path} does not run on {shapes}: {error}") from error
        return output


def read_candidates(models: Models) -> tuple[Candidate, ...]:
    """The files, loaded in onnxruntime, the baseline first.

    Raises InputError for a file that is missing, is no whole ONNX or ORT file, or has weights outside it; for
    two of one name, and for none.
    """
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
                    f"{named[name]} and {path} are both called {name!r}; rename one, or give a dict of name to file"
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
    session = _session(path, content)
    ports = tuple(_port(path, node) for node in session.get_inputs())
    if not ports:
        raise InputError(f"{path} has no input, so there is nothing to run it on")
    return Candidate(name, path, len(content), hashlib.sha256(content).hexdigest(), ports, session)


def _session(path: Path, content: bytes) -> Any:
    """A session made of the bytes alone, as a browser makes it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(
            f"a bench checks its models in onnxruntime, which cannot be imported ({error}): "
            "pip install 'compressor[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is fatal is raised as well
    options.intra_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(
            f"{path} is no model that onnxruntime loads from one file: {error}. Expected a whole .onnx (its "
            "weights inside: external_data=False) or .ort file"
        ) from error


def _port(path: Path, node: Any) -> Port:
    kind = str(node.type)
    known = _TYPES.get(kind.removeprefix("tensor(").removesuffix(")"))
    if known is None:
        raise InputError(f"{path} takes {node.name!r} of type {kind}; the bench feeds tensors of numbers only")
    dims = tuple(d if isinstance(d, int) else str(d or f"axis{i}") for i, d in enumerate(node.shape))
    return Port(node.name, known, dims)
