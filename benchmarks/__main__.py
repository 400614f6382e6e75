"""All benchmarks in their small mode, or their names.

python -m benchmarks [--list] [coverage] [speed] [scoring_cost] [accuracy] [imbalanced] [phone]
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks import zoo

# Name: (what it measures, about how many minutes its small mode and its full run take).
BENCHMARKS = {
    "coverage": ("exactness on networks of torchvision, timm and transformers", 8, 90),
    "peer_coverage": ("exactness of torch-pruning on the networks of coverage", 4, 60),
    "speed": ("time and peak memory beside torch-pruning", 3, 12),
    "scoring_cost": ("time of criteria on activations beside their forward passes", 1, 2),
    "sparse_training": ("MaskSparsity beside global sparse training, ResNet-20 on CIFAR-10", 1, 25),
    "accuracy": ("accuracy of ResNet-56 by scorer, beside torch-pruning", 2, 40),
    "one_shot": ("accuracy of ResNet-56 right after pruning, with and without recovery", 1, 40),
    "filter_quality": ("what filter quality is worth as a criterion and a budget, CIFAR-10", 1, 20),
    "dead_filters": ("dead filters of ResNets, and what goes with them", 1, 1),
    "low_precision": ("bytes, accuracy and speed of a pruned ResNet-20 in float32, int8 and fp16", 1, 2),
    "phone": ("size, memory, time and instructions of pruned networks as files, fp32 and int8", 4, 20),
    "latency_gained": ("latency of networks cut to half of their MACs, beside torch-pruning", 1, 15),
    "filter_scale": ("sketches of filters: speed beside NumPy, memory to 1e8 kernels, from Parquet", 1, 12),
    "filter_widths": (
        "widths by spectra, kernels that share a basis: accuracy, MACs, time, ResNet-20",
        1,
        25,
    ),
    "imbalanced": ("rates of every class on imbalanced medical images, by method", 1, 60),
    "filter_init": ("initial filters: first layers from data, deep networks, degenerate ones redrawn", 1, 20),
    "search": ("accuracy of ResNet-20 by who chooses the ratios: heuristics, sensitivity, Optuna", 1, 6),
    "demo": ("the numbers of `make demo`, kept", 1, 2),
    "first_hour": ("the way of a new user: environment, pip, own model, files for a phone", 1, 3),
    "fuzzing": ("random networks, budgets and plans: each cut proved, each bound counted anew", 1, 30),
    "app_claim": ("memory, time and accuracy of a VGG-16 before and after, as files", 2, 45),
}


def main() -> int:
    """The exit code: 1 if any benchmark ends with another code than 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--list", action="store_true", help="only say what there is")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.list:
        for name, (what, small, full) in BENCHMARKS.items():
            print(f"{name:17}{what} (--quick {small} min, full {full} min)")
        return 0
    failed = []
    for name in options.names or BENCHMARKS:
        print(f"== {name}: {BENCHMARKS[name][0]}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
        if options.shared:
            command += ["--shared", options.shared]
        if subprocess.run(command, check=False).returncode != 0:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
