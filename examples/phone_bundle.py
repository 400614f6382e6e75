"""From a trained model of your own to the folder that a phone app is built with, every file of it checked.

python examples/phone_bundle.py --model my_pkg.net:build --images my_pkg.data:batches --out out/phone
"""

import argparse
import pkgutil
import sys

from torch import Tensor, nn, randn

import compressor as cp


def build() -> nn.Module:
    """A stand-in for your network, with weights that nobody trained."""
    first, second, third = nn.Conv2d(3, 32, 3, 2), nn.Conv2d(32, 64, 3, 2), nn.Conv2d(64, 64, 3)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), *head)


def batches() -> list[Tensor]:
    """A stand-in for your images: a few hundred of those it was trained on, without labels."""
    return [randn(64, 3, 48, 48) for _ in range(3)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="phone_bundle:build", help="function that builds it, trained")
    parser.add_argument("--images", default="phone_bundle:batches", help="function: a list of its inputs")
    parser.add_argument("--out", default="out/phone", help="a new folder, or that of an earlier bundle")
    parser.add_argument("--quick", action="store_true", help="without the bench page (and without npm)")
    options = parser.parse_args()
    sys.path.append(".")  # modules in the current folder can be named, too
    model, images = pkgutil.resolve_name(options.model)().eval(), pkgutil.resolve_name(options.images)()
    x, half = images[0][:1], cp.budget.Macs(0.5, round_to=8)
    small = cp.prune(model, x, budget=half, recover=cp.recovery.Reconstruction(images))
    given = {"calibration": images, "baseline": model, "page": not options.quick}
    print(cp.export.mobile(small, x, options.out, **given))  # every file in it was checked and timed
