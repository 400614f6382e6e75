"""Latency tables as JSON files, and where the user's cache keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import FileError, InputError
from compressor.profiling.latency_table.identity import Identity
from compressor.profiling.latency_table.layers import Layer
from compressor.profiling.latency_table.rows import Row
from compressor.profiling.latency_table.whole import Refinement
from compressor.runtimes import Compiled, Eager, OnnxRuntime, Optimization, Runtime
from compressor.runtimes.cache import cache_folder
from compressor.whole_files import drafted

if TYPE_CHECKING:
    from compressor.profiling.latency_table.table import LatencyTable

__all__ = ["cached_path", "load", "save"]

_FORMAT, _VERSION = "compressor latency table", 2
_RUNTIMES: dict[str, type[Runtime]] = {kind.__name__: kind for kind in (Eager, Compiled, OnnxRuntime)}


def cached_path(identity: Identity) -> Path:
    """Where the table of a machine and runtime is kept in the user's cache."""
    return cache_folder() / f"latency-v{_VERSION}-{identity.digest}.json"


def save(table: LatencyTable, path: Path) -> None:
    """Write the table aside, then put it in its place; raises FileError where that cannot be."""
    layers = list(dict.fromkeys(row.layer for row in table.rows))
    number = {layer: i for i, layer in enumerate(layers)}
    content = {
        "identity": asdict(table.identity),
        "runtime": _written(table.runtime),
        "reference_ms": table.reference_ms,
        "layers": [asdict(layer) for layer in layers],
        "rows": [[number[r.layer], r.entering, r.leaving, ms] for r, ms in table.rows.items()],
        "refinements": {name: asdict(found) for name, found in table.refinements.items()},
    }
    document = {"format": _FORMAT, "version": _VERSION, "digest": _digest(content), **content}
    what, fix = f"the latency table {path}", "name another file, path=..., or folder, $COMPRESSOR_CACHE"
    with drafted(path, what=what, fix=fix, make_folder=True) as draft:
        draft.write_text(json.dumps(document), encoding="utf-8")


def load(path: Path, runtime: Runtime | None = None) -> LatencyTable:
    """The table of a file; raises FileError where there is none in it.

    A `runtime` of the user's own, of which a file only knows the name, is given along.
    """
    from compressor.profiling.latency_table.table import LatencyTable

    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is no latency table that can be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise FileError(f"{path} is no latency table; such a file is made by latency_table(graph, path=...)")
    if document.get("version") != _VERSION:
        raise FileError(
            f"{path} is a latency table of version {document.get('version')!r}, and this library reads "
            f"version {_VERSION}: measure it anew, to another file"
        )
    content = {key: value for key, value in document.items() if key not in ("format", "version", "digest")}
    if document.get("digest") != _digest(content):
        raise FileError(f"{path} was changed after it was written; delete it, and the table is measured anew")
    try:
        layers = [Layer(**{k: _tuples(v) for k, v in entry.items()}) for entry in content["layers"]]
        rows = {Row(layers[i], int(c), int(d)): float(ms) for i, c, d, ms in content["rows"]}
        refinements = {
            name: Refinement(**{k: _tuples(v) for k, v in entry.items()})
            for name, entry in content["refinements"].items()
        }
        identity = Identity(**content["identity"])
        by = _read(content["runtime"]) if runtime is None else runtime
        return LatencyTable(identity, by, float(content["reference_ms"]), rows, refinements)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, InputError) as error:
        raise FileError(f"{path} is a damaged latency table ({type(error).__name__}: {error})") from error


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _written(runtime: Runtime) -> dict[str, Any]:
    options = {name: value for name, value in vars(runtime).items() if name != "pin"}
    if isinstance(runtime, OnnxRuntime):
        options["optimization"] = runtime.optimization.name
    return {"kind": type(runtime).__name__, **options}


def _read(document: dict[str, Any]) -> Runtime:
    options = dict(document)
    kind = options.pop("kind")
    if "optimization" in options:
        options["optimization"] = Optimization[options["optimization"]]
    if kind not in _RUNTIMES:
        raise ValueError(f"its runtime {kind!r} is none of {', '.join(_RUNTIMES)}")
    return _RUNTIMES[kind](**options)


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
