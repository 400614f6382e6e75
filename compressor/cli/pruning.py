"""The commands that cut: `prune` from scratch, and `apply` for a plan that exists."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from compressor.cli.budget_options import BudgetOptions
from compressor.cli.command import Result, command
from compressor.cli.deciding import check_choice, decide
from compressor.cli.exporting import report_data, write_onnx
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of, warn_if_random
from compressor.cli.places import check_file, check_folder
from compressor.cli.progress import Progress
from compressor.cli.recovering import RecoverOptions, check_examples, recover_, recovered_data, recovered_text
from compressor.cli.saved import OutOptions, save_folder
from compressor.cli.scorers import ScorerOptions
from compressor.core.capture import capture
from compressor.core.plan import Plan
from compressor.core.surgery import apply as apply_plan
from compressor.core.verify import verify as verify_model
from compressor.profiling import Comparison, compare
from compressor.runtimes.extras import require_onnx

__all__ = ["OnnxOptions", "PlanArgument", "apply", "prune"]


@dataclass(frozen=True)
class PlanArgument:
    """The plan to apply."""

    plan: Annotated[
        Path,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="A plan written by the command plan.",
            rich_help_panel="Model",
            show_default=False,
        ),
    ]


@dataclass(frozen=True)
class OnnxOptions:
    """An ONNX file beside the folder."""

    onnx: Annotated[
        Path | None,
        typer.Option(
            "--onnx",
            metavar="FILE",
            help="Write the smaller model as ONNX, too, checked with onnxruntime. Needs compressor[onnx].",
            rich_help_panel="Output",
        ),
    ] = None


@command(
    example="""
compressor apply my_pkg.net:build -w net.safetensors --plan net.plan.json --out small/
""",
)
def apply(
    model: ModelOptions,
    plan: PlanArgument,
    inputs: InputOptions,
    out: OutOptions,
    progress: Progress,
) -> Result:
    """Cut a model as a plan says and save the result as a folder.

    With --input the result is verified before it is saved. The folder is loaded with
    compressor.load(folder, build), or without this library by the load_model.py in it.
    """
    check_folder(out.out, "--out", overwrite=out.overwrite)
    wanted = bool(inputs.input or inputs.input_file)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model)) if wanted else None
    cuts = Plan.load(plan.plan)
    net = build(model)
    with progress.step(f"applying {plan.plan}"):
        small = apply_plan(net, cuts)
    report = None
    if given is not None:
        with progress.step("verifying"):
            report = verify_model(net, small, cuts, *given.args, **given.kwargs)
    save_folder(small, cuts, given, out)
    data = {
        "model": cuts.signature.model,
        "out": str(out.out),
        "plan": str(plan.plan),
        "cuts": len(cuts.cuts),
        "sizes": len(cuts.sizes),
        "params": {"before": _params(net), "after": _params(small)},
        "verified": None if report is None else asdict(report),
    }
    proof = "not verified: give --input for that" if report is None else str(report)
    lines = [cuts.summary(), "", f"parameters: {_params(net):,} -> {_params(small):,}"]
    return Result("\n".join([*lines, proof, f"wrote {out.out}"]), data)


@command(
    example="""
compressor prune my_pkg.net:build --input 1x3x224x224 --macs 0.5 --scorer norm --out small/

compressor prune resnet56_cifar -w resnet56.th -i 1x3x32x32 --uniform 0.3 --round-to 8 -o small/

compressor prune my_pkg.net:build -i 1x3x224x224 --macs 0.5 --recover my_pkg.data:images -o small/
""",
)
def prune(
    model: ModelOptions,
    inputs: InputOptions,
    budget: BudgetOptions,
    scorer: ScorerOptions,
    recovery: RecoverOptions,
    out: OutOptions,
    onnx: OnnxOptions,
    progress: Progress,
) -> Result:
    """Make a model smaller: plan, cut, verify, save, and show what it saves.

    Nothing is trained: fine-tune the result afterwards, it is an ordinary model. It is proved to
    compute what the plan says before anything is written. With --recover its layers are then fitted to
    what the original computes.
    """
    check_choice(scorer, budget)
    check_examples(recovery)
    check_folder(out.out, "--out", overwrite=out.overwrite)
    if onnx.onnx is not None:
        require_onnx()
        check_file(onnx.onnx, "--onnx", makes_folder=True)
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    warn_if_random(model)
    with progress.step(f"capturing {type(net).__name__}"):
        graph = capture(net, *given.args, **given.kwargs)
    plan, chosen = decide(graph, scorer, budget, seed=model.seed, progress=progress)
    with progress.step("cutting and verifying"):
        small = apply_plan(net, plan)
        report = verify_model(net, small, plan, *given.args, graph=graph, **given.kwargs)
    done = recover_(small, net, plan, recovery, progress)
    save_folder(small, plan, given, out)
    exported = None if onnx.onnx is None else write_onnx(small, given, onnx.onnx, progress)
    with progress.step("measuring both models"):
        comparison = compare(net, small, *given.args, **given.kwargs)
        held = chosen.check(net, small, given.args, given.kwargs)
    data = {
        "model": graph.signature.model,
        "out": str(out.out),
        "note": plan.note,
        "cuts": len(plan.cuts),
        "sizes": len(plan.sizes),
        "verified": asdict(report),
        "recovered": recovered_data(done),
        **_comparison_data(comparison),
        "promise": None if held is None else str(held),
        "onnx": None if exported is None else report_data(exported),
    }
    lines = [str(comparison), *([] if held is None else [str(held)]), "", str(report)]
    lines += [*recovered_text(done), f"wrote {out.out}"]
    return Result("\n".join([*lines, *([] if exported is None else [str(exported)])]), data)


def _params(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def _comparison_data(comparison: Comparison) -> dict[str, object]:
    return {
        "before": comparison.before.to_dict()["totals"],
        "after": comparison.after.to_dict()["totals"],
        "latency": asdict(comparison.latency),
    }
