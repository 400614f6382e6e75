"""The ways of pruning that imbalanced compares; all but a few cut every layer to the same width.

With one ratio for all layers the criterion only chooses *which* channels go: every method ends in a
network of the same shape, so that nothing but the choice tells them apart.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import torch_pruned
from benchmarks.medical import Drawn, Medical, recipe_of, train_
from compressor.budget import ByDegeneracy, Macs, by_ratio, by_score
from compressor.budget.ladder import Order
from compressor.scoring import (
    LAMP,
    BatchNormScale,
    BetaRank,
    FilterQuality,
    GeometricMedian,
    HRank,
    Norm,
    PerClass,
    Random,
    Scorer,
    Taylor,
)
from compressor.scoring.hrank import map_ranks
from compressor.training import Recipe
from compressor.training.rates import step_rates
from compressor.training.sparsity import Decay, MaskSparsity, Proximal, Within

__all__ = ["AT_ONE_FRACTION", "CANDIDATES", "METHODS", "REFERENCE", "RESCALED", "Method", "prune_and_tune"]

_SCORED_ON = 1024  # training images for the criteria that need data
_RANKED_ON = 256  # of them for HRank, which takes an SVD of every map

ScorerOf = Callable[[Medical, int], Scorer]


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    `rescale` multiplies kept filters by 1 + their published score, see `published_scores`. `sparse`
    spends the first half of the epochs, rounded down, on training the planned channels to zero before
    they are cut. `peer` is an importance of torch-pruning, which then cuts the network.
    """

    scorer: ScorerOf | None  # None: the one that `cp.prune` takes
    order: Order = by_ratio
    rescale: str | None = None
    sparse: bool = False
    peer: Callable[[], object] | None = None


def _beta(**options: object) -> ScorerOf:
    return lambda data, seed: BetaRank(data.batches("train", _SCORED_ON), **options)  # type: ignore[arg-type]


def _l1(data: Medical, seed: int) -> Scorer:
    return Norm(1, roles="writer")


def _taylor(batches: Iterable[object]) -> Scorer:
    return Taylor(batches, F.cross_entropy)


def _taylor_per_class(data: Medical, seed: int) -> Scorer:
    return PerClass(_taylor, data.batches("train", _SCORED_ON), len(data.classes))


def _hrank(data: Medical, seed: int) -> Scorer:
    return HRank(data.batches("train", _RANKED_ON))


def _quality(data: Medical, seed: int) -> Scorer:
    return FilterQuality()


def _distinct(data: Medical, seed: int) -> Scorer:
    return FilterQuality(terms=("live", "norm", "distinct", "read"))


_PEER_MAGNITUDE = torch_pruning.importance.GroupMagnitudeImportance  # the L2 norm, its default
_PEER_TAYLOR = torch_pruning.importance.GroupTaylorImportance
REFERENCE = "L1"
METHODS: Mapping[str, Method] = {
    REFERENCE: Method(_l1),
    "FPGM": Method(lambda data, seed: GeometricMedian()),
    "HRank": Method(_hrank),
    "Taylor": Method(lambda data, seed: _taylor(data.batches("train", _SCORED_ON))),
    "Taylor (per class)": Method(_taylor_per_class),
    "Beta-Rank (code)": Method(_beta()),
    "Beta-Rank (paper)": Method(_beta(direction="paper")),
    "Beta-Rank (balanced)": Method(_beta(balanced=True)),
    "MaskSparsity": Method(_beta(), sparse=True),
    "Random": Method(lambda data, seed: Random(seed)),
    "FilterQuality": Method(_quality),
    "FilterQuality (distinct)": Method(_distinct),
    "L1, degeneracy": Method(_l1, ByDegeneracy()),
    "default": Method(None, by_score),
    "Torch-Pruning": Method(None, peer=_PEER_MAGNITUDE),
    "Torch-Pruning, global": Method(None, by_score, peer=_PEER_MAGNITUDE),
    "Torch-Pruning Taylor": Method(None, peer=_PEER_TAYLOR),
    "L1, rescaled": Method(_l1, rescale="L1"),
    "HRank, rescaled": Method(_hrank, rescale="HRank"),
    "Beta-Rank (code), rescaled": Method(_beta(), rescale="Beta-Rank"),
}
# What the default could be, for `--candidates`: of weights alone, and Taylor to see what data would give.
CANDIDATES: Mapping[str, Method] = {
    "default": METHODS["default"],
    "Norm(2), global": Method(lambda data, seed: Norm(2), by_score),
    "Norm(2), uniform": Method(lambda data, seed: Norm(2)),
    "Norm(1), global": Method(lambda data, seed: Norm(1), by_score),
    "Norm(1), uniform": Method(lambda data, seed: Norm(1)),
    "Norm(2) of writers, global": Method(lambda data, seed: Norm(2, roles="writer"), by_score),
    "FPGM, global": Method(lambda data, seed: GeometricMedian(), by_score),
    "BatchNormScale, global": Method(lambda data, seed: BatchNormScale(), by_score),
    "LAMP, global": Method(lambda data, seed: LAMP(), by_score),
    "Taylor, global": Method(METHODS["Taylor"].scorer, by_score),
}
RESCALED = {name: name.removesuffix(", rescaled") for name, method in METHODS.items() if method.rescale}
# Beside the comparison proper: controls and ablations, run where most is removed.
AT_ONE_FRACTION = frozenset(
    {"Random", "Taylor (per class)", "Torch-Pruning, global", *RESCALED}
    | {"FilterQuality", "FilterQuality (distinct)", "L1, degeneracy"}
)


