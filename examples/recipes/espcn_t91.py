"""ESPCN on 91 images, and what is left of its quality with half of the MACs and less.

    python examples/recipes/espcn_t91.py --data t91/ --test Set5/ Set14/ --out runs/espcn

W. Shi et al. 2016, arXiv 1609.05158. Published for x3 and these images: 32.55 dB on Set5, 29.08 on Set14,
after a training of hours; here a minute or two of one CPU thread, or longer with --epochs. Departures, as
it is faster so: Adam with a cosine instead of SGD whose rate is lowered on plateaus (--paper takes SGD), and
small images by bicubic interpolation, on which papers are compared, instead of a blur (--blur). The last
epoch is taken: nothing is chosen on the test sets. Start the same command again to go on where it was.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import results
import torch
from session import Session, add_arguments, session
from stages import load_weights, named
from super_resolution_data import Material, generated, of_folders
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from upscale_video import onnx_upscaler

import compressor as cp
from compressor.data.images import Bicubic, GaussianSubsampling, rescale
from compressor.evaluation import super_resolution
from compressor.recovery import reconstruct_
from compressor.training import Recipe, fine_tune_

SCORERS: dict[str, Callable[[list[Any]], Any]] = {
    "reconstruction": cp.scoring.ReconstructionError,
    "beta-rank": cp.scoring.BetaRank,
    "taylor": lambda batches: cp.scoring.Taylor(batches, mse_loss),
    "norm": lambda _: cp.scoring.Norm(),
}


def arguments() -> argparse.Namespace:
    """What is said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--data", type=Path, help="folder of training images")
    parser.add_argument("--test", type=Path, nargs="+", default=[], help="folders of test images")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave damaged image files out")
    parser.add_argument("--scale", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=53, help="of the original (8,000 steps on T91)")
    parser.add_argument("--cycles", type=int, default=1, help="trainings of the original, one after another")
    parser.add_argument("--tuning-epochs", type=int, default=53, help="of each pruned network")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--relu", action="store_true", help="ReLU instead of tanh")
    parser.add_argument("--paper", action="store_true", help="SGD from 0.01 to 0.0001, last layer 10x slower")
    parser.add_argument("--blur", type=float, help="train on a Gaussian blur of this sigma, subsampled")
    parser.add_argument("--macs", type=float, nargs="*", default=[0.7, 0.5, 0.3], help="fractions that stay")
    parser.add_argument("--round-to", type=int, default=8, help="widths in multiples; odd ones are slower")
    parser.add_argument("--control", action="store_true", help="train the original as much longer, too")
    parser.add_argument("--scorer", choices=SCORERS, default="reconstruction")
    parser.add_argument("--height", type=int, default=170, help="of the image that is timed; 512 / 3")
    return parser.parse_args()


def sgd(model: nn.Module, groups: list[dict[str, Any]], *, lr: float, weight_decay: float) -> Any:
    """The paper's: plain SGD whose last layer learns ten times more slowly."""
    last = {id(p) for name, p in model.named_parameters() if name.startswith("sub_pixel")}
    parts = [
        {**group, "params": [p for p in group["params"] if (id(p) in last) == slow], "lr": lr * factor}
        for group in groups
        for slow, factor in ((False, 1.0), (True, 0.1))
    ]
    return torch.optim.SGD(parts, lr=lr, weight_decay=weight_decay)


def to_a_hundredth(done: float) -> float:
    """From 0.01 to 0.0001; on plateaus in the paper, evenly here."""
    return 0.01**done


def recipe(options: argparse.Namespace, model: nn.Module, epochs: int, run: Session) -> Recipe:
    """How a network is trained, pruned or not."""
    common = {"epochs": epochs, "weight_decay": 0.0, "autocast": run.autocast, "seed": options.seed}
    if options.paper:
        return Recipe(lr=0.01, optimizer=partial(sgd, model), schedule=to_a_hundredth, **common)
    # At this rate a spike of the gradient would saturate tanh for good: it is clipped, and soon forgotten.
    adam = partial(torch.optim.Adam, betas=(0.9, 0.99))
    warm_up = min(1.0, epochs / 2)
    return Recipe(lr=options.lr, optimizer=adam, clip_norm=0.1, warmup_epochs=warm_up, **common)


