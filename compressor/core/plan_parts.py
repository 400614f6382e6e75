"""What a plan is made of: cuts, sizes and patches, and the signature of the model that it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeVar

from compressor.errors import PlanError, PlanMismatchError

__all__ = [
    "Cut",
    "Patch",
    "PatchValue",
    "Role",
    "Signature",
    "Size",
    "SizeValue",
    "compose",
    "remainder",
]

Role = Literal["writer", "reader"]
SizeValue = int | tuple[int, ...]
# So many entries of a list are printed.
_SHOWN = 8
# A fraction stands for "so much of what is there", where what is there may also hold a batch size.
PatchValue = int | float | Fraction | tuple[int, ...] | None


@dataclass(frozen=True)
class Cut:
    """One decision: along `axis` of `tensor`, of `size` channels the `keep` ones stay, in order.

    `blocks > 1` is the input side of a grouped convolution: axis 0 of the tensor falls into `blocks`
    equal runs of rows, and each run keeps its own channels. `size` and `keep` then count over all
    blocks (the convolution's full input), with equally many kept in each.
    """

    tensor: str
    axis: int
    size: int
    keep: tuple[int, ...]
    role: Role
    blocks: int = 1

    def __post_init__(self) -> None:
        where = f"cut of {self.tensor!r} axis {self.axis}"
        if self.role not in ("writer", "reader"):
            raise PlanError(f"{where}: role is 'writer' or 'reader', got {self.role!r}")
        if not self.keep:
            raise PlanError(f"{where}: keeps no channel; at least one must stay")
        if min(self.keep) < 0 or max(self.keep) >= self.size or len(set(self.keep)) < len(self.keep):
            raise PlanError(f"{where}: keep must hold distinct indices in 0..{self.size - 1}")
        if self.blocks < 1 or self.size % self.blocks:
            raise PlanError(f"{where}: {self.size} channels do not fall into {self.blocks} equal blocks")
        if self.blocks > 1:
            width = self.size // self.blocks
            counts = [0] * self.blocks
            for index in self.keep:
                counts[index // width] += 1
            if len(set(counts)) > 1 or list(self.keep) != sorted(self.keep):
                raise PlanError(
                    f"{where}: each of the {self.blocks} blocks must keep equally many, in order; "
                    f"they keep {counts}"
                )

    @property
    def key(self) -> tuple[str, int]:
        """Where it cuts."""
        return self.tensor, self.axis

    def after(self, first: Cut) -> Cut:
        """The one cut that does `first`, then this one."""
        return replace(self, size=first.size, keep=tuple(first.keep[i] for i in self.keep))

    def since(self, first: Cut) -> Cut | None:
        """What is left of this cut once `first` is done, None for nothing; see `Plan.since`."""
        place = {index: position for position, index in enumerate(first.keep)}
        back = [index for index in self.keep if index not in place]
        if back:
            raise PlanMismatchError(f"{self}: index {back[0]} is to stay, and the first plan removes it")
        rest = replace(self, size=len(first.keep), keep=tuple(place[index] for index in self.keep))
        return None if rest.keep == tuple(range(rest.size)) else rest

    @property
    def removed(self) -> tuple[int, ...]:
        """The indices that go, in order.

        >>> Cut("w", 0, 4, (0, 3), "writer").removed
        (1, 2)
        """
        kept = set(self.keep)
        return tuple(i for i in range(self.size) if i not in kept)

    def __str__(self) -> str:
        blocks = f" in {self.blocks} blocks" if self.blocks > 1 else ""
        return f"{self.tensor} axis {self.axis}{blocks}: {self.size} -> {len(self.keep)} ({self.role})"


@dataclass(frozen=True)
class Size:
    """A number a module remembers and its forward needs: `module.attribute` goes from old to new."""

    module: str
    attribute: str
    old: SizeValue
    new: SizeValue

    @property
    def key(self) -> tuple[str, str]:
        """Where the number is."""
        return self.module, self.attribute

    def after(self, first: Size) -> Size:
        """The one change that makes `first`, then this one."""
        return replace(self, old=first.old)

    def since(self, first: Size) -> Size | None:
        """What is left of this change once `first` is made, None for nothing."""
        return None if self.new == first.new else replace(self, old=first.new)

    def __str__(self) -> str:
        owner = f"{self.module}." if self.module else ""
        return f"{owner}{self.attribute}: {self.old} -> {self.new}"


@dataclass(frozen=True)
class Patch:
    """A number written into a forward: in the `call`-th call (from 0) of a function it becomes `new`.

    Or a list of positions by which channels are picked, also where a tensor holds them.

    Calls are counted in each run of the module's own forward, without its submodules. `argument` is a
    path: "2" (the tensor of a method is "0"), "1.0", "size.1", "scale", "1.1.stop". Of an index of
    several axes the last step is the axis along which its positions are, "2.1" for a `gather`, say.

    >>> print(Patch("block.0.attn", "torch.Tensor.reshape", 1, "3", 768, 384))
    block.0.attn: torch.Tensor.reshape (call 2) argument 3: 768 -> 384
    """

    module: str
    function: str
    call: int
    argument: str
    old: PatchValue
    new: PatchValue

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Where the number is."""
        return self.module, self.function, self.call, self.argument

    def after(self, first: Patch) -> Patch:
        """The one patch that does `first`, then this one."""
        new = self.new
        if isinstance(new, Fraction) and isinstance(first.new, Fraction):
            new = first.new * new
        elif isinstance(new, Fraction) and isinstance(first.new, int):
            new = int(first.new * new)
        return replace(self, old=first.old, new=new)

    def since(self, first: Patch) -> Patch | None:
        """What is left of this patch once `first` is in place, None for nothing."""
        if self.new == first.new:
            return None
        if isinstance(self.new, Fraction) and isinstance(first.new, Fraction):
            return replace(self, new=self.new / first.new)
        return replace(self, old=first.new)

    def __str__(self) -> str:
        what = f"{self.function} (call {self.call + 1}) argument {self.argument}"
        new = f"times {self.new}" if isinstance(self.new, Fraction) else _shortened(self.new)
        change = f"stays {new}" if self.new == self.old else f"{_shortened(self.old)} -> {new}"
        return f"{self.module or 'the model itself'}: {what}: {change}"


def _shortened(value: PatchValue) -> str:
    """The value in words, of a long list its start and its length."""
    if not isinstance(value, tuple) or len(value) <= _SHOWN:
        return f"{value}"
    return f"({', '.join(map(str, value[: _SHOWN - 2]))}, … {len(value)} in all)"


@dataclass(frozen=True)
class Signature:
    """What a model must look like for a plan to fit: its class and every tensor's name and shape."""

    model: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]

    def first_mismatch(self, other: Signature) -> str | None:
        """The first way in which `other` (found) differs from this one (expected), in words, or None."""
        found = dict(other.tensors)
        for name, shape in self.tensors:
            if name not in found:
                return f"tensor {name!r} {list(shape)} is expected and missing"
            if found[name] != shape:
                return f"tensor {name!r} is expected as {list(shape)}, found {list(found[name])}"
        known = dict(self.tensors)
        for name, shape in other.tensors:
            if name not in known:
                return f"tensor {name!r} {list(shape)} is not part of the plan's model"
        return None


Part = TypeVar("Part", Cut, Size, Patch)


def compose(first: Sequence[Part], second: Sequence[Part]) -> tuple[Part, ...]:
    """The parts that do `first`, then `second`."""
    parts = {part.key: part for part in first}
    for part in second:
        parts[part.key] = part.after(parts[part.key]) if part.key in parts else part
    return tuple(parts.values())


def remainder(whole: Sequence[Part], first: Sequence[Part]) -> tuple[Part, ...]:
    """The parts that, after `first`, do the rest of `whole`; raises PlanMismatchError, see `Plan.since`."""
    done = {part.key: part for part in first}
    left = [part.since(done.pop(part.key)) if part.key in done else part for part in whole]
    for part in done.values():
        raise PlanMismatchError(f"{part}: the first plan does it, and the whole one does not")
    return tuple(part for part in left if part is not None)
