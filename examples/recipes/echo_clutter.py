"""The clutter filter for echocardiograms: learnt from simulated clutter, tested on an unseen vendor, pruned.

    python examples/recipes/echo_clutter.py --data echo_clutter.npz --held-out Toshiba --out runs/echo

Source: M. Tabassian et al., 2024, arXiv 2401.13147. Their data and simulator are not released; the clean
panels of their six result videos are. So a filter learns from five vendors, with clutter from a simulator
that was fitted to the videos, and is tested on what the authors' own filters were shown: the cluttered panel
of the sixth. Their outputs stand beside ours; they split by motion, with all vendors in the training.

Departures, for minutes instead of days: the small net at half the size, windows of 8 frames, left-right
flips, grey levels to random powers, ReLU (the released configuration has no activations: `--linear`), the
last batch norm from 0.1, Adam from 3e-3 to 1e-4, an average of the weights; sequences are continued by
mirrored frames when they are filtered (the rows say what that does). Start again to go on.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from echo_task import FrameByFrame, Task, cpu_seconds, filtered, from_file, from_phantoms
from results import write
from session import Session, add_arguments, session
from stages import load_weights, named
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.evaluation import SequenceQuality, sequence_quality
from compressor.reporting import difference, save_gif, save_sequence_figure
from compressor.training import Adversarial, ChangedPixels, Recipe, fine_tune_

SMALL = {"width": 4, "levels": 3}
MODELS: dict[str, dict[str, Any]] = {
    "small": SMALL,
    "full": {},
    "small-2d": SMALL | {"dims": 2},
    "2d": {"dims": 2},
}

NOTE = (
    "MAE in grey levels of 255; coherence after the paper, lower is better. MACs and ms of one window, ms in "
    "onnxruntime with one thread; how many times faster than the unpruned net in interleaved rounds. CPU s: "
    "of the training alone, all threads."
)


def arguments() -> argparse.Namespace:
    """What is said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--data", type=Path, help=".npz file of the panels of the authors' videos")
    parser.add_argument(
        "--held-out", default="Toshiba", help="vendor to test on, or all: one after the other"
    )
    parser.add_argument("--model", default="small", choices=MODELS)
    parser.add_argument(
        "--linear", action="store_true", help="no activations, as in the released configuration"
    )
    parser.add_argument("--loss", default="reconstruction", choices=("reconstruction", "adversarial"))
    parser.add_argument("--pixels", type=int, default=64, choices=(64, 128), help="height and width")
    parser.add_argument("--frames", type=int, default=8, help="of a training window")
    parser.add_argument("--batch", type=int, default=2, help="windows, in each process")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument(
        "--macs", type=float, nargs="*", default=[0.7, 0.5, 0.3], help="fractions that stay; none: no pruning"
    )
    parser.add_argument("--tuning-steps", type=int, default=300, help="after each cut")
    return parser.parse_args()


def main() -> None:
    """Every held-out vendor in turn; one table."""
    options = arguments()
    if options.quick:
        options.steps, options.tuning_steps, options.macs, options.frames = 60, 20, [0.5], 4
    else:
        named(options.data, "--data")
    rows: list[dict[str, Any]] = []
    with session(options) as run:
        tasks = _tasks(run, options)
        for task in tasks:
            rows += held_out(replace(run, out=run.out / task.name), task, options)
        if run.rank == 0:
            height, width = tasks[0].cluttered.shape[2:4]
            notes = [f"{height}x{width} pixels, all of them counted. {NOTE}"]
            facts = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
            run.say(write(options.out, "Clutter filter, vendor held out", rows, notes=notes, facts=facts))


