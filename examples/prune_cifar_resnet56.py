"""Prune a trained ResNet-56 for CIFAR-10, reconstruct and fine-tune it, from published weights.

Needs the shared data folder (checkpoint and lossless CIFAR-10 images); see --shared. With the
defaults it takes about ten minutes on two cores. `--quick` goes the same way with a small network that nobody
trained and a few images of noise, and needs no data.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from training import Data, accuracy, draw, train

import compressor as cp
from compressor.data import IMAGENET_MEAN, IMAGENET_STD, load_cifar10_npz, normalize
from compressor.models import load_akamaster_checkpoint


def cifar10(path: Path) -> Data:
    """4,000 training and 1,000 test images, normalised as the checkpoint was trained."""
    split = load_cifar10_npz(path)
    x_train, x_test = (
        normalize(part.images, mean=IMAGENET_MEAN, std=IMAGENET_STD) for part in (split.train, split.test)
    )
    return Data(x_train, split.train.labels, x_test, split.test.labels)


def noise() -> Data:
    """A stand-in: 64 images to train on and 32 to test on, with labels drawn by lot."""
    x, y = torch.randn(96, 3, 16, 16), torch.randint(10, (96,))
    return Data(x[:64], y[:64], x[64:], y[64:])


def trained(shared: Path) -> tuple[torch.nn.Module, Data]:
    """The published network, and images."""
    checkpoint = shared / "data/ckpt_cifar10_resnet/resnet56-4bfd9763.th"
    images = shared / "data/cifar10/cifar10_lossless_4k1k.npz"
    for path in (checkpoint, images):
        if not path.exists():
            sys.exit(f"{path} is missing; name the shared data folder with --shared, or try --quick")
    model = cp.models.create("resnet56_cifar")
    model.load_state_dict(load_akamaster_checkpoint(checkpoint))
    return model, cifar10(images)


def main() -> None:
    """Load, prune in steps with a reconstruction after each, fine-tune, compare, save and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("COMPRESSOR_SHARED", "../shared")
    parser.add_argument("--shared", type=Path, default=Path(default), help="folder with data/")
    parser.add_argument("--macs", type=float, default=0.5, help="fraction of the MACs that stays")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--images", type=int, default=1500, help="for the reconstruction")
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning; 0 for none")
    parser.add_argument("--out", type=Path, default=Path("out/resnet56"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="noise and random weights, without any data")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    if options.quick:
        model, data = cp.models.create("resnet20_cifar", width=8), noise()
    else:
        model, data = trained(options.shared)
    options.out.mkdir(parents=True, exist_ok=True)
    example = data.x_test[:4]
    before = accuracy(model, data.x_test, data.y_test)
    print(f"original: accuracy {before:.1%} on {len(data.x_test)} test images")

    images_only = data.unlabelled(options.images)
    small = cp.prune(
        model,
        example,
        scorer=cp.scoring.ReconstructionError(images_only),
        budget=cp.budget.Macs(options.macs, order=cp.budget.by_score_per_mac),
        steps=options.steps,
        recover=cp.recovery.Reconstruction(images_only, hold=True),
    )
    print(f"pruned and reconstructed: accuracy {accuracy(small, data.x_test, data.y_test):.1%}")
    if options.epochs:
        by_original = {"batch": 128, "shift": 4, "teacher": model}
        train(small, data, epochs=options.epochs, lr=0.001, seed=options.seed, **by_original)
    after = accuracy(small, data.x_test, data.y_test)
    print(f"fine-tuned: accuracy {after:.1%}")
    comparison = cp.compare(model, small, example[:1])
    print(comparison)
    cp.save(small, options.out / "small", overwrite=True)
    print(cp.export.onnx(small, example, options.out / "small.onnx"))
    draw(options.out / "before_after.png", comparison, (before, after))


if __name__ == "__main__":
    main()
