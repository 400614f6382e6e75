"""PMRF on faces: what it reaches between the posterior mean and posterior samples, and how much of it can go.

    python examples/recipes/pmrf_faces.py --data orl_faces.npz --out runs/faces

G. Ohayon et al., 2025, arXiv 2410.00418, at a size that trains on a CPU: the ORL faces at 32x32 pixels,
other people in training and test, networks of 30 million MACs. First the posterior mean and all flows are
trained (denoising by default) and compared; then both stages of PMRF are pruned, the first one first, as
it is where the flow starts, fine-tuned, and judged after K steps, errors of which add up. Perceptual
distances are between features of a small classifier of the training people. Start the same command again
to go on.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import results
import torch
from faces import Faces, augmented, drawn, enlarged, feature_network, orl
from session import Session, add_arguments, session
from stages import load_weights, named
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import compressor as cp
from compressor.data.images import Degradation, LowResolution, MissingPixels, Noisy, write_image
from compressor.evaluation import features_of, frechet_distance, mse, psnr, ssim
from compressor.models import (
    FromObservation,
    FromPosteriorMean,
    GivenObservation,
    GivenPosteriorMean,
    PosteriorMean,
    Restorer,
    Source,
)
from compressor.training import Mapped, Recipe, fine_tune_

TASKS: dict[str, Degradation] = {
    "denoise": Noisy(0.35),
    "low-resolution": LowResolution(scale=4),
    "missing-pixels": MissingPixels(0.8),
}
EPOCHS = 10
STEPS = (1, 5, 25)  # of the sampler
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Problem:
    """The faces, what is done to them, the test pairs, and the features that judge."""

    run: Session
    options: argparse.Namespace
    faces: Faces
    degradation: Degradation
    features: nn.Module

    def pairs(self, count: int, *, seed: int) -> Mapped:
        """Batches of fresh (y, x)."""
        clean = self.faces.batches(self.run, self.options, count=count, seed=seed)
        return Mapped(Mapped(clean, augmented), lambda x, people: self.degradation(x))

    def tests(self) -> list[tuple[Tensor, Tensor]]:
        """Every test face under several draws of the degradation."""
        drawn = []
        for draw in range(self.options.draws):
            generator = torch.Generator().manual_seed(1000 + draw)
            drawn.append(self.degradation(self.faces.test, generator=generator))
        return drawn

    def train(
        self, name: str, network: nn.Module, function: Callable[..., Any] | None, steps: int, lr: float
    ) -> None:
        """One training in place on pairs, or on what `function` makes of them; its file is `out/name.pt`."""
        batches = self.pairs(max(1, steps // EPOCHS), seed=self.options.seed)
        recipe = Recipe(
            epochs=EPOCHS,
            lr=lr,
            weight_decay=1e-2,
            optimizer=partial(torch.optim.AdamW, betas=(0.9, 0.95)),
            ema=0.99,
            clip_norm=1.0,
            autocast=self.run.autocast,
            seed=self.options.seed,
        )
        mapped = batches if function is None else Mapped(batches, function)
        history = fine_tune_(network, mapped, mse_loss, recipe, checkpoint=self.run.out / f"{name}.pt")
        self.run.say(f"{name}: loss {history.losses[0]:.5f} -> {history.losses[-1]:.5f}")

    def row(self, estimator: str, restored: Callable[[Tensor, int], Tensor], steps: int | None = None) -> Row:
        """Distortion and perceptual distance of what an estimator makes of all test observations."""
        found, clean = [], []
        for number, (y, x) in enumerate(self.tests()):
            found.append(restored(y.to(self.run.device), number).cpu())
            clean.append(x)
        outputs, targets = torch.cat(found), torch.cat(clean)
        seen = partial(features_of, self.features)
        device = self.run.device
        ours, reference = seen(outputs.to(device)), seen(targets.to(device))
        return {
            "estimator": estimator,
            "K": "" if steps is None else steps,
            "MSE": mse(outputs, targets),
            "PSNR, dB": psnr(outputs, targets),
            "SSIM": ssim(outputs, targets),
            "Fréchet": frechet_distance(ours, reference),
        }

    def sampled(self, name: str, flow: Restorer, steps: Sequence[int] = STEPS) -> list[Row]:
        """The rows of a flow at several numbers of steps, with the same noise for every flow."""

        def restored(y: Tensor, number: int) -> Tensor:
            return flow.restore(y, generator=torch.Generator().manual_seed(number))

        rows = []
        flow.eval()
        for flow.steps in steps:
            rows.append(self.row(name, restored, flow.steps))
        return rows

    def figure(self, mean: PosteriorMean, flow: Restorer, other: Restorer | None) -> None:
        """A few faces as `out/faces.png`: observed, posterior mean, sampled, PMRF, clean."""
        some = slice(0, None, max(1, len(self.faces.test) // 8))
        y, x = self.tests()[0]
        seen = y[some].to(self.run.device)
        made = [mean(seen).detach()]
        for one in (other, flow):
            if one is not None:
                made.append(one.restore(seen, generator=torch.Generator().manual_seed(0)))
        rows = [seen, *made, x[some].to(self.run.device)]
        write_image(enlarged(rows), self.run.out / "faces.png")


def velocity(options: argparse.Namespace, source: Source) -> nn.Module:
    """A network for the state, and what the source puts behind it."""
    probe = torch.zeros(1, 1)
    inputs = 1 if source.condition(probe, probe) is None else 2
    torch.manual_seed(options.seed)
    if options.velocity == "hdit":
        return cp.models.create("hdit_small", in_channels=inputs, out_channels=1)
    sizes = {"in_channels": inputs, "out_channels": 1, "width": options.width}
    return cp.models.create("restoration_unet", time_width=4 * options.width, **sizes)


def first_stage(options: argparse.Namespace) -> PosteriorMean:
    """The network of the posterior mean, untrained."""
    torch.manual_seed(options.seed)
    sizes = {"in_channels": 1, "out_channels": 1, "width": options.width}
    return PosteriorMean(cp.models.create("restoration_unet", input_skip=True, **sizes))


def compared(problem: Problem) -> tuple[Restorer, list[Row]]:
    """PMRF, trained, and the rows of all estimators."""
    run, options = problem.run, problem.options
    mean = first_stage(options).to(run.device)
    ours = FromPosteriorMean(noise=options.source_noise)
    flow = Restorer(
        velocity(options, ours).to(run.device), ours, channels=1, posterior_mean=mean, steps=options.k
    )
    if options.checkpoint is None:
        problem.train("posterior-mean", mean, None, options.steps, 1e-3)
        problem.train(f"{options.velocity}-pmrf", flow.velocity, flow.pair, options.steps, 1e-3)  # type: ignore[arg-type]
    else:
        load_weights(flow, options.checkpoint)
    if run.rank == 0:
        torch.save(flow.state_dict(), run.out / f"{options.velocity}-restorer.pt")
    flow.eval()
    with torch.no_grad():
        rows = [
            problem.row("observation", lambda y, number: y),
            problem.row("posterior mean", lambda y, number: mean(y)),
        ]
    rows += problem.sampled(f"PMRF, σ_s = {ours.noise}", flow)
    others: dict[str, Source] = {
        "flow conditioned on Y": GivenObservation(),
        "flow conditioned on X*": GivenPosteriorMean(),
        f"flow from Y, σ_s = {ours.noise}": FromObservation(noise=ours.noise),
    }
    sampler = None
    for name, source in others.items() if options.baselines else ():
        net = velocity(options, source).to(run.device)
        other = Restorer(net, source, channels=1, posterior_mean=mean, steps=options.k)
        problem.train(f"{options.velocity}-{type(source).__name__}", net, other.pair, options.steps, 1e-3)
        rows += problem.sampled(name, other)
        sampler = other if isinstance(source, GivenObservation) else sampler
    flow.steps = options.k
    if run.rank == 0:
        if sampler is not None:
            sampler.steps = options.k
        problem.figure(mean, flow, sampler)
    return flow, rows


def smaller(problem: Problem, network: nn.Module, batches: Mapped, fraction: float, name: str) -> nn.Module:
    """A network cut to a fraction of its MACs by what channels are worth, and proved; at 1 a copy."""
    run = problem.run
    if fraction == 1:
        return copy.deepcopy(network)
    scoring = list(itertools.islice(batches, 8))
    inputs = scoring[0][0]  # type: ignore[index]
    example = tuple(part[:2].to(run.device) for part in (inputs if isinstance(inputs, tuple) else (inputs,)))

    def planned() -> cp.Plan:
        graph = cp.capture(network, *example)
        scores = cp.score(graph, cp.scoring.Taylor(scoring, mse_loss), processes="all")
        return cp.plan(scores, cp.budget.Macs(fraction))

    plan = run.plan(f"{name}.json", planned)
    small = cp.apply(network, plan)
    cp.verify(network, small, plan, *example)
    return small


def pruned(problem: Problem, flow: Restorer, fraction: float) -> Restorer:
    """Both stages at a fraction of their MACs: the first, tuned, and then the flow that starts from it."""
    options, run = problem.options, problem.run
    assert isinstance(flow.posterior_mean, PosteriorMean) and isinstance(flow.velocity, nn.Module)
    torch.manual_seed(options.seed)
    count = max(1, options.tuning_steps // EPOCHS)
    name = f"mean-{fraction:g}"
    network = smaller(problem, flow.posterior_mean.network, problem.pairs(count, seed=7), fraction, name)
    mean = PosteriorMean(network)
    problem.train(name, mean, None, options.tuning_steps, 1e-3)
    small = Restorer(
        copy.deepcopy(flow.velocity), flow.source, channels=1, posterior_mean=mean, steps=options.k
    ).to(run.device)
    name = f"{options.velocity}-flow-{fraction:g}"
    pairs = Mapped(problem.pairs(count, seed=8), small.pair)
    small.velocity = smaller(problem, flow.velocity, pairs, fraction, name)
    problem.train(name, small.velocity, small.pair, options.tuning_steps, 1e-3)
    return small.eval()


def costs(flow: Restorer, y: Tensor) -> tuple[int, int]:
    """The MACs of one image and the parameters, of the first stage and K evaluations of the velocity."""
    assert isinstance(flow.posterior_mean, PosteriorMean) and isinstance(flow.velocity, nn.Module)
    mean = cp.profile(flow.posterior_mean, y[:1])
    once = cp.profile(flow.velocity, y[:1], y.new_zeros(1))
    return mean.macs + flow.steps * once.macs, mean.params + once.params


def cut(problem: Problem, flow: Restorer) -> list[Row]:
    """Rows of the original and of what is left of it at every fraction; each is exported to ONNX."""
    run, options = problem.run, problem.options
    y = problem.tests()[0][0][:1].to(run.device)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(run.device)
    flow.steps = options.k
    models = {"original": flow}
    for fraction in options.macs:
        name = "uncut, trained on" if fraction == 1 else f"{fraction:.0%} of the MACs"
        models[name] = pruned(problem, flow, fraction)
    macs, params = costs(flow, y)
    rows: list[Row] = []
    for name, one in models.items():
        (row,) = problem.sampled(name, one, (options.k,))
        del row["estimator"], row["K"]
        own_macs, own_params = costs(one, y)
        facts: Row = {
            "PMRF": name,
            "MACs removed": f"{1 - own_macs / macs:.1%}",
            "parameters removed": f"{1 - own_params / params:.1%}",
            "MSE, relative": row["MSE"] / (rows[0]["MSE"] if rows else row["MSE"]),
        }
        rows.append(facts | row)
    if run.rank == 0:
        files = []
        for number, one in enumerate(models.values()):
            files.append(str(run.out / f"{options.velocity}-{number}.onnx"))
            run.say(cp.export.onnx(one, y, noise, files[-1], dynamic=()))
        found = cp.profiling.measure_latency(
            files, (y, noise), runtime=cp.runtimes.OnnxRuntime(threads=1), seconds=options.seconds
        )
        for row, timing in zip(rows, found.timings, strict=True):
            row |= {"ms": timing.ms, "faster": f"{timing.speedup:.2f}x"}
    return rows


def arguments() -> argparse.Namespace:
    """What is said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.set_defaults(workers=0)  # the faces lie in memory
    parser.add_argument("--data", type=Path, help="orl_faces.npz")
    parser.add_argument("--task", choices=TASKS, default="denoise")
    parser.add_argument("--velocity", choices=("unet", "hdit"), default="unet", help="network of the flows")
    parser.add_argument("--side", type=int, default=32, help="pixels")
    parser.add_argument("--width", type=int, default=16, help="channels of the U-Nets' first level")
    parser.add_argument("--steps", type=int, default=1200, help="of each training")
    parser.add_argument("--tuning-steps", type=int, default=800, help="of each training of what was cut")
    parser.add_argument("--batch", type=int, default=32, help="over all processes")
    parser.add_argument(
        "--source-noise", type=float, default=0.025, help="σ_s of PMRF and of the flow from Y"
    )
    parser.add_argument(
        "--k", type=int, default=25, help="steps of the sampler of what is cut, and in the figure"
    )
    parser.add_argument("--macs", type=float, nargs="*", default=[1, 0.5, 0.35], help="that stay; 1: uncut")
    parser.add_argument("--no-baselines", dest="baselines", action="store_false", help="PMRF only")
    parser.add_argument("--draws", type=int, default=3, help="degradations of each test face")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement of latency")
    return parser.parse_args()


