"""The plan: a frozen, readable list of cuts, and everything that can be done with it as a value.

A plan knows tensor names, axes and indices. It knows nothing of models, graphs or scores, so it can
be written to a file, read back, composed and compared anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from compressor.core.plan_json import parsed, written
from compressor.core.plan_parts import (
    Cut,
    Patch,
    PatchValue,
    Role,
    Signature,
    Size,
    SizeValue,
    compose,
    remainder,
)
from compressor.errors import FileError, PlanError, PlanMismatchError
from compressor.whole_files import drafted

__all__ = ["Cut", "Patch", "PatchValue", "Plan", "Role", "Signature", "Size", "SizeValue", "compose"]


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
            if cut.key in seen:
                raise PlanError(f"{cut.tensor!r} axis {cut.axis} is cut twice in one plan")
            seen.add(cut.key)
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
        return Plan(
            compose(first.cuts, self.cuts),
            compose(first.sizes, self.sizes),
            first.signature,
            self.note,
            compose(first.patches, self.patches),
        )

    def since(self, first: Plan) -> Plan:
        """The plan on what `first` makes that does the rest of this one: `rest.after(first)` is this plan.

        Raises PlanMismatchError where the two start from different models, or this one keeps what `first`
        removes.

        >>> before = Signature("Net", (("fc.weight", (4, 3)),))
        >>> two = Plan((Cut("fc.weight", 0, 4, (1, 3), "writer"),), (), before)
        >>> one = Plan((Cut("fc.weight", 0, 4, (3,), "writer"),), (), before)
        >>> print(*one.since(two).cuts)
        fc.weight axis 0: 2 -> 1 (writer)
        >>> one.since(two).after(two) == one
        True
        """
        mismatch = self.signature.first_mismatch(first.signature)
        if mismatch:
            raise PlanMismatchError(f"the two plans do not start from one model: {mismatch}")
        return Plan(
            remainder(self.cuts, first.cuts),
            remainder(self.sizes, first.sizes),
            first.result,
            self.note,
            remainder(self.patches, first.patches),
        )

    def diff(self, other: Plan) -> str:
        """How `other` differs from this plan, one line for each axis; empty where they agree."""
        mine, theirs = ({cut.key: cut for cut in plan.cuts} for plan in (self, other))
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
        return written(self.cuts, self.sizes, self.signature, self.note, self.patches)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan written by `to_json`; raises FileError for anything else."""
        try:
            return cls(*parsed(text))
        except PlanError as error:
            raise FileError(f"the plan contradicts itself: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write this plan to `path` as JSON, whole or not at all; FileError where that is not possible."""
        with drafted(Path(path), what=f"the plan {str(path)!r}") as draft:
            draft.write_text(self.to_json(), encoding="utf-8")

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
