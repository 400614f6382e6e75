"""The claims of the results page: what is said, how to repeat it, which results and figures show it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.figures import (
    accuracy,
    coverage,
    filter_scale,
    imbalanced,
    latency_gained,
    one_shot,
    phone,
    search,
    speed,
)
from benchmarks.figures.canvas import Content, Draw
from benchmarks.figures.phone import GOAL, LEVELS, time_for_macs
from benchmarks.results import Table

__all__ = ["CLAIMS", "Claim", "beside_torch_pruning", "covered", "grown", "macs_become_time"]


@dataclass(frozen=True)
class Claim:
    """A section of the page: what is claimed, how to repeat it, and which files and tables show it.

    `files` are names of results without their ending, or patterns of them; `tables` are the beginnings of the
    titles that are shown, all of them where there is none. `said` makes sentences or a table of the files.
    `pictures` are figures of the files, by the name of the figure's own file; the first line of the function
    says what it shows.
    """

    title: str
    text: str
    command: str
    files: tuple[str, ...]
    tables: tuple[str, ...] = ()
    said: Callable[[Sequence[Content]], str] | None = None
    pictures: Mapping[str, Draw] = field(default_factory=dict)


def covered(kept: Sequence[Content]) -> str:
    """How many networks of each source had each outcome, this library's and Torch-Pruning's."""
    names = tuple(coverage.OUTCOMES)
    lines = []
    for title, rows in coverage.by_library(kept).items():
        counts = Counter(row["status"] for row in rows)
        lines.append((*title, str(len(rows)), *(str(counts[name]) for name in names)))
    notes = (
        "Ours: two plans, 30 % at random and half by norm, verified, and judged by the reference too. "
        "Theirs: half by norm, judged by the reference, in evaluation alone; *kept statistics* is not told "
        "apart. It is given the heads of attentions, and as layers to be left alone all that this library "
        "keeps. *Wrong*: it says nothing, and channels are mixed up or attention has another temperature. "
        "*Fails*: it raises, or its result does.",
    )
    columns = ("source", "library", "networks", *names)
    return Table("Networks", columns, tuple(lines), notes, words=(0, 1)).markdown()


def beside_torch_pruning(kept: Sequence[Content]) -> str:
    """Who is faster where: medians of the ratio in each round, ours with a new network, theirs in place."""
    won, lost, unequal = [], [], []
    for row in kept[0]["rows"]["networks"]:
        both = [times for times in row["rounds"] if "ours" in times and "theirs_" in times]
        ratio = statistics.median(times["ours"]["cpu_s"] / times["theirs_"]["cpu_s"] for times in both)
        (won if ratio < 1 else lost).append(f"{row['network']} ({ratio:.2f})")
        if abs(row["params_left"]["ours"] - row["params_left"]["theirs_"]) > 0.01:
            unequal.append(row["network"])
    networks = len(won) + len(lost)
    text = (
        f"CPU time of ours over theirs. **Ours is faster** on {len(won)} of {networks}: {', '.join(won)}. "
        f"**Torch-Pruning is faster** on {len(lost)}: {', '.join(lost)}."
    )
    return f"{text} Not equal work, see the parameters left: {', '.join(unequal)}." if unequal else text


def grown(kept: Sequence[Content]) -> str:
    """How time grows from the smallest to the largest network of the series, with layers and with widths."""
    said = []
    for words, key, wide in (("Deeper", "operators", False), ("Wider", "units", True)):
        rows = [row for row in kept[0]["rows"]["scaling"] if ("width" in row["series"]) is wide]
        first, last = rows[0], rows[-1]
        mine, theirs = (_median(last, who) / _median(first, who) for who in ("ours", "theirs_"))
        said.append(
            f"{words}: {last[key] / first[key]:.1f} times the {key} take {mine:.1f} times the time, "
            f"Torch-Pruning {theirs:.1f} times."
        )
    return " ".join(said)


def _median(row: Mapping[str, Any], contender: str) -> float:
    return statistics.median(times[contender]["cpu_s"] for times in row["rounds"])


def macs_become_time(kept: Sequence[Content]) -> str:
    """Where the speed-up by the latency table is at least `GOAL` of the ratio of MACs, and where not."""
    met, missed = [], []
    for row in kept[0]["rows"]:
        for level in LEVELS:
            share = time_for_macs(row, level, f"pruned, {level}")
            said = f"{row['network']}, {level} ({share:.2f})"
            (met if share >= GOAL else missed).append(said)
    of = len(met) + len(missed)
    text = (
        f"Speed-up over the ratio of MACs, by the latency table. **At least {GOAL}** for {len(met)} of {of}: "
    )
    return f"{text}{', '.join(met)}. **Less** for {len(missed)}: {', '.join(missed)}."


CLAIMS = (
    Claim(
        "Exact on what is covered",
        "Pruned networks of three libraries against the original without the removed channels, by two checks "
        "that share no code; and Torch-Pruning on the same networks (`python -m benchmarks.peer_coverage`).",
        "python -m benchmarks.coverage",
        ("coverage-torchvision", "coverage-timm", "coverage-transformers", "peer_coverage-*"),
        said=covered,
        pictures={"coverage": coverage.outcomes},
    ),
    Claim(
        "Accuracy after fine-tuning against MACs",
        "ResNet-20 and -56 on CIFAR-10 beside Torch-Pruning: one short training for all, at the rate that "
        "suits Torch-Pruning best.",
        "python -m benchmarks.accuracy",
        ("accuracy-resnet*", "accuracy-rates-*"),
        pictures={"accuracy": accuracy.against_macs},
    ),
    Claim(
        "Accuracy right after the cut",
        "ResNet-56 on CIFAR-10, no training: as cut, with norms measured anew, reconstructed.",
        "python -m benchmarks.one_shot",
        ("one_shot", "one_shot-1500-images"),
        ("50 %", "70 %"),
        pictures={"one_shot": one_shot.by_scorer},
    ),
    Claim(
        "Latency at the same MACs, beside Torch-Pruning",
        "Half of the MACs removed by our budgets and by ratios of Torch-Pruning; files in onnxruntime, "
        "and networks in PyTorch.",
        "python -m benchmarks.latency_gained",
        ("latency_gained",),
        pictures={"latency_gained": latency_gained.speedups, "latency_accuracy": latency_gained.accuracy},
    ),
    Claim(
        "Half of the MACs as time on a device",
        "Files of five networks, pruned by a latency table and without one.",
        "python -m benchmarks.phone",
        ("phone",),
        said=macs_become_time,
        pictures={"phone": phone.macs_become_time},
    ),
    Claim(
        "Time and memory beside Torch-Pruning",
        "Half of the channels of every layer. Theirs cuts in place and does not verify; ours returns a new "
        "network, verification not counted.",
        "python -m benchmarks.speed --rounds 3",
        ("speed",),
        said=lambda kept: f"{beside_torch_pruning(kept)}\n\n{grown(kept)}",
        pictures={"speed": speed.ratios, "growth": speed.growth},
    ),
    Claim(
        "Imbalanced medical images",
        "Every criterion with one recipe on HAM10000 and PneumoniaMNIST.",
        "python -m benchmarks.imbalanced",
        ("imbalanced", "imbalanced-default", "imbalanced-tuning"),
        ("HAM10000: 58 %", "PneumoniaMNIST-1:9: 58 %", "Filters rescaled", "Fine-tuning rates"),
        pictures={"imbalanced": imbalanced.by_criterion},
    ),
    Claim(
        "Ratios that are searched for",
        "Sensitivity and Optuna beside what budgets choose, as cut and after recovery.",
        "python -m benchmarks.search",
        ("search-*",),
        pictures={"search": search.by_choice},
    ),
    Claim(
        "The claim of the Beta-Rank app",
        "79 % less memory and 72 % less time, by every definition of memory.",
        "python -m benchmarks.app_claim --seeds 0 1",
        ("app_claim",),
        ("The app's claim", "VGG-16, HAM10000: what its files name"),
    ),
    Claim(
        "Pruning and int8 together",
        "Bytes, accuracy and time of files in float32, int8 and half precision.",
        "python -m benchmarks.low_precision --network resnet56_cifar",
        ("low_precision-resnet20_cifar", "low_precision-resnet56_cifar"),
    ),
    Claim(
        "Training channels to zero first",
        "MaskSparsity beside slimming and cutting first, ResNet-20.",
        "python -m benchmarks.sparse_training",
        ("sparse_training",),
    ),
    Claim(
        "The demo",
        "`make demo`: a ResNet-20 on handwritten digits from training to files for phones.",
        "python -m benchmarks.demo",
        ("demo",),
    ),
    Claim(
        "What scoring costs",
        "Beta-Rank beside the forward passes that it needs.",
        "python -m benchmarks.scoring_cost",
        ("scoring_cost",),
    ),
    Claim(
        "Dead filters",
        "Those inside blocks of two published ResNets, and what goes with them.",
        "python -m benchmarks.dead_filters",
        ("dead_filters",),
    ),
    Claim(
        "Filter quality as a criterion",
        "It loses to the plain norm; dead filters are free.",
        "python -m benchmarks.filter_quality",
        ("filter_quality",),
        ("resnet20_cifar: only", "resnet56_cifar: only", "resnet20_cifar, criteria, norms"),
    ),
    Claim(
        "Widths by the spectra of filters, kernels that share a basis",
        "Beside uniform widths and norms, ResNet-20.",
        "python -m benchmarks.filter_widths",
        ("filter_widths",),
    ),
    Claim(
        "Initial filters from data and closed forms",
        "Beside He's, and degenerate filters of a pruned network drawn anew.",
        "python -m benchmarks.filter_init",
        ("filter_init",),
    ),
    Claim(
        "Sketches of very many filters",
        "Speed, exactness and memory.",
        "python -m benchmarks.filter_scale",
        ("filter_scale",),
        pictures={"filter_scale": filter_scale.time_and_memory},
    ),
)
