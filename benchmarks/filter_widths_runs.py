"""The runs of the benchmark of widths and kernels: what is cut or replaced, and how it is trained."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import compressor as cp
from benchmarks import cifar
from compressor import design, models
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.data import load_cifar10_npz, normalize
from compressor.training import Recipe, fine_tune_

NETWORK = "resnet20_cifar"
TRAINED_ON = Path("data/cifar10/cifar10_jpegq75_10k2k.npz")
_CALIBRATION = 256

Order = Callable[["Setting"], Any]


@dataclass(frozen=True, eq=False)
class Setting:
    """A trained network with images to go on with, and how to build one that is not, with its images."""

    trained: nn.Module
    data: cifar.Data
    build: Callable[[], nn.Module]
    scratch: cifar.Data

    @classmethod
    def of(cls, shared: Path | None, options: argparse.Namespace) -> Setting:
        """The checkpoint; raises Missing where a file is not there."""
        net, data = cifar.load(shared, train=options.train, test=options.test, name=NETWORK)
        assert shared is not None
        split = load_cifar10_npz(shared / TRAINED_ON)
        scratch = cifar.Data(
            normalize(split.train.images[: options.train]),
            split.train.labels[: options.train],
            normalize(split.test.images),
            split.test.labels,
        )
        return cls(net, data, lambda: models.create(NETWORK), scratch)

    @classmethod
    def drawn(cls) -> Setting:
        """A small network without a training, and drawn images: to see that all runs."""
        generator = torch.Generator().manual_seed(0)
        y = torch.arange(64) % 10
        x = torch.randn(64, 3, 32, 32, generator=generator) * 0.1 + y.view(-1, 1, 1, 1) / 10
        data = cifar.Data(x, y, x[:32], y[:32])

        def build() -> nn.Module:
            return models.ResNetCifar(8, width=8)

        torch.manual_seed(0)
        return cls(build().eval(), data, build, data)


def _spectral(ranks: design.SpectralRanks) -> Order:
    return lambda setting: ranks


# Orders of steps by the rule for widths, "scores" the usual one: all channels ranked together.
RULES: dict[str, Order] = {
    "uniform": lambda setting: cp.budget.by_ratio,
    "participation ratio, filters": _spectral(design.SpectralRanks()),
    "stable rank, filters": _spectral(design.SpectralRanks(design.StableRank())),
    "energy 95 %, filters": _spectral(design.SpectralRanks(design.EnergyRank(0.95))),
    "participation ratio, activations": lambda setting: design.SpectralRanks(
        spectra=design.ActivationSpectra(setting.data.batches(_CALIBRATION))
    ),
    "scores": lambda setting: cp.budget.by_score,
}
SCRATCH = (
    "uniform",
    "participation ratio, filters",
    "energy 95 %, filters",
    "participation ratio, activations",
)


def _plan(setting: Setting, rule: str, fraction: float) -> tuple[Graph, Plan]:
    graph = cp.capture(setting.trained, setting.data.x_test[:1])
    budget = cp.budget.Macs(fraction, order=RULES[rule](setting))
    return graph, cp.plan(cp.score(graph, cp.scoring.DEFAULT), budget)


def _facts(setting: Setting, net: nn.Module) -> dict[str, Any]:
    profile = cp.profile(net, setting.data.x_test[:1])
    whole = cp.profile(setting.trained, setting.data.x_test[:1])
    convs = {name: m.out_channels for name, m in net.named_modules() if isinstance(m, nn.Conv2d)}
    return {"macs": profile.macs / whole.macs, "params": profile.params / whole.params, "widths": convs}


def pruned(
    setting: Setting, rule: str, fraction: float, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """The checkpoint cut by a rule: right answers as cut, with norms measured anew, and fine-tuned."""
    _, plan = _plan(setting, rule, fraction)
    small = cp.apply(setting.trained, plan)
    return {**_facts(setting, small), "right": _tuned(small, setting.data, options.epochs, 0.02, seed)}


def scratch(
    setting: Setting, rule: str, fraction: float, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """A network of the rule's widths trained from random weights."""
    _, plan = _plan(setting, rule, fraction)
    net = cp.apply(setting.build(), plan)
    torch.manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()  # with the fans of the widths it has
    recipe = Recipe(epochs=options.scratch_epochs, lr=0.05, warmup_epochs=0.5, weight_decay=5e-4, seed=seed)
    fine_tune_(net, cifar.Augmented(setting.scratch, seed), F.cross_entropy, recipe, progress=False)
    return {**_facts(setting, net), "right": {"trained": _bits(net, setting.scratch)}}


