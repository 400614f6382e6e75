"""The stages that recipes share; each has its own file in the run's folder and goes on from it."""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from session import Session
from torch import Tensor, nn

import compressor as cp
from compressor.recovery import remove_silenced
from compressor.training import Recipe, Validation, fine_tune_, sparsity, step_rates

__all__ = ["Data", "MaskSparsityRun", "finish", "load_weights", "named", "train"]


@dataclass(frozen=True, eq=False)
class Data:
    """What a recipe reads: training batches, a few plain ones for scores, and the validation."""

    training: Any
    scoring: list[Any]
    validation: Validation

    def example(self, run: Session) -> Tensor:
        """Two images on the device of the run, for captures."""
        images: Tensor = self.scoring[0][0][:2]
        return images.to(run.device)


def train(
    run: Session, model: nn.Module, data: Data, loss: Any, recipe: Recipe, *, name: str, **options: Any
) -> None:
    """One training in place; its file is `out/name.pt`."""
    history = fine_tune_(model, data.training, loss, recipe, checkpoint=run.out / f"{name}.pt", **options)
    run.say(f"{name}:\n{history}")


@dataclass(frozen=True, eq=False)
class MaskSparsityRun:
    """MaskSparsity from the trained original to the small model.

    `macs` is the fraction that stays. With `slimming` the mask comes from a global sparse training of that
    strength, as in the paper; else from Beta-Rank scores, which cost one pass over a few batches.

    Source: N. Jiang, X. Zhao, C. Zhao, Y. An, M. Tang, J. Wang, 2022, arXiv 2201.06776. Departures: the
    proximal form, whose strength follows from the learning rates, so that scales become exactly zero; the
    shifts of the same channels go to zero as well, so that the cut changes nothing; the mask is decided by a
    budget for whole groups of coupled channels, and the cut goes by it.
    """

    run: Session
    data: Data
    loss: Any
    macs: float
    sparse: Recipe
    tuning: Recipe
    slimming: float | None = None

    def small(self, original: nn.Module) -> nn.Module:
        """Plan, sparse training, cut and fine-tuning; `original` stays as it is."""
        run, data = self.run, self.data
        example = data.example(run)
        run.say(f"original: {data.validation.measure(original):.4f}")
        plan = run.plan("plan.json", lambda: self._plan(original, example))
        run.say(plan.summary())
        model = copy.deepcopy(original)
        graph = cp.capture(model, example)
        rates = step_rates(self.sparse, len(data.training))
        form = sparsity.Proximal(sparsity.Within(rates))
        # Without validation: the channels are empty at the end, the best epoch may lie before.
        shift = sparsity.Decay(len(rates))
        regularizer = sparsity.MaskSparsity(plan, graph, form, shift=shift)
        train(run, model, data, self.loss, self.sparse, name="sparse", regularizer=regularizer)
        run.say(f"after sparse training: {data.validation.measure(model):.4f}")
        sparsity.silence_(plan, graph)
        removal = remove_silenced(plan, graph, data.scoring[:2])
        small = removal.model
        run.same_(small)
        run.say(f"after the cut: {data.validation.measure(small):.4f}; {removal}")
        train(run, small, data, self.loss, self.tuning, name="fine-tuned", validation=data.validation)
        return small

    def _plan(self, original: nn.Module, example: Tensor) -> cp.Plan:
        budget = cp.budget.Macs(self.macs)
        if self.slimming is None:
            scorer = cp.scoring.BetaRank(self.data.scoring)
            return cp.plan(cp.score(cp.capture(original, example), scorer, processes="all"), budget)
        slim = copy.deepcopy(original)
        graph = cp.capture(slim, example)
        regularizer = sparsity.NetworkSlimming(graph, sparsity.Subgradient(self.slimming))
        train(self.run, slim, self.data, self.loss, self.sparse, name="slimming", regularizer=regularizer)
        return cp.plan(cp.score(graph, cp.scoring.BatchNormScale()), budget)


def finish(run: Session, original: nn.Module, small: nn.Module, data: Data) -> None:
    """What was reached, and the small model as a folder that `compressor.load` reads."""
    metric = data.validation.measure(small)
    if run.rank:
        return
    before, after = (cp.profile(net, data.example(run)[:1]) for net in (original, small))
    for what, old, new in (
        ("MACs", before.macs, after.macs),
        ("parameters", before.params, after.params),
    ):
        run.say(f"{what}: {old:,} -> {new:,} ({new / old - 1:+.2%})")
    run.say(f"validation metric of the small model: {metric:.4f}")
    cp.save(small, run.out / "small", overwrite=True)
    run.say(f"saved to {run.out / 'small'}")


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict, as it is or under "state_dict" or "model", with or without "module.".

    Or the file of a training by `fine_tune_`, such as a stage of a recipe: what the training left behind.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content.get("format") == "compressor-training":
        kept = content["best"] or content["average"] or content["tensors"]
        content = {name: tensor for name, tensor in kept.items() if name in model.state_dict()}
    for key in ("state_dict", "model"):
        content = content.get(key, content)
    model.load_state_dict({name.removeprefix("module."): tensor for name, tensor in content.items()})


def named(path: Path | None, option: str) -> Path:
    """The path that was named, or a message that it has to be."""
    if path is None:
        sys.exit(f"name the data with {option}, or try the recipe with --quick")
    return path
