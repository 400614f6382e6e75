"""Pruning in the midst of a training, step by step, in any loop."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer

from compressor.budget import Budget, Step, next_step, stages
from compressor.core.capture import capture
from compressor.core.plan import Plan
from compressor.core.surgery import apply, apply_
from compressor.core.verify import verify
from compressor.errors import InputError
from compressor.observing.processes import Processes
from compressor.scoring import DEFAULT, Scorer, score
from compressor.scoring.weight_function import WeightScore
from compressor.training import processes as running

__all__ = ["GradualPruning"]

log = logging.getLogger(__name__)


class GradualPruning:
    """A budget that is reached in `steps` calls of `step_`, each of which cuts the model in place.

    Between the calls the model trains on, in whatever loop, with the same optimizer, whose state is cut as
    well. Channels are scored anew in each step; fractions and limits of the budget mean what they mean in one
    step (see `prune(..., steps=...)`, which does the same with new models). Each step is verified against a
    copy of the original unless `check=False`.

    `args` and `kwargs` are example inputs. Raises InputError under DDP and its kin, which have sized their
    buffers by the parameters: prune between two trainings there.

    >>> import torch, compressor as cp
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> pruning = GradualPruning(net, torch.rand(3, 4), budget=cp.budget.Uniform(0.75), steps=2)
    >>> for _ in range(2):
    ...     plan = pruning.step_(optimizer)
    ...     print(net[0], pruning.done)
    Linear(in_features=4, out_features=4, bias=True) False
    Linear(in_features=4, out_features=2, bias=True) True
    """

    def __init__(
        self,
        model: nn.Module,
        *args: Any,
        budget: Budget,
        scorer: Scorer | WeightScore | None = None,
        steps: int,
        check: bool = True,
        **kwargs: Any,
    ) -> None:
        if not isinstance(budget, Budget):
            raise InputError(f"GradualPruning needs a budget such as budget.Macs(0.5), got {budget!r}")
        if running.world() > 1:
            raise InputError(
                f"{running.world()} processes train this model, and gradients are exchanged in buffers of "
                f"the present sizes; prune between two trainings, with prune(..., between=...)"
            )
        self._model, self._args, self._kwargs = model, args, kwargs
        self._scorer = DEFAULT if scorer is None else scorer
        self._check = check
        self._targets = list(stages(budget, steps))
        self._original = capture(copy.deepcopy(model), *args, **kwargs)
        self._removed = np.zeros(self._original.n_units, dtype=bool)

    @property
    def done(self) -> bool:
        """Whether the budget is reached."""
        return not self._targets

    @property
    def plan(self) -> Plan:
        """The one plan that leads from the original model to the present one."""
        return self._original.plan(self._removed)

    def step_(self, optimizer: Optimizer | None = None, *, processes: Processes | None = None) -> Plan:
        """Score and cut the model (and the optimizer's state) once more; the plan of this step.

        Raises InputError when the budget is reached already; nothing is cut when anything fails before.
        """
        if self.done:
            raise InputError("all steps of this GradualPruning were made; make a new one to prune further")
        now = capture(self._model, *self._args, **self._kwargs)
        scores = score(now, self._scorer, processes=processes)
        step = next_step(self._targets[0], scores, original=self._original, removed=self._removed)
        if self._check:
            self._verify(step)
        apply_(self._model, step.plan, optimizer=optimizer)
        self._removed = step.removed
        target = self._targets.pop(0)
        log.info("pruned to %s, %d units removed so far", target, int(self._removed.sum()))
        return step.plan

    def _verify(self, step: Step) -> None:
        """Prove the step on a copy, so that a wrong one leaves model and optimizer as they were."""
        original, small = self._original, apply(self._model, step.plan)
        plan = original.plan(step.removed)
        verify(original.model, small, plan, *original.args, graph=original, **original.kwargs)
