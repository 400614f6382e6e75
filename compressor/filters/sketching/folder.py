"""What a run has done so far: parts of a table in a folder, from which the same run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.errors import FileError, InputError
from compressor.filters.sketching import arrow
from compressor.filters.sketching.layers import Source, key_of
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.store.layer import Layer
from compressor.whole_files import drafted

__all__ = ["RunFolder"]

_RUN, _WHOLE = "run.json", "sketches.parquet"


class RunFolder:
    """The folder of one run: what it sketches and how, and a file for every few finished layers.

    Each file appears whole or not at all, and holds whole layers, so that a run that was killed anywhere
    loses the layers under way and counts none twice. A folder of another run is refused: raises InputError
    with what differs in source or setting, FileError for files that cannot be read.
    """

    def __init__(self, folder: Path, source: Source, setting: SketchSetting) -> None:
        self._folder, self._setting = folder, setting
        self._keys = {key_of(part.layer): place for place, part in enumerate(source.parts)}
        run = {
            "setting": arrow.setting_to(setting),
            "source": source.identity,
            "layers": len(self._keys),
            "kernels": sum(part.layer.count for part in source.parts),
            "digest of the layers": _digest(list(self._keys)),
        }
        file = folder / _RUN
        if file.exists():
            self._require_same(file, run)
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _write_text(file, json.dumps(run, indent=1) + "\n")
        except OSError as error:
            raise FileError(
                f"{folder}: no run can be kept there ({type(error).__name__}: {error})"
            ) from error

    def done(self) -> dict[int, tuple[Layer, Sketch]]:
        """What is finished, by place in the source; a layer that two files hold is taken once."""
        found: dict[int, tuple[Layer, Sketch]] = {}
        for file in sorted(self._folder.glob("*.parquet")):
            setting, layers, sketches, _ = arrow.read_table(arrow.read(file))
            differences = self._setting.differences(setting)
            if differences:
                raise InputError(
                    f"{file} was made in another way; {'; '.join(differences)}: remove the folder"
                )
            for layer, sketch in zip(layers, sketches, strict=True):
                if key_of(layer) not in self._keys:
                    raise InputError(f"{file} holds {layer}, which the source has not: remove the folder")
                found[self._keys[key_of(layer)]] = layer, sketch
        return found

    def add(self, layers: Sequence[Layer], sketches: Sequence[Sketch]) -> None:
        """Keep some finished layers, in a file named by the first of them."""
        first = min(self._keys[key_of(layer)] for layer in layers)
        table = arrow.table_of(self._setting, layers, sketches, ())
        arrow.write(table, self._folder / f"part-{first:08d}.parquet")

    def close(self, layers: Sequence[Layer], sketches: Sequence[Sketch]) -> None:
        """Put everything into one file, then remove the parts."""
        arrow.write(arrow.table_of(self._setting, layers, sketches, ()), self._folder / _WHOLE)
        for file in self._folder.glob("part-*.parquet"):
            file.unlink()

    def _require_same(self, file: Path, run: dict[str, Any]) -> None:
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            setting = arrow.setting_from(before["setting"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FileError(
                f"{file} says of no run what it did ({type(error).__name__}: {error}): remove the folder"
            ) from error
        differences = setting.differences(self._setting)
        differences += [
            f"{what}: {before.get(what)} and {run[what]}"
            for what in run
            if what != "setting" and before.get(what) != run[what]
        ]
        if differences:
            raise InputError(
                f"{self._folder} holds another run; {'; '.join(differences)}: give this one a folder of its "
                "own, or remove that one"
            )


def _digest(keys: list[Any]) -> str:
    return hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]


def _write_text(file: Path, text: str) -> None:
    with drafted(file, what=str(file)) as draft:
        draft.write_text(text, encoding="utf-8")
