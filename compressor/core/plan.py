"""The plan: a frozen, readable list of cuts, and everything that can be done with it as a value.

A plan knows tensor names, axes and indices. It knows nothing of models, graphs or scores, so it can
be written to a file, read back, composed and compared anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from compressor.errors import FileError, PlanError, PlanMismatchError

__all__ = ["FORMAT_VERSION", "Cut", "Patch", "PatchValue", "Plan", "Signature", "Size", "compose"]

FORMAT_VERSION = 1
# Of plans with patches: a library that does not know them must not apply the rest.
_PATCHED_VERSION = 2

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


def compose(first: Sequence[Patch], second: Sequence[Patch]) -> tuple[Patch, ...]:
    """The patches that do `first`, then `second`."""
    patches = {patch.key: patch for patch in first}
    for patch in second:
        earlier = patches.get(patch.key)
        if earlier is not None:
            new = patch.new
            if isinstance(new, Fraction) and isinstance(earlier.new, (int, Fraction)):
                new = earlier.new * new if isinstance(earlier.new, Fraction) else int(earlier.new * new)
            patch = replace(patch, old=earlier.old, new=new)
        patches[patch.key] = patch
    return tuple(patches.values())


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


@dataclass(frozen=True)
class Plan:
    """Which channels of which tensors stay: the one description of a pruned model.

    >>> before = Signature("Net", (("fc1.weight", (4, 3)), ("fc2.weight", (2, 4))))
    >>> plan = Plan((Cut("fc1.weight", 0, 4, (0, 2), "writer"),
    ...              Cut("fc2.weight", 1, 4, (0, 2), "reader")), (), before)
    >>> print(plan)
    Plan for Net: 2 cuts, 0 sizes
      fc1.weight axis 0: 4 -> 2 (writer)
      fc2.weight axis 1: 4 -> 2 (reader)
    >>> Plan.from_json(plan.to_json()) == plan
    True
    """

    cuts: tuple[Cut, ...]
    sizes: tuple[Size, ...]
    signature: Signature
    note: str = field(default="", compare=False)
    patches: tuple[Patch, ...] = ()

    def __post_init__(self) -> None:
        shapes = dict(self.signature.tensors)
        seen: set[tuple[str, int]] = set()
        for cut in self.cuts:
            if cut.tensor not in shapes:
                raise PlanError(f"the plan cuts {cut.tensor!r}, which its model does not have")
            shape = shapes[cut.tensor]
            if cut.axis < 0 or cut.axis >= len(shape) or shape[cut.axis] * cut.blocks != cut.size:
                raise PlanError(f"{cut}: the tensor's shape is {list(shape)}")
            if (cut.tensor, cut.axis) in seen:
                raise PlanError(f"{cut.tensor!r} axis {cut.axis} is cut twice in one plan")
            seen.add((cut.tensor, cut.axis))
        keys = [patch.key for patch in self.patches]
        if len(set(keys)) < len(keys):
            twice = next(patch for patch in self.patches if keys.count(patch.key) > 1)
            raise PlanError(f"{twice}: patched twice in one plan")

    # -- reading ---------------------------------------------------------------------------------

    def __str__(self) -> str:
        head = f"Plan for {self.signature.model}: {len(self.cuts)} cuts, {len(self.sizes)} sizes"
        if self.patches:
            head += f", {len(self.patches)} patched calls"
        return "\n".join([head, *(f"  {item}" for item in (*self.cuts, *self.sizes, *self.patches))])

    def summary(self) -> str:
        """A table with one row for each layer: channels written and read, before and after.

        Below it, what is patched in the calls of forwards.
        """
        rows: dict[str, dict[Role, str]] = {}
        for cut in self.cuts:
            layer = cut.tensor.rpartition(".")[0] or cut.tensor
            text = f"{cut.size} -> {len(cut.keep)}"
            rows.setdefault(layer, {}).setdefault(cut.role, text)
        width = max([len("layer"), *map(len, rows)])
        lines = [f"{'layer':<{width}}  {'writes':>14}  {'reads':>14}"]
        for layer, by_role in rows.items():
            written, read = by_role.get("writer", "-"), by_role.get("reader", "-")
            lines.append(f"{layer:<{width}}  {written:>14}  {read:>14}")
        if self.patches:
            lines += ["numbers in calls of a forward:", *(f"  {patch}" for patch in self.patches)]
        return "\n".join(lines)

    @property
    def result(self) -> Signature:
        """The signature of the model this plan produces."""
        shapes = {name: list(shape) for name, shape in self.signature.tensors}
        for cut in self.cuts:
            shapes[cut.tensor][cut.axis] = len(cut.keep) // cut.blocks
        tensors = tuple((name, tuple(shape)) for name, shape in shapes.items())
        return Signature(self.signature.model, tensors)

    # -- values of plans -------------------------------------------------------------------------

    def after(self, first: Plan) -> Plan:
        """One plan on the original that does `first`, then this plan; raises PlanMismatchError."""
        mismatch = self.signature.first_mismatch(first.result)
        if mismatch:
            raise PlanMismatchError(f"this plan does not start where the first one ends: {mismatch}")
        cuts = {(cut.tensor, cut.axis): cut for cut in first.cuts}
        for cut in self.cuts:
            before = cuts.get((cut.tensor, cut.axis))
            if before is not None:
                keep = tuple(before.keep[i] for i in cut.keep)
                cut = replace(cut, size=before.size, keep=keep)
            cuts[cut.tensor, cut.axis] = cut
        sizes = {(size.module, size.attribute): size for size in first.sizes}
        for size in self.sizes:
            earlier = sizes.get((size.module, size.attribute))
            sizes[size.module, size.attribute] = replace(size, old=earlier.old) if earlier else size
        patches = compose(first.patches, self.patches)
        return Plan(tuple(cuts.values()), tuple(sizes.values()), first.signature, self.note, patches)

    def diff(self, other: Plan) -> str:
        """How `other` differs from this plan, one line for each axis; empty where they agree."""
        mine = {(cut.tensor, cut.axis): cut for cut in self.cuts}
        theirs = {(cut.tensor, cut.axis): cut for cut in other.cuts}
        lines = []
        for key in dict.fromkeys((*mine, *theirs)):
            a, b = mine.get(key), theirs.get(key)
            if a == b:
                continue
            name = f"{key[0]} axis {key[1]}"
            if a is None or b is None:
                lines.append(f"{name}: {_kept(a)} | {_kept(b)}")
            else:
                gone = sorted(set(a.keep) - set(b.keep))
                new = sorted(set(b.keep) - set(a.keep))
                lines.append(f"{name}: {_kept(a)} | {_kept(b)}, only first {gone}, only second {new}")
        for size in sorted(set(self.sizes) ^ set(other.sizes), key=str):
            lines.append(f"{size} ({'first' if size in self.sizes else 'second'} only)")
        for patch in sorted(set(self.patches) ^ set(other.patches), key=str):
            lines.append(f"{patch} ({'first' if patch in self.patches else 'second'} only)")
        return "\n".join(lines)

    # -- files -----------------------------------------------------------------------------------

    def to_json(self) -> str:
        """This plan as JSON text, with a format version and a digest of its content."""
        content = {
            "model": self.signature.model,
            "tensors": [[name, list(shape)] for name, shape in self.signature.tensors],
            "cuts": [
                [cut.tensor, cut.axis, cut.size, list(cut.keep), cut.role, cut.blocks] for cut in self.cuts
            ],
            "sizes": [[size.module, size.attribute, size.old, size.new] for size in self.sizes],
            "note": self.note,
        }
        if self.patches:
            content["patches"] = [
                [*patch.key, _written(patch.old), _written(patch.new)] for patch in self.patches
            ]
        version = _PATCHED_VERSION if self.patches else FORMAT_VERSION
        head = {"format": "compressor-plan", "version": version, "digest": _digest(content)}
        return json.dumps({**head, **content})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan written by `to_json`; raises FileError for anything else."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileError(f"the plan is not complete JSON (truncated?): {error}") from error
        if not isinstance(data, dict) or data.get("format") != "compressor-plan":
            raise FileError("the text is not a plan: its 'format' is not 'compressor-plan'")
        if data.get("version") not in (FORMAT_VERSION, _PATCHED_VERSION):
            raise FileError(
                f"the plan has format version {data.get('version')!r}, this library reads "
                f"{FORMAT_VERSION} and {_PATCHED_VERSION}; use the library version that wrote it, or plan "
                f"again"
            )
        content = {k: v for k, v in data.items() if k not in ("format", "version", "digest")}
        if data.get("digest") != _digest(content):
            raise FileError("the plan was changed after it was written: its digest does not match")
        try:
            return _plan_of(content)
        except PlanError as error:
            raise FileError(f"the plan contradicts itself: {error}") from error
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise FileError(f"the plan lacks a field or has one of the wrong kind: {error!r}") from error

    def save(self, path: str | Path) -> None:
        """Write this plan to `path` as JSON, whole or not at all; FileError where that is not possible."""
        file = Path(path)
        try:
            with tempfile.TemporaryDirectory(prefix=".plan-", dir=file.parent) as aside:
                draft = Path(aside) / file.name
                draft.write_text(self.to_json(), encoding="utf-8")
                os.replace(draft, file)
        except OSError as error:
            raise FileError(f"cannot write the plan {str(path)!r}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """The plan in the file `path`; raises FileError naming the file and the fault."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"cannot read the plan {str(path)!r}: {error}") from error
        except FileError as error:
            raise FileError(f"plan {str(path)!r}: {error}") from error


