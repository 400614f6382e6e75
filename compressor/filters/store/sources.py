"""What may be extracted: ONNX files and folders of them, modules, banks, and functions that make these."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from compressor.errors import FileError, InputError
from compressor.filters.bank import FilterBank
from compressor.filters.modules import banks
from compressor.filters.onnx_files import read_onnx
from compressor.filters.onnx_files.reading import external_files
from compressor.filters.store.journal import sha256_of
from compressor.filters.store.layer import Plain
from compressor.filters.store.streamed import StreamedLayer

__all__ = ["Contents", "Source", "Sources", "sources_of"]

Model = nn.Module | Sequence[FilterBank] | str | os.PathLike[str]
Sources = (
    Mapping[str, Model | Callable[[], Model]] | str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
)


@dataclass(frozen=True)
class Contents:
    """The layers of a model, and what is known of all of them."""

    layers: Iterable[FilterBank | StreamedLayer]
    metadata: Mapping[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A model under its name, read when it is asked for; `digest` is that of its files, where it has any."""

    model: str
    read: Callable[[], Contents]
    origin: str | None = None
    digest: Callable[[], str] | None = None


def sources_of(sources: Sources, kernel_size: tuple[int, ...]) -> list[Source]:
    """Each model that `sources` stand for, by its name; InputError or FileError where there is none."""
    if isinstance(sources, Mapping):
        found = [_named(name, source, kernel_size) for name, source in sources.items()]
    else:
        paths = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
        files = [file for path in paths for file in _files(path)]
        found = [_onnx(name, file, kernel_size) for name, file in _file_names(files).items()]
    if not found:
        raise InputError(
            "extract: there are no models; give files, a folder of them, or a mapping from names"
        )
    return found


def _files(path: str | os.PathLike[str]) -> list[tuple[Path, Path]]:
    """The files that a path stands for, each with the folder that it is named from."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(
            f"extract: sources are paths, or a mapping from names to models, got a {type(path).__name__}; "
            'give {"name": model}'
        )
    where = Path(path)
    if not where.is_dir():
        return [(where, where.parent)]
    files = sorted(where.rglob("*.onnx"))
    if not files:
        raise FileError(f"{where}: holds no .onnx file, neither itself nor its folders")
    return [(file, where) for file in files]


def _file_names(files: Sequence[tuple[Path, Path]]) -> dict[str, Path]:
    """A name for each file that no other has: its own, else its path from the folder, else its whole path."""
    own = {file.stem: file for file, _ in files}
    within = {file.relative_to(root).with_suffix("").as_posix(): file for file, root in files}
    whole = {file.as_posix(): file for file, _ in files}
    names = next((names for names in (own, within, whole) if len(names) == len(files)), None)
    if names is None:
        raise InputError("extract: a file is given twice")
    return names


def _onnx(name: str, file: Path, kernel_size: tuple[int, ...]) -> Source:
    def read() -> Contents:
        found = read_onnx(file, kernel_size=kernel_size, model_name=name)
        pairs = zip(found.banks, found.node_depths, strict=True)
        layers = [StreamedLayer.of(bank, metadata={"layer_depth": depth}) for bank, depth in pairs]
        return Contents(layers, found.facts.columns())

    return Source(name, read, str(file), lambda: _digest(file))


def _digest(file: Path) -> str:
    """The digest of a file and of those in which it keeps its weights."""
    digests = [sha256_of(path) for path in (file, *external_files(file))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _named(name: str, source: Model | Callable[[], Model], kernel_size: tuple[int, ...]) -> Source:
    if isinstance(source, str | os.PathLike):
        return _onnx(name, Path(source), kernel_size)
    return Source(name, lambda: _of_object(name, source, kernel_size))


def _of_object(name: str, source: object, kernel_size: tuple[int, ...]) -> Contents:
    if callable(source) and not isinstance(source, nn.Module):
        source = source()
    if isinstance(source, str | os.PathLike):
        return _onnx(name, Path(source), kernel_size).read()
    if isinstance(source, nn.Module):
        return Contents(banks(source, kernel_size=kernel_size, model_name=name))
    if isinstance(source, Sequence) and all(isinstance(bank, FilterBank) for bank in source):
        fitting = [
            replace(bank, model=bank.model or name) for bank in source if bank.kernel_size == kernel_size
        ]
        if not fitting:
            raise InputError(f"{name}: none of its {len(source)} banks has kernels of {kernel_size}")
        return Contents(fitting)
    raise InputError(
        f"{name}: a model is a torch.nn.Module, banks, or an ONNX file, got {type(source).__name__}"
    )
