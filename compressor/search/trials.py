"""The trials of a search: from the proportions that a sampler suggests to a cut that meets the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from torch import nn
from tqdm import tqdm

from compressor.budget import All, Ladder
from compressor.budget.cost_fraction import CostFraction, fewest_for
from compressor.budget.ladder import Lost, Order
from compressor.core.plan import Plan
from compressor.profiling.cost import removed_by
from compressor.profiling.priced import Priced
from compressor.search.curves import labels
from compressor.search.evaluating import Evaluate, measure
from compressor.search.frontier import Point, point
from compressor.search.studies import give_up_dead, mark, optuna_module

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

__all__ = ["LOST", "QUALITY", "Requirement", "Search", "complete", "parts_of_budget"]

Requirement = Callable[[nn.Module], float]
# What a trial notes beside its parameters: the ranks its groups lost, and the quality.
LOST, QUALITY = "lost", "quality"


@dataclass(frozen=True, eq=False)
class Search:
    """What the trials of one search share."""

    ladder: Ladder
    budget: CostFraction | All
    evaluate: Evaluate
    requirements: Mapping[str, Requirement]
    minimize: Sequence[Priced]
    seed: int

    def run(self, study: Study, starts: Sequence[Lost], *, trials: int, progress: bool) -> None:
        """Trials until the study has so many, what each start is `settled` to among them."""
        give_up_dead(study)
        for start in starts:
            study.enqueue_trial(self._profile(start), skip_if_exists=True)
        goals = [(start, self.settled(start).tolist()) for start in starts]
        hidden = None if progress else True  # None: shown on a terminal only
        with tqdm(total=trials, desc="search", leave=False, disable=hidden) as bar:
            while True:
                done = complete(study)
                bar.update(min(len(done), trials) - bar.n)
                known = [trial.user_attrs[LOST] for trial in done]
                missing = [start for start, goal in goals if goal not in known]
                if len(done) >= trials and not missing:
                    return
                if len(done) >= trials:  # whoever had it failed, or is not done yet
                    study.enqueue_trial(self._profile(missing[0]))
                self._trial(study)

    def _trial(self, study: Study) -> None:
        """One trial, whatever becomes of it; raises what `evaluate` raises once that is written down."""
        failed = optuna_module().trial.TrialState.FAIL
        trial = study.ask()
        try:
            mark(trial)
            shares = {name: trial.suggest_float(name, 0.0, top) for name, top in self._tops().items()}
            profile = np.array([shares.get(name, 0.0) for name in self.names])
            lost = self.lost(profile).tolist()
            trial.set_user_attr(LOST, lost)
            quality, required = self._measured(study, trial, lost)
            trial.set_user_attr(QUALITY, quality)
            for key, value in required.items():
                trial.set_constraint(key, value)
        except BaseException:
            study.tell(trial, state=failed)
            raise
        study.tell(trial, [quality, *(float(cost.total(self._mask(lost))) for cost in self.minimize)])

    def _measured(self, study: Study, trial: Trial, lost: list[int]) -> tuple[float, dict[str, float]]:
        """The quality of a cut and what is required of it, taken from an earlier trial of the same cut."""
        for earlier in complete(study):
            if earlier.user_attrs[LOST] == lost:
                return earlier.user_attrs[QUALITY], earlier.constraints
        where, plan, model = f"trial {trial.number}", self.plan(lost), self.ladder.graph.model
        quality = measure(model, plan, self.evaluate, where=where, seed=self.seed)
        required = {
            key: measure(model, plan, asked, where=f"{where}, requirement {key!r}", seed=self.seed)
            for key, asked in self.requirements.items()
        }
        return quality, required

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameter of each group."""
        return labels(self.ladder.graph)

    def _tops(self) -> dict[str, float]:
        """For each group that may lose something the largest share of it."""
        found = zip(self.names, self.ladder.allowances, self.ladder.sizes.tolist(), strict=True)
        return {name: float(own.levels[-1] / size) for name, own, size in found if len(own.levels) > 1}

    def _profile(self, lost: Lost) -> dict[str, float]:
        """The parameters of a trial that comes to these ranks."""
        shares = dict(zip(self.names, (lost / self.ladder.sizes).tolist(), strict=True))
        return {name: shares[name] for name in self._tops()}

    def point(self, name: str, quality: float, plan: Plan | None) -> Point:
        """A point with the costs that are objectives among its costs."""
        found = point(self.ladder.graph, name, quality, plan)
        gone = None if plan is None else removed_by(self.ladder.graph, plan)
        return replace(found, costs={**found.costs, **{c.name: c.total(gone) for c in self.minimize}})

    def _mask(self, lost: Sequence[int]) -> npt.NDArray[np.bool_]:
        return self.ladder.mask(np.array(lost))

    def lost(self, profile: npt.NDArray[np.float64]) -> Lost:
        """The ranks lost [n_groups] in the proportions [n_groups] of a trial."""
        enough = fewest_for(self.budget, parts_of_budget(self.budget), self.ladder, _by_profile(profile))
        if not self.minimize:
            return enough
        levels = [allowance.levels for allowance in self.ladder.allowances]
        asked = [
            int(own[max(0, int(np.searchsorted(own, share * size + 1e-9, side="right")) - 1)])
            for own, share, size in zip(levels, profile, self.ladder.sizes.tolist(), strict=True)
        ]
        return np.maximum(enough, asked)

    def settled(self, lost: Lost) -> Lost:
        """The cut that a trial in the proportions of `lost` comes to: the same, where that only just fits."""
        shares = self._profile(lost)
        return self.lost(np.array([shares.get(name, 0.0) for name in self.names]))

    def plan(self, lost: Sequence[int], note: str = "") -> Plan:
        """The plan by which groups lose so many ranks."""
        return self.ladder.graph.plan(self._mask(lost), note=note)


def parts_of_budget(budget: CostFraction | All) -> Sequence[CostFraction]:
    """The fractions that a budget is made of."""
    return budget.parts if isinstance(budget, All) else (budget,)


def complete(study: Study) -> list[FrozenTrial]:
    """The trials that came to an end, in order."""
    return study.get_trials(deepcopy=False, states=(optuna_module().trial.TrialState.COMPLETE,))


def _by_profile(profile: npt.NDArray[np.float64]) -> Order:
    """The order that thins each group by its own share of one scale: first by small parts of their shares."""

    def order(ladder: Ladder) -> Sequence[npt.NDArray[np.float64]]:
        groups = zip(ladder.allowances, ladder.sizes.tolist(), profile.tolist(), strict=True)
        return [
            own.levels[1:] / size / share if share > 0 else np.full(len(own.levels) - 1, np.inf)
            for own, size, share in groups
        ]

    return order