def prune_and_tune(
    model: nn.Module, data: Medical, method: Method, recipe: Recipe, *, fraction: float, seed: int
) -> tuple[nn.Module, nn.Module]:
    """The network right after the cut and after fine-tuning; `model` is used up.

    The cut is proved by `verify`, but torch-pruning's. All train for the same number of epochs in all.
    """
    x, budget = data.example, Macs(fraction, order=method.order)
    if method.peer is not None:
        cut = torch_pruned.prune(
            model,
            x,
            method.peer,
            fraction=fraction,
            together=method.order is by_score,
            ignored=["linear"],
            batches=data.batches("train", _SCORED_ON) if method.peer is _PEER_TAYLOR else (),
            seed=seed,
        )
        return cut, _tuned(cut, data, recipe, seed)
    if method.scorer is None:
        cut = cp.prune(model, x, budget=budget)
        return cut, _tuned(cut, data, recipe, seed)
    graph = cp.capture(model, x)
    plan = cp.plan(cp.score(graph, method.scorer(data, seed)), budget)
    scores = published_scores(method.rescale, model, data) if method.rescale else {}
    if method.sparse:
        half = recipe_of(recipe.epochs // 2, recipe.lr)
        steps = step_rates(half, len(Drawn(data, seed=seed)))
        regularizer = MaskSparsity(plan, graph, Proximal(Within(steps)), shift=Decay(len(steps)))
        train_(model, data, half, seed=seed, regularizer=regularizer)
        recipe = recipe_of(recipe.epochs - half.epochs, recipe.lr)
    cut = cp.apply(model, plan)
    cp.verify(model, cut, plan, x)
    kept = {c.tensor: torch.tensor(c.keep) for c in plan.cuts if c.role == "writer" and c.axis == 0}
    for name, values in scores.items():
        rescale_(cut, name, 1 + values[kept.get(f"{name}.weight", slice(None))])
    return cut, _tuned(cut, data, recipe, seed)


def _tuned(cut: nn.Module, data: Medical, recipe: Recipe, seed: int) -> nn.Module:
    tuned = copy.deepcopy(cut)
    train_(tuned, data, recipe, seed=seed)
    return tuned


def published_scores(kind: str, model: nn.Module, data: Medical) -> dict[str, Tensor]:
    """The scores of the filters [O] of every 3x3 convolution, on the scale of Beta-Rank's published code.

    That code multiplies every kept filter by 1 + its score before fine-tuning: Beta-Rank's are stretched
    to 0..1, L1's are mean |W| times the number of output positions, HRank's are ranks of maps.
    """
    batches = data.batches("train", _RANKED_ON)
    convolutions = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    }
    if kind == "Beta-Rank":
        found = BetaRank(batches).layer_scores(cp.capture(model, data.example))
        raw = {name: found[f"{name}.weight", 0] for name in convolutions}
        return {name: (v - v.min()) / (v.max() - v.min()) for name, v in raw.items()}
    maps = _normed_maps(model, convolutions, batches[0][0])
    if kind == "HRank":
        return {name: map_ranks(maps[name].relu()).mean(0) for name in convolutions}
    assert kind == "L1"
    return {
        name: module.weight.detach().abs().mean(dim=(1, 2, 3)) * maps[name][0, 0].numel()
        for name, module in convolutions.items()
    }


def _normed_maps(model: nn.Module, convolutions: Mapping[str, nn.Module], x: Tensor) -> dict[str, Tensor]:
    """What the norm behind every convolution gives for `x`."""
    maps: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, args, output: maps.update({name: output.detach()})

    hooks = [model.get_submodule(norm_of(name)).register_forward_hook(keep(name)) for name in convolutions]
    try:
        with torch.no_grad():
            model.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def rescale_(model: nn.Module, name: str, factors: Tensor) -> None:
    """Multiply filters [O] by their factors, and the statistics of the norm behind them likewise.

    The network computes what it did (up to the norm's eps), but filters c times larger turn c^2 times
    more slowly.
    """
    convolution, norm = model.get_submodule(name), model.get_submodule(norm_of(name))
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    factors = factors.to(convolution.weight.dtype)
    with torch.no_grad():
        convolution.weight.mul_(factors[:, None, None, None])
        norm.running_mean.mul_(factors)
        norm.running_var.mul_(factors.square())


def norm_of(name: str) -> str:
    """The name of the norm behind a convolution of the benchmark's network.

    >>> norm_of("layer1.0.conv2")
    'layer1.0.bn2'
    """
    return name.replace("conv", "bn")
