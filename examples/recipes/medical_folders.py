"""A classifier of medical images (IDRiD, ISIC, ...) pruned by Beta-Rank with class-balanced moments.

    torchrun --nproc-per-node 1 examples/recipes/medical_folders.py --data isic/ --out runs/isic

The paper's networks are ResNet-56 and -110 at 256x256 pixels (M. Homayounfar et al., 2023, arXiv 2304.07461,
table 3: ISIC with ResNet-110 -45 % FLOPs, accuracy 72.66 -> 73.33). Here classes weigh alike in the scores,
the loss and the metric, which is the balanced accuracy. `isic/` holds train/<class>/* and val/<class>/*.
Start again to go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from images import folders, synthetic
from session import add_arguments, session
from stages import Data, finish, load_weights, named, train

import compressor as cp
from compressor.evaluation import balanced_accuracy
from compressor.training import Distillation, LogitAdjusted, Recipe, Stepped, Validation, class_counts


def augmented(transforms: ModuleType) -> Any:
    """Flips and rotations: skin and retina have no upright."""
    turned = transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(), transforms.RandomRotation(45)
    return transforms.Compose((*_resized(transforms), *turned, transforms.ToTensor()))


def plain(transforms: ModuleType) -> Any:
    """256x256 pixels, not normalised, as in the paper's code."""
    return transforms.Compose((*_resized(transforms), transforms.ToTensor()))


def _resized(transforms: ModuleType) -> tuple[Any, Any]:
    return transforms.Resize(256), transforms.CenterCrop(256)


def arguments() -> argparse.Namespace:
    """What is said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/* and val/<class>/*")
    parser.add_argument("--model", default="resnet110_cifar", choices=cp.models.names())
    parser.add_argument("--macs", type=float, default=0.55, help="fraction of the MACs that stays")
    parser.add_argument("--batch", type=int, default=16, help="over all processes")
    parser.add_argument("--epochs", type=int, default=150, help="of the baseline and of the fine-tuning")
    parser.add_argument("--balanced-sampler", action="store_true", help="draw classes equally often instead")
    return parser.parse_args()


def main() -> None:
    """Baseline, scores, cut, fine-tuning with distillation."""
    options = arguments()
    if options.quick:
        images = synthetic(n=80, pixels=8, counts=(6, 3, 1))
        options.batch, options.epochs, options.workers, options.model = 10, 1, 0, "resnet20_cifar"
    else:
        images = folders(named(options.data, "--data"), augmented=augmented, plain=plain)
    torch.manual_seed(options.seed)
    with session(options) as run:
        reading = {"batch": options.batch, "workers": options.workers}
        data = Data(
            images.training(run, seed=options.seed, balanced=options.balanced_sampler, **reading),
            images.scoring(run, samples=len(images.labels), **reading),
            Validation(batches=images.validating(run, **reading), metric=balanced_accuracy),
        )
        counts = class_counts(images.labels, classes=len(images.classes))
        # Where the sampler makes up for rare classes already, the loss must not do so again.
        loss = (
            torch.nn.functional.cross_entropy if options.balanced_sampler else LogitAdjusted(counts.tolist())
        )
        recipe = Recipe(
            epochs=options.epochs,
            lr=0.01,
            weight_decay=5e-4,
            schedule=Stepped((1 / 3, 2 / 3)),
            autocast=run.autocast,
            seed=options.seed,
        )
        model = cp.models.create(options.model, n_classes=len(images.classes)).to(run.device)
        if options.checkpoint is None:
            train(run, model, data, loss, recipe, name="baseline", validation=data.validation)
        else:
            load_weights(model, options.checkpoint)
        run.say(f"original: balanced accuracy {data.validation.measure(model):.4f}")

        def planned() -> cp.Plan:
            scorer = cp.scoring.BetaRank(data.scoring, balanced=True, n_classes=len(images.classes))
            graph = cp.capture(model, data.example(run))
            return cp.plan(cp.score(graph, scorer, processes="all"), cp.budget.Macs(options.macs))

        plan = run.plan("plan.json", planned)
        small = cp.apply(model, plan)
        cp.verify(model, small, plan, data.example(run))
        run.say(f"after the cut: {data.validation.measure(small):.4f}")
        taught = Distillation(model, loss)
        train(run, small, data, taught, recipe, name="fine-tuned", validation=data.validation)
        finish(run, model, small, data)
        if run.rank == 0:  # every class, on all of the validation images
            whole = torch.utils.data.DataLoader(images.validation, options.batch)
            found = cp.evaluation.classify(small, whole, classes=images.classes)
            run.say(cp.evaluation.classification(found))


if __name__ == "__main__":
    main()