def _kept(cut: Cut | None) -> str:
    return "uncut" if cut is None else f"{len(cut.keep)} of {cut.size}"


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plan_of(content: Mapping[str, Any]) -> Plan:
    tensors = tuple((str(name), tuple(map(int, shape))) for name, shape in content["tensors"])
    cuts = tuple(
        Cut(str(tensor), int(axis), int(size), tuple(map(int, keep)), role, int(blocks))
        for tensor, axis, size, keep, role, blocks in content["cuts"]
    )
    sizes = tuple(
        Size(str(module), str(attribute), _size_value(old), _size_value(new))
        for module, attribute, old, new in content["sizes"]
    )
    patches = tuple(
        Patch(str(module), str(function), int(call), str(argument), _patch_value(old), _patch_value(new))
        for module, function, call, argument, old, new in content.get("patches", ())
    )
    return Plan(cuts, sizes, Signature(str(content["model"]), tensors), str(content["note"]), patches)


def _size_value(value: int | Sequence[int]) -> SizeValue:
    return value if isinstance(value, int) else tuple(map(int, value))


def _written(value: PatchValue) -> int | float | str | list[int] | None:
    """The value as JSON has it; a fraction is a text."""
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    return list(value) if isinstance(value, tuple) else value


def _patch_value(value: float | str | Sequence[int] | None) -> PatchValue:
    if isinstance(value, str):
        return Fraction(value)
    return value if value is None or isinstance(value, (int, float)) else tuple(map(int, value))