def trained_(
    run: Session, model: nn.Module, data: Material, options: argparse.Namespace, epochs: int, name: str
) -> None:
    """One training in place; the same command again goes on with it."""
    batches = data.loader(options.batch, seed=options.seed, workers=options.workers)
    made = recipe(options, model, epochs, run)
    history = fine_tune_(model, batches, mse_loss, made, checkpoint=run.out / f"{name}.pt")
    run.say(f"{name}: loss {history.losses[0]:.3g} -> {history.losses[-1]:.3g} in {epochs} epochs")


def quality(data: Material, upscale: nn.Module | Callable[[Tensor], Tensor]) -> dict[str, float]:
    """The mean PSNR on every test set."""
    return {f"{name}, dB": super_resolution(upscale, pairs).psnr for name, pairs in data.tests.items()}


def row(name: str, model: nn.Module, x: Tensor, found: dict[str, float], **more: object) -> dict[str, object]:
    """One line of the table."""
    counted = cp.profile(model, x)
    shown = {key: f"{value:.2f}" for key, value in found.items()}
    return {"network": name, "parameters": counted.params, "MACs": counted.macs, **shown, **more}


def measured(
    run: Session, model: nn.Module, data: Material, x: Tensor, name: str, seconds: float
) -> dict[str, object]:
    """The ONNX file, checked, and its int8 version: its quality as it runs, and the times of both.

    Times are interleaved with those of the original's file.
    """
    report = cp.export.onnx(model, x.cpu(), run.out / f"{name}.onnx", dynamic=(0, 2, 3))
    small = run.out / f"{name}.int8.onnx"
    batches = [low for low, _ in data.plain(256)]
    checks = cp.export.Acceptance(seconds=seconds)
    cp.export.int8(report.path, batches, small, checks=checks, even_if_slower=True)
    found = {f"int8 {key}": f"{value:.2f}" for key, value in quality(data, onnx_upscaler(small)).items()}
    files = [run.out / "original.onnx", report.path, small]
    runtime = cp.runtimes.OnnxRuntime(threads=1)
    _, own, int8 = cp.profiling.measure_latency(files, [x.cpu()], runtime=runtime, seconds=seconds).timings
    times = {"ms": own, "int8 ms": int8}
    return found | {
        key: f"{t.ms:.2f}, {t.speedup:.2f}x ({t.speedup_p10:.2f}-{t.speedup_p90:.2f})"
        for key, t in times.items()
    }


def pruned(
    run: Session,
    original: nn.Module,
    data: Material,
    options: argparse.Namespace,
    x: Tensor,
    fraction: float,
) -> dict[str, object]:
    """The row of the network with that fraction of the MACs: cut, proved, fitted anew, trained further."""
    batches = [(low.to(run.device), high.to(run.device)) for low, high in data.plain(512)]

    def planned() -> cp.Plan:
        scores = cp.score(cp.capture(original, x), SCORERS[options.scorer](batches))
        return cp.plan(scores, cp.budget.Macs(fraction, round_to=options.round_to))

    plan = run.plan(f"plan-{fraction:g}.json", planned)
    small = cp.apply(original, plan)
    cp.verify(original, small, plan, x)
    cut = quality(data, small)
    # The constants that removed filters emit, tanh(bias), go into the biases behind them here.
    reconstruct_(small, original, batches)
    fitted = quality(data, small)
    trained_(run, small, data, options, options.tuning_epochs, f"pruned-{fraction:g}")
    found = quality(data, small)
    first = next(iter(found))
    steps = f"{cut[first]:.2f}, {fitted[first]:.2f}"
    widths = ", ".join(str(layer.out_channels) for layer in small.modules() if isinstance(layer, nn.Conv2d))
    more = {f"{first} as cut, fitted": steps}
    more |= measured(run, small, data, x, f"pruned-{fraction:g}", options.seconds)
    cp.save(small, run.out / f"small-{fraction:g}", overwrite=True)
    return row(f"{fraction:.0%} of the MACs ({widths})", small, x, found, **more)


