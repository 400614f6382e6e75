"""The README's numbers beside other libraries: exactness, accuracy after training, latency; and of trust."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from benchmarks.accuracy_tables import DENSE, accuracy_of, grouped
from benchmarks.figures.coverage import by_library
from benchmarks.methods import Method
from benchmarks.readme.statement import Content, row_of

__all__ = ["exactness", "first_hour", "fuzzed", "latency", "trained"]

_DEFAULT = "Norm(2, power=2)"
_ROWS = {
    "not pruned, trained as long": DENSE,
    "`ReconstructionError`, per MAC, reconstructed": Method(
        "ours", "ReconstructionError", "all", "per MAC", "reconstructed"
    ),
    "`cp.prune`, reconstructed": Method("ours", _DEFAULT, "all", "global", "reconstructed"),
    '`cp.prune`, `scorer=Norm(power=2, normalize="max")`': Method(
        "ours", "Norm(2, power=2, normalize='max')", "all", "global"
    ),
    "`cp.prune` as it comes": Method("ours", _DEFAULT, "all", "global"),
    "the same, inside blocks only": Method("ours", _DEFAULT, "inner", "global"),
    "Torch-Pruning, inside blocks, global": Method("torch-pruning", "Norm(2)", "inner", "global"),
    "Torch-Pruning, inside blocks, uniform": Method("torch-pruning", "Norm(2)", "inner", "uniform"),
    "ModelOpt, FastNAS": Method("modelopt", "FastNAS", "inner", "search"),
}


def exactness(*contents: Content) -> Iterable[str]:
    """Outcomes over the zoo, ours and Torch-Pruning's."""
    libraries = by_library(contents)
    ours, theirs = (
        Counter(row["status"] for (_, who), rows in libraries.items() if who == library for row in rows)
        for library in ("ours", "torch-pruning")
    )
    exact = ours["exact"] + ours["exact, kept statistics"]
    assert not ours["wrong"] and not ours["fails"] and not ours["refused"]
    yield (
        f"Of {ours.total()} networks of torchvision, timm and transformers {exact} are pruned exactly and "
        f"{ours['not run']} did not fit into the memory."
    )
    yield (
        f"Torch-Pruning is exact on {theirs['exact']} of {theirs.total()}, says nothing and is wrong on "
        f"{theirs['wrong']}, fails on {theirs['fails']}, and met the limit of time or memory on "
        f"{theirs['not run']}"
    )


def trained(*contents: Content) -> Iterable[str]:
    """The table after one short training, a column for each network; the last file is a longer one."""
    *contents, longer = contents
    networks = [grouped([r for r in content["rows"] if r["fraction"] in (0.5, 1.0)]) for content in contents]
    for name, method in _ROWS.items():
        cells = []
        for found in networks:
            runs = found.get(method, [])
            seeds = f" ({len(runs)})" if runs else ""
            cells.append(f"{accuracy_of(runs, 'fine_tuned')}{seeds}" if runs else "")
        yield f"| {name} | {' | '.join(cells)} |".replace("|  |", "| |")
    far = grouped([row for row in contents[0]["rows"] if row["fraction"] == 0.3])
    uniform, inside, fitted = (
        accuracy_of(far[_ROWS[name]], "fine_tuned").split()[0]
        for name in (
            "Torch-Pruning, inside blocks, uniform",
            "the same, inside blocks only",
            "`cp.prune`, reconstructed",
        )
    )
    yield (
        f"With 70 % removed Torch-Pruning's uniform widths are at {uniform} %, our ranking inside blocks at "
        f"{inside} %, reconstructed at {fitted} %"
    )
    found, schedule = grouped(longer["rows"]), longer["rows"][0]["schedule"]
    fitted, peer = (
        accuracy_of(found[_ROWS[name]], "fine_tuned").split()[0]
        for name in ("`cp.prune`, reconstructed", "Torch-Pruning, inside blocks, global")
    )
    assert schedule["epochs"] == 5
    yield (
        f"Five epochs of {schedule['train']:,} images bring ResNet-20 to {fitted} % reconstructed, with "
        f"Torch-Pruning to {peer} %"
    )
    schedule = contents[0]["rows"][0]["schedule"]
    assert schedule["epochs"] == 1
    yield f"an epoch on {schedule['train']:,} images, ± standard error over {schedule['test']:,} test images"


def latency(content: Content) -> Iterable[str]:
    """Speed-ups at half of the MACs in onnxruntime, of the networks whose lead stands clear of noise."""
    for network in ("vgg16_bn_cifar", "mobilenet_v2"):
        row = row_of(content["rows"], network=network, fraction=0.5)
        found = {cut: values["speedup"] for cut, values in row["measured"]["default"].items()}
        theirs = max((cut for cut in found if cut.startswith("torch")), key=found.__getitem__)
        cells = [found["ours"], found["ours, where it pays"], found["torch-pruning"], found[theirs]]
        name = {"vgg16_bn_cifar": "VGG-16-BN, 32 px", "mobilenet_v2": "MobileNetV2, 224 px"}[network]
        yield f"| {name} | {' | '.join(f'{cell:.2f}x' for cell in cells)} |"


def first_hour(content: Content) -> Iterable[str]:
    """How long a new user needs, of which pip takes how much."""
    seconds = {row["name"]: row["wall_s"] for row in content["rows"]}
    pip = seconds["torch"] + seconds["this library"]
    yield f"takes {sum(seconds.values()):.0f} seconds, of which pip {pip:.0f}"


def fuzzed(content: Content) -> Iterable[str]:
    """How many random examples were tried, and how many failed a check."""
    rounds = content["rows"]
    failed = sum(len(row["failures"]) for row in rounds)
    yield f"{sum(row['examples'] for row in rounds):,} random examples"
    yield f"of which {failed or 'none'} failed a check"