def held_out(run: Session, task: Task, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one held-out vendor: what was there, the trained net, and its pruned ones."""
    run.out.mkdir(parents=True, exist_ok=True)
    start = sequence_quality(task.cluttered, task.clean)
    rows = [
        _row(task, name, sequence_quality(panel, task.clean), start) for name, panel in task.panels.items()
    ]
    torch.manual_seed(options.seed)
    net = _net(options).to(run.device)
    if options.checkpoint is None:
        seconds = _train(run, net, task, options, "filter", options.steps, options.lr)
    else:
        load_weights(net, options.checkpoint)
        seconds = None
    example = task.example.to(run.device)
    outputs = {"filtered": filtered(net, task.cluttered)}
    macs = cp.profile(net, example).macs
    quality = sequence_quality(outputs["filtered"], task.clean)
    ours = _row(task, "ours", quality, start) | {"MACs": macs, "CPU s": seconds}
    rows.append(ours)
    plain = sequence_quality(filtered(net, task.cluttered, mirrored=0), task.clean)
    rows.append(_row(task, "ours, ends not mirrored", plain, start) | {"MACs": macs})
    run.say(f"{task.name}: {start} -> {quality}")
    if options.macs:  # what the further training does by itself
        more = copy.deepcopy(net)
        _train(run, more, task, options, "not-cut", options.tuning_steps, options.lr / 3)
        longer = sequence_quality(filtered(more, task.cluttered), task.clean)
        row = _row(task, "ours, not cut, trained on alike", longer, start) | {"MACs": macs}
        rows.append(row | {"MAE to unpruned": longer.mae / quality.mae})
    for fraction in options.macs:
        small = _pruned(run, net, task, options, fraction)
        name = f"ours, {fraction:.0%} of the MACs"
        outputs[name] = filtered(small, task.cluttered)
        row = _row(task, name, sequence_quality(outputs[name], task.clean), start)
        nets = (copy.deepcopy(one).cpu() for one in (net, small))
        timing = cp.profiling.latency(*nets, task.example, runtime=cp.runtimes.OnnxRuntime(threads=1))
        ours.setdefault("ms", timing.timings[0].ms)
        kept = cp.profile(small, example).macs
        row |= {"MACs": kept, "ms": timing.timings[1].ms, "faster": timing.speedup}
        rows.append(row | {"MAE to unpruned": row["MAE"] / quality.mae})
        run.say(f"{name}: MACs {kept / macs - 1:+.2%}, {_gates(net, small)}; {timing}")
    if run.rank == 0:
        _show(run, task, net, outputs)
    return rows


def _tasks(run: Session, options: argparse.Namespace) -> list[Task]:
    """What is held out, one task for each vendor."""
    if options.quick:
        return [from_phantoms(run, options.frames, options.batch, seed=options.seed)]
    return from_file(
        run,
        options.data,
        options.held_out,
        pixels=options.pixels,
        frames=options.frames,
        batch=options.batch,
    )


def _net(options: argparse.Namespace) -> nn.Module:
    activation = nn.Identity if options.linear else nn.ReLU
    sizes = MODELS[options.model]
    net = cp.models.create("clutter_filter", activation=activation, final_gamma=0.1, momentum=0.05, **sizes)
    return FrameByFrame(net) if "dims" in sizes else net


def _train(
    run: Session, net: nn.Module, task: Task, options: argparse.Namespace, name: str, steps: int, lr: float
) -> float:
    """The CPU seconds of a training in place, over all sittings; its file is `out/name.pt`."""
    loss: Any = F.mse_loss
    if options.loss == "adversarial":
        judge = _discriminator(task.example, options)
        loss = Adversarial(judge.to(run.device), mask=ChangedPixels())
    recipe = Recipe(
        epochs=-(-steps // len(task.batches)),
        lr=lr,
        weight_decay=0.0,
        optimizer=torch.optim.Adam,
        schedule=partial(_down_to, 1 / 30),
        ema=0.98,
        autocast=run.autocast,
        seed=options.seed,
    )
    with cpu_seconds(run.out / f"{name}.cpu_s{run.rank or ''}") as spent:
        history = fine_tune_(net, task.batches, loss, recipe, checkpoint=run.out / f"{name}.pt")
    run.say(f"{name}: {history.losses[0]:.5f} -> {history.losses[-1]:.5f} in {spent():.0f} CPU s")
    return spent()


def _discriminator(example: Tensor, options: argparse.Namespace) -> nn.Module:
    """The published one, or a small one whose stages halve the window until one frame is left."""
    size = tuple(example.shape[2:])
    stages = min(3, size[2].bit_length() - 1)
    small = {"width": 4, "depths": (1,) * stages} if options.model.startswith("small") else {}
    return cp.models.create("clutter_discriminator", size=size, **small)


def _down_to(last: float, done: float) -> float:
    return last + (1 - last) * cp.training.cosine(done)


def _pruned(
    run: Session, net: nn.Module, task: Task, options: argparse.Namespace, fraction: float
) -> nn.Module:
    """The net with this fraction of its MACs, checked, trained on and exported."""
    example, name = task.example.to(run.device), f"{fraction:g}"

    def planned() -> cp.Plan:
        graph = cp.capture(net, example)
        scorer = cp.scoring.Taylor(task.scoring, loss=F.mse_loss)
        return cp.plan(cp.score(graph, scorer, processes="all"), cp.budget.Macs(fraction))

    plan = run.plan(f"plan-{name}.json", planned)
    small = cp.apply(net, plan)
    cp.verify(net, small, plan, example)
    before = sequence_quality(filtered(small, task.cluttered), task.clean)
    _train(run, small, task, options, f"pruned-{name}", options.tuning_steps, options.lr / 3)
    after = sequence_quality(filtered(small, task.cluttered), task.clean)
    run.say(f"{name} of the MACs: after the cut {before}, after training {after}")
    if run.rank == 0:
        cp.save(small, run.out / f"small-{name}", overwrite=True)
        exported = copy.deepcopy(small).cpu()
        run.say(cp.export.onnx(exported, task.example, run.out / f"small-{name}.onnx"))
    return small


def _gates(net: nn.Module, small: nn.Module) -> str:
    """How wide the attention gates are, before and after."""
    widths = [
        [module.out_channels for name, module in one.named_modules() if name.endswith("gate.theta")]
        for one in (net, small)
    ]
    return "gates " + ", ".join(f"{old} -> {new}" for old, new in zip(*widths, strict=True))


def _row(task: Task, name: str, quality: SequenceQuality, start: SequenceQuality) -> dict[str, Any]:
    return {
        "sequence": f"{task.name}: {name}",
        "MAE": round(quality.mae, 3),
        "MAE to cluttered": round(quality.mae / start.mae, 3),
        "PSNR dB": round(quality.psnr_db, 2),
        "coherence": round(quality.coherence),
    }


def _show(run: Session, task: Task, net: nn.Module, outputs: dict[str, Tensor]) -> None:
    """An animation and a figure of the held-out sequence, and of those of patients."""
    ours = outputs["filtered"][0]
    panels = {"cluttered": task.cluttered[0], "filtered": ours}
    panels |= {name.removeprefix("ours, "): one[0] for name, one in outputs.items() if name != "filtered"}
    panels |= {"clean": task.clean[0], "filtered - clean": difference(ours, task.clean[0])}
    total = ours.shape[-1]
    save_sequence_figure(run.out / "sequence.png", panels, frames=(0, total // 2))
    save_gif(run.out / "sequence.gif", panels)
    if task.in_vivo is None:
        return
    for name, one, theirs in zip(
        task.in_vivo.names, task.in_vivo.unit(), task.in_vivo_theirs.unit(), strict=True
    ):
        mine = filtered(net, one[None])[0]
        panels = {"in vivo": one, "filtered": mine, "authors' 3-D": theirs, "removed": difference(one, mine)}
        save_gif(run.out / f"in-vivo-{name}.gif", panels)
        save_sequence_figure(run.out / f"in-vivo-{name}.png", panels, frames=(0, one.shape[-1] // 2))


if __name__ == "__main__":
    main()
