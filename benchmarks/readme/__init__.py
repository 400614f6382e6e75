"""What the README says of results: every sentence and line of a table, made of the numbers that are kept.

A statement is text of the README that holds measured numbers, written by a function of kept results, so that
the README says what they say or a test fails. The results page lists them with the command that repeats each.
"""

from __future__ import annotations

from benchmarks.readme import accuracy, cutting, demo, peers, phones, systems
from benchmarks.readme.statement import Statement, in_one_line
from benchmarks.results import Table

__all__ = ["STATEMENTS", "Statement", "in_one_line", "table"]

STATEMENTS = (
    Statement("the demo", "python -m benchmarks.demo", ("demo",), demo.demo),
    Statement("a short example", "python examples/phone_bundle.py", (), demo.lines),
    Statement("files for phones", "python -m benchmarks.phone", ("phone",), phones.phone),
    Statement("the Beta-Rank app", "python -m benchmarks.app_claim --seeds 0 1", ("app_claim",), phones.app),
    Statement(
        "accuracy without training",
        "python -m benchmarks.one_shot; python -m benchmarks.one_shot --calibration 1500 "
        "--scorers ReconstructionError --fractions 0.5 0.3",
        ("one_shot", "one_shot-1500-images"),
        accuracy.one_shot,
    ),
    Statement("rare classes", "python -m benchmarks.imbalanced", ("imbalanced",), accuracy.rare),
    Statement(
        "training to zero", "python -m benchmarks.sparse_training", ("sparse_training",), accuracy.sparse
    ),
    Statement(
        "sensitivity",
        "python -m benchmarks.search --network resnet56_cifar --images 200 --ratios 0.2 0.5 0.8 --trials 30 "
        "--stages 'as cut' --seeds 0",
        ("search-resnet56",),
        accuracy.search,
    ),
    Statement("dead filters", "python -m benchmarks.dead_filters", ("dead_filters",), accuracy.dead),
    Statement(
        "ECG rhythms",
        "python examples/recipes/ecg_rhythms.py --model ecg_cnn_lstm --out runs/ecg",
        ("recipes/ecg_cnn_lstm",),
        systems.ecg,
    ),
    Statement(
        "super-resolution",
        "python examples/recipes/espcn_t91.py --data t91/ --test Set5/ Set14/ --control --out runs/espcn",
        ("recipes/espcn_t91",),
        systems.espcn,
    ),
    Statement(
        "the clutter filter",
        "python examples/recipes/echo_clutter.py --data echo_clutter.npz --held-out Toshiba --steps 1500 "
        "--tuning-steps 750 --out runs/echo",
        ("recipes/echo_clutter_long",),
        systems.clutter,
    ),
    Statement(
        "restored faces",
        "python examples/recipes/pmrf_faces.py --data orl_faces.npz --out runs/faces",
        ("recipes/pmrf_faces_pruned",),
        systems.faces,
    ),
    Statement(
        "the error of a cut",
        "python -m benchmarks.coverage",
        ("coverage-torchvision", "coverage-timm", "coverage-transformers"),
        cutting.errors,
    ),
    Statement("random examples", "python -m benchmarks.fuzzing", ("fuzzing",), peers.fuzzed),
    Statement("a new user's way", "python -m benchmarks.first_hour", ("first_hour",), peers.first_hour),
    Statement(
        "exactness beside Torch-Pruning",
        "python -m benchmarks.coverage; python -m benchmarks.peer_coverage",
        tuple(
            f"{who}-{source}"
            for who in ("coverage", "peer_coverage")
            for source in ("torchvision", "timm", "transformers")
        ),
        peers.exactness,
    ),
    Statement(
        "accuracy beside other libraries",
        "python -m benchmarks.accuracy; python -m benchmarks.accuracy --network resnet56_cifar; "
        "python -m benchmarks.accuracy --epochs 5 --train 4000 --fractions 0.5",
        ("accuracy-resnet20", "accuracy-resnet56", "accuracy-resnet20-5-epochs"),
        peers.trained,
    ),
    Statement(
        "latency beside Torch-Pruning",
        "python -m benchmarks.latency_gained",
        ("latency_gained",),
        peers.latency,
    ),
    Statement(
        "speed beside Torch-Pruning", "python -m benchmarks.speed --rounds 3", ("speed",), cutting.speed
    ),
)


def table() -> str:
    """The statements for the results page: what is said, the command, where it is read from."""
    lines = []
    for statement in STATEMENTS:
        texts = (text.strip("|. ").replace(" | ", ", ").replace("](", "](../") for text in statement.texts())
        lines.append((statement.about, "; ".join(texts), f"`{statement.command}`", statement.links()))
    columns = ("of", "the README says", "command", "read from")
    return Table("The README, number by number", columns, tuple(lines), words=(0, 1, 2, 3)).markdown()
