"""Exactness of Torch-Pruning on the networks of `coverage`, judged by the same reference.

    python -m benchmarks.peer_coverage [--source NAME] [--quick] [--models NAME ...]

Half of the channels of every layer by magnitude, in float64 on the same scrambled weights. It is given all
that its examples give by hand and more: heads of attention by number, the sizes of heads that modules
remember, and to be left alone every layer that this library's capture keeps, those that write the outputs
above all. What it removed is read from the values that are left. Every network runs in a process of its
own, with limits of processor time and memory.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch_pruning
from torch import nn

import compressor as cp
from benchmarks import results, zoo
from benchmarks.checking import SEED, TOLERANCE, empty_row
from benchmarks.isolated import Limits, Row, examined, kept_rows
from benchmarks.peer_cuts import Changed, cuts_of
from benchmarks.reference import CannotJudge, error_against_reference
from benchmarks.scrambling import scrambled_
from benchmarks.zoo import Entry, Inputs, outputs, sources
from compressor.budget import Uniform
from compressor.errors import CompressorError
from compressor.scoring import Norm

__all__ = ["examine", "head_counts", "left_alone"]

RATIO = 0.5
_COUNTS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "heads")
_SINGLE = {
    *("q", "k", "v", "query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin"),
    *("to_q", "to_k", "to_v"),
}
_PROJECTIONS = {*_SINGLE, "qkv", "qkv_proj", "query_key_value", "to_qkv", "in_proj", "c_attn", "kv"}
_OF_A_HEAD = ("head_dim", "attention_head_size", "key_value_proj_dim", "dim_head", "d_kv")
_OF_ALL_HEADS = ("all_head_size", "inner_dim", "all_head_dim", "attn_dim")


def main() -> int:
    """The exit code after examining the networks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_coverage", description=__doc__)
    parser.add_argument("--source", default="all", choices=[*sources.SOURCES, "all"])
    parser.add_argument("--quick", action="store_true", help="a few small networks of each source")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--fresh", action="store_true", help="also what has been done already")
    parser.add_argument("--limit", type=float, default=60.0, help="CPU seconds for a network (60)")
    parser.add_argument("--memory-gb", type=float, default=8.0, help="memory for a network (8)")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time (1)")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for source in sources.SOURCES if options.source == "all" else [options.source]:
        try:
            _run(source, sources.entries(source, options.shared, quick=options.quick), options)
        except zoo.Missing as missing:
            print(f"skipped: {missing}")
    return 0


def _run(source: str, entries: list[Entry], options: argparse.Namespace) -> None:
    name = f"peer_coverage-{source}"
    done = kept_rows(name)
    wanted = [
        entry
        for entry in entries
        if (options.fresh or entry.key not in done)
        and (not options.models or {entry.name, entry.family} & set(options.models))
    ]
    examined(
        name,
        wanted,
        examine,
        Limits(options.limit, options.memory_gb, options.jobs, cpu=True),
        facts=results.context("peer_coverage", vars(options), seeds=[SEED]),
        line=_line,
    )


def _line(row: Row) -> str:
    said = row.get("refused") or "; ".join(row["failures"])
    return f"{row['network']:32} {row['status']:14} {said[:140]}"


