"""ResNet-50 on ImageNet with 51 % fewer MACs by MaskSparsity.

    torchrun --nproc-per-node 8 examples/recipes/resnet50_imagenet.py --data imagenet/ \\
        --checkpoint resnet50.pth --out runs/r50

Published: -51.07 % FLOPs, -0.76 % top-1 (N. Jiang et al., 2022, arXiv 2201.06776, abstract), reached in a
second round on a network that was pruned before; this is one round. Schedules are those of the released code.
`imagenet/` holds train/<class>/* and val/<class>/*; torchvision's weights fit. Start the same command again
to go on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from images import folders, synthetic
from session import add_arguments, session
from stages import Data, MaskSparsityRun, finish, load_weights, named, train
from torch.nn.functional import cross_entropy

import compressor as cp
from compressor.data import IMAGENET_MEAN, IMAGENET_STD
from compressor.training import Validation, mask_sparsity_fine_tuning, mask_sparsity_training


def augmented(transforms: ModuleType) -> Any:
    """A random crop of 224 pixels and flips (the paper's code has PCA jitter as well)."""
    steps = (transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *_normalised(transforms))
    return transforms.Compose(steps)


def plain(transforms: ModuleType) -> Any:
    """The middle 224 pixels of 256."""
    return transforms.Compose((transforms.Resize(256), transforms.CenterCrop(224), *_normalised(transforms)))


def _normalised(transforms: ModuleType) -> tuple[Any, Any]:
    return transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)


def arguments() -> argparse.Namespace:
    """What is said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--data", type=Path, help="folder with train/<class>/* and val/<class>/*")
    parser.add_argument("--macs", type=float, default=0.4893, help="fraction of the MACs that stays")
    parser.add_argument("--batch", type=int, default=256, help="over all processes; the rate follows it")
    parser.add_argument("--epochs", type=int, default=100, help="of the baseline, and of sparse training")
    parser.add_argument("--tuning-epochs", type=int, default=40)
    parser.add_argument("--slimming", type=float, help="find the mask by global sparse training (2e-4)")
    return parser.parse_args()


def main() -> None:
    """Baseline, mask, sparse training, cut, fine-tuning."""
    options = arguments()
    width = 64
    if options.quick:
        images, width = synthetic(n=20, pixels=32, counts=(1,) * 10), 8
        options.batch, options.epochs, options.tuning_epochs, options.workers = 10, 2, 1, 0
    else:
        images = folders(named(options.data, "--data"), augmented=augmented, plain=plain)
    torch.manual_seed(options.seed)
    with session(options) as run:
        reading = {"batch": options.batch, "workers": options.workers}
        data = Data(
            images.training(run, seed=options.seed, **reading),
            images.scoring(run, samples=4096, **reading),
            Validation(batches=images.validating(run, **reading)),
        )
        scale = options.batch / 256
        shared = {"autocast": run.autocast, "seed": options.seed}
        recipe = replace(mask_sparsity_training(epochs=options.epochs, lr=0.1 * scale), **shared)
        tuning = replace(mask_sparsity_fine_tuning(epochs=options.tuning_epochs, lr=5e-4 * scale), **shared)
        model = cp.models.create("resnet50", n_classes=len(images.classes), width=width).to(run.device)
        if options.checkpoint is None:
            train(run, model, data, cross_entropy, recipe, name="baseline", validation=data.validation)
        else:
            load_weights(model, options.checkpoint)
        steps = MaskSparsityRun(run, data, cross_entropy, options.macs, recipe, tuning, options.slimming)
        finish(run, model, steps.small(model), data)


if __name__ == "__main__":
    main()
