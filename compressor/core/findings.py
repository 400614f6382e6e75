"""What rehearsals have found out so far: how operators are read, and where the numbers of a forward are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from compressor.core.factors import Factors
from compressor.core.graph import Graph, PatchRule, SizeRule
from compressor.core.sizes import Number

__all__ = ["Attribute", "Attributes", "Findings", "Held", "Place", "Rules"]

# An operator: the number of its tape, and its own.
Place = tuple[int, int]
NumbersOf = Callable[[Place], Sequence[Number]]


@dataclass(frozen=True)
class Attribute:
    """`module.attribute` (or one item of it) holds the `which`-th number of an operator."""

    module: str
    attribute: str
    item: int | None
    which: int


Attributes = tuple[Attribute, ...]


@dataclass(frozen=True)
class Held:
    """A factor of an axis takes none of these channels away, for a reason found by a trial."""

    tensor: str
    axis: int
    factor: int
    channels: tuple[int, ...]
    reason: str


@dataclass(slots=True)
class Findings:
    """How operators are read so far, and which attributes were found to hold sizes.

    `patched` says by which kind of rule the call that an operator came from is patched, `tried` what did
    not help. `ties` are numbers (place, which) that one attribute holds, so that they stay equal.
    `failing` holds the operators before which a cut copy was seen to fail, `real` the tapes that cannot
    be followed on shapes alone.
    """

    choices: dict[Place, str] = field(default_factory=dict)
    factors: Factors = field(default_factory=Factors)
    found: dict[Place, Attributes] = field(default_factory=dict)
    patched: dict[Place, str] = field(default_factory=dict)
    tried: set[tuple[Place, str]] = field(default_factory=set)
    refuted: dict[Place, set[Attributes]] = field(default_factory=dict)
    held: list[Held] = field(default_factory=list)
    ties: set[frozenset[tuple[Place, int]]] = field(default_factory=set)
    failing: set[Place] = field(default_factory=set)
    real: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Rules:
    """Numbers that follow a cut: attributes of modules, arguments of calls."""

    sizes: tuple[SizeRule, ...] = ()
    patches: tuple[PatchRule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sizes or self.patches)

    def of(self, graph: Graph) -> Graph:
        """The graph with these rules."""
        return replace(graph, size_rules=(*graph.size_rules, *self.sizes), patch_rules=self.patches)

    def and_sizes(self, sizes: Sequence[SizeRule]) -> Rules:
        """With more attributes."""
        return replace(self, sizes=(*self.sizes, *sizes))

    def and_patches(self, patches: Sequence[PatchRule]) -> Rules:
        """With more arguments of calls, each once."""
        known = {(p.module, p.function, p.call, p.argument) for p in self.patches}
        new = {(p.module, p.function, p.call, p.argument): p for p in patches}
        return replace(self, patches=(*self.patches, *(p for key, p in new.items() if key not in known)))

    def with_attributes(self, found: Mapping[Place, Attributes], numbers: NumbersOf) -> Rules:
        """With attributes that follow the `numbers` of their operators."""
        return self.and_sizes(
            [
                SizeRule(a.module, a.attribute, a.item, own[a.which].units, own[a.which].divisor)
                for place, attributes in found.items()
                for own in [numbers(place)]
                for a in attributes
                if a.which < len(own)
            ]
        )
