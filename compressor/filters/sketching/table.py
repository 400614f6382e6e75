"""The sketches of many layers: every S, H, basis and D of any grouping follows from them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from compressor.errors import FileError, InputError
from compressor.filters.basis import Basis
from compressor.filters.drift import Drift
from compressor.filters.quality.verdicts import Bounds
from compressor.filters.sketching import arrow
from compressor.filters.sketching.layers import require_distinct
from compressor.filters.sketching.measured import SketchQuality, quality_of_sketch
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.store import Layer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Sketches", "Skipped"]

Label = TypeVar("Label", bound=Hashable)


@dataclass(frozen=True)
class Skipped:
    """A layer that could not be read, and why."""

    layer: Layer
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Sketches:
    """One sketch for each layer, all made with one setting; some kilobytes a layer.

    Raises InputError for layers that are in twice, and for sketches of other settings.

    >>> import torch
    >>> from compressor.filters.bank import FilterBank
    >>> from compressor.filters.sketching import sketch_all
    >>> setting = SketchSetting(Basis.cosines((3, 3)))
    >>> banks = [FilterBank(torch.randn(8, 4, 3, 3), f"conv{i}", model="small") for i in range(3)]
    >>> sketches = sketch_all(banks, setting)
    >>> sketches
    Sketches(96 kernels of 3 layers of 1 model)
    >>> sketches.group(lambda layer: layer.model)
    {'small': Sketch(96 kernels of 3 layers, peak ...)}
    """

    setting: SketchSetting
    layers: tuple[Layer, ...]
    sketches: tuple[Sketch, ...]
    _: KW_ONLY
    skipped: tuple[Skipped, ...] = field(default=())
    """Layers that could not be read, where the run was told to go on without them."""

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.sketches):
            raise InputError(
                f"{len(self.layers)} layers and {len(self.sketches)} sketches: one for each is needed"
            )
        require_distinct(self.layers)
        for layer, sketch in self:
            differences = self.setting.differences(sketch.setting)
            if differences:
                raise InputError(f"{layer} was sketched in another way; {'; '.join(differences)}")

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[tuple[Layer, Sketch]]:
        return iter(zip(self.layers, self.sketches, strict=True))

    def __repr__(self) -> str:
        models = len({layer.model for layer in self.layers})
        kernels = sum(sketch.count for sketch in self.sketches)
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"Sketches({kernels} kernels of {_many(len(self), 'layer')} of {_many(models, 'model')}{skipped})"
        )

    def total(self) -> Sketch:
        """The sketch of all kernels of all layers."""
        return Sketch.merged(self.sketches, setting=self.setting)

    def group(self, by: Callable[[Layer], Label | None]) -> dict[Label, Sketch]:
        """The merged sketch of each group, in the order of first sight.

        `by` names the group of a layer: its model, a value of its meta data, a decile of its depth; None
        leaves the layer out.
        """
        groups: dict[Label, Sketch] = {}
        for layer, sketch in self:
            label = by(layer)
            if label is not None:
                groups[label] = groups[label].merge(sketch) if label in groups else sketch
        return groups

    def chosen(self, which: Callable[[Layer], bool]) -> Sketches:
        """The sketches of some layers."""
        pairs = [(layer, sketch) for layer, sketch in self if which(layer)]
        return Sketches(
            self.setting, tuple(layer for layer, _ in pairs), tuple(sketch for _, sketch in pairs)
        )

    def merge(self, other: Sketches) -> Sketches:
        """Both tables in one; InputError where a layer is in both, or where settings differ."""
        return Sketches(
            self.setting,
            self.layers + other.layers,
            self.sketches + other.sketches,
            skipped=self.skipped + other.skipped,
        )

    def quality(self, *, bounds: Bounds | None = None) -> tuple[SketchQuality, ...]:
        """The measures of each layer."""
        return tuple(
            quality_of_sketch(sketch, str(layer), kernel_size=layer.kernel_size, bounds=bounds)
            for layer, sketch in self
        )

    def basis(self, *, keep_zeros: bool = False) -> Basis:
        """The principal axes of the scaled kernels of all layers, without those of zeros."""
        return self.total().basis(keep_zeros=keep_zeros)

    def drifts(
        self,
        by: Callable[[Layer], Label | None],
        *,
        basis: Basis | None = None,
        keep_zeros: bool = False,
        seed: int = 0,
    ) -> dict[tuple[Label, Label], Drift]:
        """The drift between every two groups (see `group` and `Sketch.drift`), each pair once."""
        return {
            (one, other): first.drift(second, basis=basis, keep_zeros=keep_zeros, seed=seed)
            for (one, first), (other, second) in combinations(self.group(by).items(), 2)
        }

    def to_arrow(self) -> pa.Table:
        """A table with a row for each layer; what was counted, and how, is in its schema."""
        return arrow.table_of(
            self.setting, self.layers, self.sketches, [(s.layer, s.reason) for s in self.skipped]
        )

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Sketches:
        """The sketches of such a table; raises FileError where it is another."""
        try:
            setting, layers, sketches, skipped = arrow.read_table(table)
            return cls(setting, layers, sketches, skipped=tuple(Skipped(*pair) for pair in skipped))
        except FileError:
            raise
        except Exception as error:  # the schema's own text is under no checksum: any value may be another
            raise FileError(f"the table of sketches was changed ({type(error).__name__}: {error})") from error

    def write(self, path: str | Path) -> None:
        """Write a Parquet file, whole or not at all."""
        arrow.write(self.to_arrow(), Path(path))

    @classmethod
    def read(cls, path: str | Path) -> Sketches:
        """The sketches of a Parquet file; raises FileError where it is none, cut short, or changed."""
        try:
            return cls.from_arrow(arrow.read(Path(path)))
        except FileError as error:
            raise error if str(path) in str(error) else FileError(f"{path}: {error}; sketch again") from error


def _many(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"
