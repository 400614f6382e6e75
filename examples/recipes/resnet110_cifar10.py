"""ResNet-110 on CIFAR-10 with 63 % fewer MACs by MaskSparsity.

    torchrun --nproc-per-node 2 examples/recipes/resnet110_cifar10.py --data cifar10/ --out runs/r110

Published: -63.03 % FLOPs, -60.34 % parameters, no loss of accuracy (N. Jiang et al., 2022, arXiv
2201.06776, abstract). Its settings for CIFAR were not released; those here are the usual ones. Start the same
command again to go on where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from images import cifar10, synthetic
from session import add_arguments, session
from stages import Data, MaskSparsityRun, finish, load_weights, named, train
from torch.nn.functional import cross_entropy

import compressor as cp
from compressor.training import Recipe, Stepped, Validation


def arguments() -> argparse.Namespace:
    """What is said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--data", type=Path, help=".npz file, or the folder that holds cifar-10-batches-py")
    parser.add_argument("--macs", type=float, default=0.3697, help="fraction of the MACs that stays")
    parser.add_argument("--batch", type=int, default=128, help="over all processes")
    parser.add_argument("--epochs", type=int, default=160, help="of the baseline, and of sparse training")
    parser.add_argument("--tuning-epochs", type=int, default=60)
    parser.add_argument("--slimming", type=float, help="find the mask by global sparse training (2e-4)")
    return parser.parse_args()


def main() -> None:
    """Baseline, mask, sparse training, cut, fine-tuning."""
    options = arguments()
    name = "resnet110_cifar"
    if options.quick:
        images, name = synthetic(n=40, pixels=8, counts=(1,) * 10), "resnet20_cifar"
        options.batch, options.epochs, options.tuning_epochs, options.workers = 20, 2, 1, 0
    else:
        images = cifar10(named(options.data, "--data"))
    torch.manual_seed(options.seed)
    with session(options) as run:
        reading = {"batch": options.batch, "workers": options.workers}
        data = Data(
            images.training(run, seed=options.seed, **reading),
            images.scoring(run, samples=2048, **reading),
            Validation(batches=images.validating(run, **reading)),
        )
        # K. He et al., 2015, arXiv 1512.03385, section 4.2: a tenth after 1/2 and 3/4, with a warm-up.
        recipe = Recipe(
            epochs=options.epochs,
            lr=0.1,
            schedule=Stepped((0.5, 0.75)),
            warmup_epochs=1.0,
            autocast=run.autocast,
            seed=options.seed,
        )
        tuning = Recipe(epochs=options.tuning_epochs, lr=0.01, autocast=run.autocast, seed=options.seed)
        model = cp.models.create(name).to(run.device)
        if options.checkpoint is None:
            train(run, model, data, cross_entropy, recipe, name="baseline", validation=data.validation)
        else:
            load_weights(model, options.checkpoint)
        steps = MaskSparsityRun(run, data, cross_entropy, options.macs, recipe, tuning, options.slimming)
        finish(run, model, steps.small(model), data)


if __name__ == "__main__":
    main()