def main() -> None:
    """Training, then pruning to several fractions, and a table of all."""
    options = arguments()
    options.seconds = 0.1 if options.quick else 4.0
    scale = options.scale
    downscaling = Bicubic(scale) if options.blur is None else GaussianSubsampling(scale, options.blur)
    if options.quick:
        data = generated(downscaling, seed=options.seed)
        options.epochs, options.tuning_epochs, options.macs, options.workers = 8, 2, [0.5], 0
        options.height = 24
    else:
        data = of_folders(
            named(options.data, "--data"),
            options.test or [named(None, "--test")],
            downscaling,
            skip_unreadable=options.skip_unreadable,
        )
        options.workers = 0 if options.device in (None, "cpu") else options.workers
    torch.manual_seed(options.seed)
    with session(options) as run:
        if run.world > 1:
            sys.exit(
                f"so small a network is trained in one process, got {run.world}: start it without torchrun"
            )
        activation = nn.ReLU if options.relu else nn.Tanh
        model = cp.models.create("espcn", scale=scale, activation=activation).to(run.device)
        x = torch.rand(1, 1, options.height, options.height, device=run.device)
        bicubic = quality(data, lambda y: rescale(y, float(scale)))
        rows: list[dict[str, object]] = [
            {"network": "bicubic", "parameters": 0, "MACs": 0, **{k: f"{v:.2f}" for k, v in bicubic.items()}}
        ]
        if options.checkpoint is None:
            for cycle in range(1, options.cycles + 1):
                name = "original" if cycle == 1 else f"original-{cycle}"
                trained_(run, model, data, options, options.epochs, name)
        else:
            load_weights(model, options.checkpoint)
        found = quality(data, model)
        run.say(" ".join(f"{name} {value:.3f}" for name, value in found.items()))
        torch.save(model.state_dict(), run.out / "espcn.pth")
        more = measured(run, model, data, x, "original", options.seconds)
        rows.append(row("ESPCN", model, x, found, **more))
        if options.control:
            longer = copy.deepcopy(model)
            trained_(run, longer, data, options, options.tuning_epochs, "control")
            rows.append(row("ESPCN, trained on as long", longer, x, quality(data, longer)))
        for fraction in options.macs:
            rows.append(pruned(run, model, data, options, x, fraction))
            run.say(rows[-1])
        run.say(_written(run, options, rows, len(data.patches)))


def _written(run: Session, options: argparse.Namespace, rows: list[dict[str, object]], n_patches: int) -> str:
    steps = math.floor(n_patches / options.batch)
    original, more = (count * steps for count in (options.cycles * options.epochs, options.tuning_epochs))
    notes = [
        f"x{options.scale}, luminance, {options.scale} pixels shaved, peak 255; "
        f"{n_patches:,} patches, batches of {options.batch}, {original:,} steps for the original, {more:,} "
        f"more for each pruned network.",
        f"MACs and ms of one image of {options.height}x{options.height} pixels in onnxruntime, one thread, "
        f"and how many times faster than the original in float32, interleaved, median (10-90 %).",
        f"Channels by {options.scorer}. As cut: before any recovery; fitted: by least squares.",
    ]
    facts = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    facts = {key: value for key, value in facts.items() if key not in ("out", "data", "test", "checkpoint")}
    return results.write(run.out, f"ESPCN x{options.scale}", rows, notes=notes, facts=facts)


if __name__ == "__main__":
    main()