def main() -> None:
    """Trainings, the comparison, cuts with fine-tuning, exports."""
    options = arguments()
    if options.quick:
        quick = {"side": 16, "width": 4, "steps": EPOCHS, "tuning_steps": EPOCHS, "batch": 8}
        vars(options).update(quick, k=2, macs=[0.5], draws=1, seconds=0.2)
        faces = drawn(side=options.side)
    else:
        faces = orl(named(options.data, "--data"), side=options.side)
    with session(options) as run:
        torch.set_num_threads(1 if run.device.type == "cpu" else torch.get_num_threads())
        judge = feature_network(run, faces, options)
        problem = Problem(run, options, faces, TASKS[options.task], judge)
        flow, rows = compared(problem)
        said = {
            key: value for key, value in vars(options).items() if key not in ("data", "out", "checkpoint")
        }
        notes = [
            f"{len(faces.train)} training faces, {len(faces.test)} test faces of other people, "
            f"{options.draws} draws of noise each; {TASKS[options.task]}.",
            "Fréchet distance of 32 features of a classifier of the training people, to those of the clean "
            "test faces.",
        ]
        prefix = "" if options.velocity == "unet" else f"{options.velocity}-"
        title = f"Restoring faces of {options.side}x{options.side} pixels: {options.task}, {options.velocity}"
        if run.rank == 0:
            run.say(results.write(run.out, title, rows, notes=notes, facts=said, name=f"{prefix}results"))
        if options.macs:
            left = cut(problem, flow)
            notes = [
                f"MACs of the first stage and K = {options.k} evaluations of the velocity; ms for one face "
                f"on one CPU thread by onnxruntime, both stages and all steps in one file, interleaved.",
                f"The original was trained {options.steps} steps, the others {options.tuning_steps} more.",
                *notes,
            ]
            title = f"PMRF on faces, pruned: {options.task}, {options.velocity}"
            if run.rank == 0:
                run.say(results.write(run.out, title, left, notes=notes, facts=said, name=f"{prefix}pruned"))


if __name__ == "__main__":
    main()
