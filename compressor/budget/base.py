"""The budget family: how many channels may stay, and the limits that every budget honours."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from compressor.budget.explain import uncut_by_rounding, why_nothing
from compressor.budget.ladder import Ladder, Lost
from compressor.budget.layers import Target
from compressor.budget.limits import Limits
from compressor.budget.numbers import check_count, check_part
from compressor.budget.widths import Widths
from compressor.errors import BudgetError, InputError, NothingToPruneError, NothingToPruneWarning
from compressor.scoring import Scores

__all__ = ["Budget"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Budget(ABC):
    """Says which units go, given their scores; subclass it with the one method `lost`.

    Whatever the budget, the lowest scores of a group go first (ties by index), one channel of every
    group stays, and these limits hold:

    - `ignore`: layers whose own output channels never change: name patterns, module classes,
      modules. A pattern matches a tensor name or the path of any module around it, `*` also matches
      dots: "layer1" and "layer1.*" are all of layer1. What an ignored layer *reads* may still
      shrink. Channels that another layer writes along with an ignored one (a residual stream) stay,
      too.
    - `max_ratio`: no group loses more than this ratio of its channels: one number, or numbers by
      name pattern (of several that match, the smallest).
    - `ratios`: layers that lose exactly this ratio (rounded so that more stays), by name pattern;
      of several that match, the last. 0 leaves them alone. What the budget asks is met by the
      others.
    - `min_channels`: no group keeps fewer channels (of the tensor it is named after), or all it
      has.
    - `round_to`: what a layer keeps is rounded up to a multiple of this, or it keeps all it has. A
      `LatencyTable` in its place rounds up to the widths that pay on the runtime it measured. Of gated
      layers (LSTM, GEGLU) the hidden width is meant, not the rows of all gates.

    Channels of attention belong to two groups, whole heads and dims of every head. All limits are of
    the channels that both leave: `max_ratio`, `ratios` and `min_channels` are shared between the
    groups as `Uniform` does it, and may be met by one of them alone. `round_to` is for the dims of a
    head (all of them, or a multiple); heads are not rounded, any number of them keeps the width a
    multiple. Where `ratios` ask for different ones of queries and values, which share their heads,
    both lose theirs, as the dims are groups of their own.

    A group belongs to every layer that writes its channels, norms included. `ignore` wins over the
    other limits.

    >>> class OneEach(Budget):
    ...     '''Every group loses its least important rank.'''
    ...     def lost(self, ladder):
    ...         return np.minimum(ladder.end, 1)
    >>> import torch; from compressor.core.capture import capture
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> scores = Scores(capture(net, torch.zeros(1, 4)), np.array([3, 1, 4, 1, 5, 9, 2, 6]), "pi")
    >>> np.flatnonzero(OneEach().choose(scores)).tolist()
    [1]
    """

    ignore: Target | Sequence[Target] = ()
    max_ratio: float | Mapping[str, float] = field(default=1.0, hash=False)
    ratios: Mapping[str, float] = field(default_factory=dict, hash=False)
    min_channels: int = 1
    round_to: int | Widths = 1

    def __post_init__(self) -> None:
        """Check the limits and take copies, so that nobody can change them afterwards."""
        if isinstance(self.ignore, (str, type, nn.Module)):
            object.__setattr__(self, "ignore", (self.ignore,))
        elif isinstance(self.ignore, Sequence | set | frozenset):
            object.__setattr__(self, "ignore", tuple(self.ignore))
        else:
            raise BudgetError(
                f"ignore = {self.ignore!r}: name patterns, module classes or modules are expected"
            )
        for name in ("max_ratio", "ratios"):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                object.__setattr__(self, name, dict(value))
                for pattern, ratio in value.items():
                    _check_pattern(name, pattern)
                    check_part(f"{name}[{pattern!r}]", ratio, low=name == "ratios", high=name != "ratios")
            elif name == "ratios":
                raise BudgetError(
                    f"ratios = {value!r}: a mapping from name pattern to ratio is expected, such as "
                    '{"layer3.*": 0.2}'
                )
            else:
                check_part(name, value, low=False, high=True)
        check_count("min_channels", self.min_channels)
        if isinstance(self.round_to, type) or not isinstance(self.round_to, Widths):
            check_count("round_to", self.round_to)

    def __repr__(self) -> str:
        shown = []
        for option in sorted(fields(self), key=lambda option: bool(option.kw_only)):
            value = getattr(self, option.name)
            default = {} if option.default is MISSING else option.default
            if not option.kw_only:
                shown.append(f"{value!r}")
            elif value != default:
                name = getattr(value, "__name__", None) if callable(value) else None
                shown.append(f"{option.name}={name or repr(value)}")
        return f"{type(self).__name__}({', '.join(shown)})"

    @abstractmethod
    def lost(self, ladder: Ladder) -> Lost:
        """How many ranks each group loses [n_groups]: for each one of its rungs.

        Raises UnreachableBudgetError when that cannot be.
        """

    def choose(
        self, scores: Scores, *, removed: Mask | None = None, held: Mapping[int, str] | None = None
    ) -> Mask:
        """The units to remove [n_units]; `removed` [n_units] are those that earlier steps removed.

        Removed units stay removed, and every number of the budget counts from the whole graph. `held` are
        groups (positions in the graph's) that lose no more, each with the reason in words.
        Raises NothingToPruneError when nothing may be removed, UnreachableBudgetError when the
        budget asks for more than may be removed, BudgetError when a limit fits no layer. Warns with
        NothingToPruneWarning when the budget is so small, or the rounding so coarse, that layers
        that could shrink stay as they are.
        """
        ladder = self.ladder(scores, removed=removed, held=held)
        lost = np.asarray(self.lost(ladder))
        self._check(ladder, lost)
        self._warn(ladder, lost)
        return ladder.mask(lost)

    def ladder(
        self, scores: Scores, *, removed: Mask | None = None, held: Mapping[int, str] | None = None
    ) -> Ladder:
        """The ranks of every group in the order in which they go, and how many of them may; see `choose`."""
        if not isinstance(scores, Scores):
            raise InputError(
                f"a budget needs scores, got {type(scores).__name__}: score(capture(model, x), scorer)"
            )
        count = scores.graph.n_units
        removed = None if removed is None else np.asarray(removed)
        if removed is not None and (removed.shape != (count,) or removed.dtype != np.bool_):
            raise InputError(
                f"`removed` must hold one flag for each of the {count} units, got "
                f"{removed.dtype} {list(removed.shape)}"
            )
        limits = Limits(
            ignore=tuple(self.ignore),  # type: ignore[arg-type] # __post_init__ made it a tuple
            max_ratio=self.max_ratio,
            ratios=self.ratios,
            min_channels=self.min_channels,
            round_to=1 if isinstance(self.round_to, Widths) else self.round_to,
            widths=self.round_to if isinstance(self.round_to, Widths) else self.widths(),
            held=held or {},
        )
        ladder = Ladder.of(scores.graph, scores.values, limits, removed)
        if not ladder.end.any():
            raise NothingToPruneError(
                f"{self!r}: no channel of {scores.graph.signature.model} may be removed: "
                f"{why_nothing(ladder)}"
            )
        return ladder

    def widths(self) -> Widths | None:
        """What chooses among the multiples of `round_to`; None: all of them do."""
        return None

    def check(
        self, model: nn.Module, small: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> object | None:
        """Hold the pruned model to what the budget promised, and return what was found, in words by `str`.

        `prune` calls it at its end. None for costs that are counted, as there is nothing to find out; a
        budget on what is predicted measures, and warns.
        """
        return None

    def at_step(self, step: int, steps: int) -> Budget:
        """The budget for step `step` (1 … steps) of a gradual pruning; the last one is this budget.

        What is left falls geometrically, so every step removes the same share of what it finds;
        `ratios` go along, all other limits hold in full from the first step on.
        """
        if not 1 <= step <= steps:
            raise BudgetError(f"step {step} of {steps}: a step from 1 to {steps} is expected")
        if step == steps:
            return self
        share = step / steps
        ratios = {pattern: 1 - (1 - ratio) ** share for pattern, ratio in self.ratios.items()}
        return replace(self.part(share), ratios=ratios)

    def part(self, share: float) -> Budget:
        """The budget that leads `share` (> 0 and < 1) of the way to this one; for `at_step`."""
        raise BudgetError(
            f"{type(self).__name__} does not say what {share:g} of the way to it is; define its method "
            "`part`, or prune in one step"
        )

    def _check(self, ladder: Ladder, lost: Lost) -> None:
        """Hold every subclass to the limits."""
        if lost.shape != ladder.start.shape:
            raise BudgetError(
                f"{self!r}: `lost` must return one number for each of the {len(ladder.start)} groups, got "
                f"shape {list(lost.shape)}"
            )
        for group, allowance, count in zip(
            ladder.graph.groups, ladder.allowances, lost.tolist(), strict=True
        ):
            if count not in allowance.levels:
                raise BudgetError(
                    f"{self!r}: {group.name} may lose {allowance.levels.tolist()} ranks ({allowance.hold}), "
                    f"and `lost` returned {count}"
                )

    def _warn(self, ladder: Ladder, lost: Lost) -> None:
        """Say what stays as it is against expectation."""
        if not lost.any():
            text = f"{self!r} removed nothing: it asks for less than the smallest step of any group"
        elif uncut := uncut_by_rounding(ladder):
            text = f"{self!r}: {len(uncut)} groups stay whole because of rounding: {', '.join(uncut)}"
        else:
            return
        warnings.warn(text, NothingToPruneWarning, stacklevel=3)


def _check_pattern(option: str, pattern: object) -> None:
    if not isinstance(pattern, str):
        raise BudgetError(f"{option} takes name patterns as keys, got {pattern!r} ({type(pattern).__name__})")