def examine(entry: Entry, save: Callable[[Row], None]) -> Row:
    """What became of a network: `exact`, `wrong`, `fails`, `nothing removed`, `cannot judge`, `not run`."""
    row = empty_row(entry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _examined(entry, row, save)
        except MemoryError as error:
            row["status"], row["refused"] = "not run", f"memory limit in {row['stage']}: {error}"
        except CannotJudge as reason:
            row["status"], row["refused"] = "cannot judge", str(reason)
        except CompressorError as error:
            row["status"], row["refused"] = "not run", f"no hints: {error}"
        except Exception as error:
            told = f"{row['stage']}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            memory = "can't allocate memory" in told
            wrong = row["stage"] == "reference"  # it ran, and computes something else
            row["status"] = "not run" if memory or row["stage"] == "build" else "wrong" if wrong else "fails"
            row["failures"].append(told)
    save(row)
    return row


def _examined(entry: Entry, row: Row, save: Callable[[Row], None]) -> None:
    def stage(name: str) -> None:
        row["stage"] = name
        save(row)

    stage("build")
    model, inputs = entry.build(SEED)
    scrambled_(model, inputs, seed=SEED)
    inputs = inputs.double()
    small = copy.deepcopy(model)
    alone, counts = left_alone(small, inputs), head_counts(small)
    before = {layer: _width(layer) for layer in counts}
    stage("graph")
    pruner = torch_pruning.pruner.BasePruner(
        small,
        None,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=RATIO,
        ignored_layers=alone,
        num_heads=counts,
        forward_fn=lambda net, _: inputs.call(net),
        output_transform=outputs,
    )
    stage("step")
    pruner.step()
    _set_by_hand_(small, counts, before)
    small.eval()
    row["parameters"] = sum(p.numel() for p in model.parameters())
    row["left"] = sum(p.numel() for p in small.parameters())
    stage("forward")
    with torch.no_grad():
        inputs.call(small)
    stage("changed")
    try:
        plan = cuts_of(model, small)
    except Changed as change:
        raise CannotJudge(str(change)) from change
    if not plan.cuts:
        row["status"] = "nothing removed"
        return
    stage("reference")
    error = error_against_reference(model, small, plan, inputs)
    row["status"] = "exact" if error <= TOLERANCE else "wrong"
    if row["status"] == "wrong":
        row["failures"].append(f"differs from the reference by {error:.1e}")


def left_alone(model: nn.Module, inputs: Inputs) -> list[nn.Module]:
    """The layers whose output channels this library keeps all of, those that write the outputs among them."""
    graph = cp.capture(model, *inputs.args, **inputs.kwargs)
    plan = cp.plan(cp.score(graph, Norm()), Uniform(RATIO))
    cut = {cut.tensor.rpartition(".")[0] for cut in plan.cuts if cut.axis == _out_axis(model, cut.tensor)}
    layers = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)
    return [m for name, m in model.named_modules() if isinstance(m, layers) and name not in cut]


def head_counts(model: nn.Module) -> dict[nn.Module, int]:
    """Heads of the projections of every attention that names its number, as Torch-Pruning wants them."""
    counts: dict[nn.Module, int] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            counts[module] = module.num_heads
            continue
        given: Any = next((n for name in _COUNTS if isinstance(n := getattr(module, name, None), int)), None)
        width: Any = getattr(module, "head_dim", None)
        for name, child in module.named_children():
            if name not in _PROJECTIONS or not isinstance(child, nn.Linear):
                continue
            if given:
                counts[child] = given
            elif isinstance(width, int) and name in _SINGLE:
                counts[child] = child.out_features // width
    return counts


def _set_by_hand_(model: nn.Module, counts: dict[nn.Module, int], before: dict[nn.Module, int]) -> None:
    """The sizes of heads that attention modules remember: the examples of Torch-Pruning set them."""
    for module in model.modules():
        layer = next((child for child in module.children() if before.get(child)), None)
        if layer is None:
            continue
        for names, parts in ((_OF_A_HEAD, counts[layer]), (_OF_ALL_HEADS, 1)):
            for name in names:
                old = getattr(module, name, None)
                packed = next((n for n in (1, 2, 3) if old == before[layer] // n // parts), None)
                if isinstance(old, int) and packed is not None:
                    setattr(module, name, _width(layer) // packed // parts)


def _width(layer: nn.Module) -> int:
    return int(layer.out_features) if isinstance(layer, nn.Linear) else 0


def _out_axis(model: nn.Module, tensor: str) -> int:
    owner = model.get_submodule(tensor.rpartition(".")[0])
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Embedding)
    return 1 if isinstance(owner, transposed) else 0


if __name__ == "__main__":
    sys.exit(main())
