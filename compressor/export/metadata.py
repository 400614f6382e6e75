"""What an app has to know of a model, written into the ONNX file itself."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from compressor.core.plan import Plan
from compressor.errors import FileError, InputError
from compressor.runtimes.extras import require_onnx
from compressor.runtimes.onnx_graph import Dims, dims_of
from compressor.runtimes.ort_session import open_session
from compressor.runtimes.sessions import Optimization
from compressor.version import __version__

if TYPE_CHECKING:
    import onnx

__all__ = [
    "METADATA_KEY",
    "Metadata",
    "described",
    "digest_of",
    "read_metadata",
    "refresh_metadata",
    "write_metadata",
]

METADATA_KEY = "compressor.model"
_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What an app has to know of a model: its classes, and how pixels become its input.

    The first input is (value - `mean`) / `std` for values from 0 to 1, both by channel; None where the
    model takes its input as it is. `classes` name the scores along axis 1 of the first output.
    `plan_digest` is the digest of the plan that made the model; an export fills it in where
    `compressor.plan_of` knows the plan. `inputs`, `outputs` (names and sizes, free axes by name) and
    `library` (the version) are filled in by the export.

    In the file it is a JSON object under the key `compressor.model` of the custom metadata, which
    onnxruntime shows on every platform that has it (`customMetadata` on Android).

    >>> Metadata(classes=("cat", "dog"), mean=(0.5,), std=(0.25,))
    Metadata(classes=('cat', 'dog'), mean=(0.5,), std=(0.25,))
    >>> print(Metadata(classes=("cat", "dog"), mean=(0.5,), std=(0.25,)))
    2 classes; input (value - [0.5]) / [0.25]
    """

    classes: Sequence[str] = ()
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    plan_digest: str | None = None
    inputs: Mapping[str, Dims] = field(default_factory=dict, hash=False)
    outputs: Mapping[str, Dims] = field(default_factory=dict, hash=False)
    library: str | None = None

    def __post_init__(self) -> None:
        """Check the values and make sequences tuples."""
        if (
            not isinstance(self.classes, Iterable)
            or isinstance(self.classes, str)
            or not all(isinstance(name, str) for name in self.classes)
        ):
            raise InputError(f"Metadata(classes={self.classes!r}): a sequence of names is expected")
        if len(set(self.classes)) != len(self.classes):
            twice = next(name for name in self.classes if list(self.classes).count(name) > 1)
            raise InputError(f"Metadata(classes=...): {twice!r} appears twice")
        object.__setattr__(self, "classes", tuple(self.classes))
        if (self.mean is None) != (self.std is None):
            raise InputError("Metadata needs both mean and std, or neither")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, _numbers(name, values))
        if self.mean is not None and self.std is not None:
            if len(self.mean) != len(self.std):
                raise InputError(f"Metadata: {len(self.mean)} means and {len(self.std)} standard deviations")
            if min(self.std) <= 0:
                raise InputError(f"Metadata(std={list(self.std)}): values above 0 are expected")

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in vars(self).items() if value not in ((), None, {}))
        return f"Metadata({', '.join(shown)})"

    def __str__(self) -> str:
        parts = [f"{len(self.classes)} classes"] if self.classes else []
        if self.mean is not None and self.std is not None:
            parts.append(f"input (value - {list(self.mean)}) / {list(self.std)}")
        if self.plan_digest:
            parts.append(f"plan {self.plan_digest[:12]}")
        return "; ".join(parts) or "no classes, no normalisation, no plan"


def described(proto: onnx.ModelProto, metadata: Metadata) -> Metadata:
    """The metadata with the inputs, outputs and library version of a file of this content.

    Raises InputError where mean, std or classes do not fit its shapes.
    """
    inputs = {value.name: dims_of(value) for value in proto.graph.input}
    outputs = {value.name: dims_of(value) for value in proto.graph.output}
    _require_fit("mean and std", metadata.mean, inputs)
    _require_fit("classes", metadata.classes or None, outputs)
    return replace(metadata, inputs=inputs, outputs=outputs, library=__version__)


def write_metadata(proto: onnx.ModelProto, metadata: Metadata) -> Metadata:
    """Write `described(proto, metadata)` into `proto`, in place, and return it.

    Another tool's output takes over what its source said: `write_metadata(new, read_metadata(path))`.
    """
    metadata = described(proto, metadata)
    content = {key: value for key, value in vars(metadata).items() if value not in ((), None)}
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if entry.key != METADATA_KEY]
    del proto.metadata_props[:]
    text = json.dumps({"format": _FORMAT, **content}, ensure_ascii=False, separators=(",", ":"))
    for key, value in (*kept, (METADATA_KEY, text)):
        proto.metadata_props.add(key=key, value=value)
    return metadata


def refresh_metadata(proto: onnx.ModelProto) -> None:
    """Where `proto` has a block of metadata, write its shapes into it anew, in place."""
    text = _text(proto)
    if text is not None:
        write_metadata(proto, _read(text, "the source"))


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """What `export.onnx` wrote about its model; the `.onnx` and `.ort` files made of that file have it, too.

    Raises FileError where the file cannot be read, or says nothing.

    >>> read_metadata("net.onnx").classes  # doctest: +SKIP
    ('cat', 'dog')
    """
    require_onnx()
    import onnx as onnx_format

    path = os.fspath(path)
    try:
        if path.endswith(".ort"):
            session = open_session(path, threads=1, optimization=Optimization.NONE.value)
            text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        else:
            text = _text(onnx_format.load(path, load_external_data=False))
    except Exception as error:  # those of protobuf and onnxruntime have no base in common
        raise FileError(f"cannot read {path!r} as a file for onnxruntime: {error}") from error
    if text is None:
        raise FileError(f"{path!r} has no metadata under {METADATA_KEY!r}: write it with export.onnx")
    return _read(text, path)


def digest_of(plan: Plan) -> str:
    """The digest that the plan's JSON holds."""
    return str(json.loads(plan.to_json())["digest"])


def _text(proto: onnx.ModelProto) -> str | None:
    return next((entry.value for entry in proto.metadata_props if entry.key == METADATA_KEY), None)


def _read(text: str, path: str) -> Metadata:
    try:
        content: dict[str, Any] = json.loads(text)
        if content.pop("format") != _FORMAT:
            raise FileError(f"{path!r} has metadata of another format version; use the version that wrote it")
        for name in ("inputs", "outputs"):
            content[name] = {key: tuple(dims) for key, dims in content[name].items()}
        return Metadata(**content)
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise FileError(f"the metadata of {path!r} is damaged: {error!r}") from error


def _numbers(name: str, values: Sequence[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Metadata({name}={values!r}): numbers are expected, one for each channel"
        ) from error
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"Metadata({name}={values!r}): finite numbers are expected, one for each channel")
    return numbers


def _require_fit(what: str, values: Sequence[object] | None, shapes: Mapping[str, Dims]) -> None:
    name, dims = next(iter(shapes.items()))
    size = dims[1] if len(dims) > 1 else None
    if values is not None and isinstance(size, int) and len(values) != size:
        raise InputError(
            f"Metadata has {len(values)} {what}, and {name!r} has the shape [{', '.join(map(str, dims))}] "
            f"with {size} channels"
        )