def _shared(rule: design.BasisSize, least_saving: float = 0.0) -> Callable[[Setting], nn.Module]:
    def made(setting: Setting) -> nn.Module:
        x = setting.data.x_test[:1]
        proposal = design.suggest_kernels(
            setting.trained, x, discard=0.0, basis=rule, least_saving=least_saving
        )
        return proposal.apply(setting.trained)

    return made


def _all(size: int) -> Callable[[Setting], nn.Module]:
    """Every layer whose kernels have several places on `size` shared kernels, whether that saves or not."""

    def made(setting: Setting) -> nn.Module:
        convs = [name for name, m in setting.trained.named_modules() if isinstance(m, nn.Conv2d)]
        wide = [name for name in convs if setting.trained.get_submodule(name).kernel_size != (1, 1)]
        return design.rewrite_kernels(setting.trained, dict.fromkeys(wide, design.SharedBasis(size)))

    return made


BASES: dict[str, Callable[[Setting], nn.Module]] = {
    "as it is": lambda setting: copy.deepcopy(setting.trained),
    "10^H, where it saves 10 %": _shared(design.ByEntropy(), 0.1),
    "95 % energy, where it saves 10 %": _shared(design.ByEnergy(0.95), 0.1),
    **{f"k = {size}": _all(size) for size in range(9, 0, -1)},
}


def changed(
    setting: Setting, basis: str, fraction: float, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """The checkpoint on shared kernels: the error of its outputs, right answers before and after training."""
    small = BASES[basis](setting)
    error = design.output_error(setting.trained, small, setting.data.x_test[:100])
    half = options.train // 2
    data = replace(setting.data, x_train=setting.data.x_train[:half], y_train=setting.data.y_train[:half])
    return {**_facts(setting, small), "error": error, "right": _tuned(small, data, 1, 0.01, seed)}


def latencies(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """The time of each network on shared kernels in onnxruntime, all taking turns; ratios to the first."""
    names = [name for name, *_ in zip(BASES, range(2) if options.quick else BASES, strict=False)]
    nets = [BASES[name](setting) for name in names]
    found = cp.profiling.measure_latency(
        nets,
        [setting.data.x_test[:1]],
        runtime=cp.runtimes.OnnxRuntime(threads=1),
        rounds=options.rounds,
    )
    return {
        name: {
            "ms": timing.ms,
            "times": 1 / timing.speedup,
            "range": [1 / timing.speedup_p90, 1 / timing.speedup_p10],
        }
        for name, timing in zip(names, found.timings, strict=True)
    }


def _tuned(net: nn.Module, data: cifar.Data, epochs: int, rate: float, seed: int) -> dict[str, str]:
    """Right answers as it is, with norms measured anew, and after the fine-tuning that all get."""
    cut = _bits(net, data)
    cifar.recalibrate_(net, data, examples=min(512, len(data.x_train)))
    measured = _bits(net, data)
    recipe = Recipe(epochs=epochs, lr=rate, seed=seed)
    fine_tune_(net, cifar.Augmented(data, seed), F.cross_entropy, recipe, progress=False)
    return {"cut": cut, "norms": measured, "tuned": _bits(net, data)}


def _bits(net: nn.Module, data: cifar.Data) -> str:
    return "".join("01"[right] for right in cifar.correct(net, data))
