"""Train a small ResNet on handwritten digits, remove 70 % of its MACs, recover, prove and export the result.

The digits are scikit-learn's (1,797 real 8x8 scans); nothing is downloaded. Run it with `make demo`;
it takes about a minute on two cores and writes to out/demo.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from training import Data, accuracy, draw, train

import compressor as cp


def digits(seed: int) -> Data:
    """1,297 digits to train on and 500 to test on, upsampled to 16x16."""
    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 8 - 1
    x = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    y = torch.tensor(bunch.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = x[order], y[order]
    return Data(x[:-500], y[:-500], x[-500:], y[-500:])


def main() -> None:
    """The whole story, from training to a file for the phone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument("--epochs", type=int, default=6, help="of training, and of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    torch.set_num_threads(
        1
    )  # threads would spend more time on waiting for each other than on layers so small
    torch.manual_seed(options.seed)
    data = digits(options.seed)
    example = data.x_test[:8]

    print("1. Train ResNet-20 on handwritten digits")
    model = cp.models.create("resnet20_cifar", in_channels=1)
    train(model, data, epochs=options.epochs, lr=0.1, seed=options.seed)
    before = accuracy(model, data.x_test, data.y_test)
    print(f"   accuracy {before:.1%} on {len(data.x_test)} unseen digits")

    print("2. Remove 70 % of the MACs, proved; fit the layers anew without labels; fine-tune by the original")
    small = cp.prune(model, example, budget=cp.budget.Macs(0.3, round_to=8))
    report(small, data.x_test, data.y_test, "pruned")
    cp.recovery.reconstruct_(small, model, data.unlabelled(512))
    report(small, data.x_test, data.y_test, "reconstructed from 512 images without labels")
    train(small, data, epochs=options.epochs, lr=0.05, seed=options.seed, teacher=model)
    after = accuracy(small, data.x_test, data.y_test)
    report(small, data.x_test, data.y_test, "fine-tuned")

    print("3. Save it without pickles, load it again")
    folder = options.out / "small"
    cp.save(small, folder, overwrite=True)
    again = cp.load(folder, lambda: cp.models.create("resnet20_cifar", in_channels=1))
    with torch.no_grad():
        assert torch.equal(again.eval()(example), small(example))
    print(f"   {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")

    print(
        "4. All that an app needs, each file checked: ONNX, int8, .ort, a page that times them on the phone\n"
    )
    print(bundle(small, model, data, example, options.out / "bundle"), end="\n\n")

    print("5. Before and after\n")
    comparison = cp.compare(model, small, example[:1])
    print(f"accuracy: {before:.1%} -> {after:.1%}")
    print(comparison)
    draw(options.out / "before_after.png", comparison, (before, after))
    print(f"\nPicture: {options.out / 'before_after.png'}; {time.perf_counter() - started:.0f} s in all")


def bundle(
    small: torch.nn.Module, model: torch.nn.Module, data: Data, example: Tensor, folder: Path
) -> cp.export.Bundle:
    """The bundle of `small`, beside `model`; without its page, and saying so, where that cannot be made."""
    write = partial(
        cp.export.mobile, small, example, folder,
        baseline=model, calibration=data.unlabelled(512),
        held_out=zip(data.x_test.split(100), data.y_test.split(100), strict=True),
        metadata=cp.export.Metadata(classes=[str(digit) for digit in range(10)], mean=[0.5], std=[0.5]),
    )  # fmt: skip
    try:
        return write()
    except cp.errors.MissingExtraError as missing:
        print(f"   without the bench page: {missing}\n")
        return write(page=False)


def report(model: torch.nn.Module, x: Tensor, y: Tensor, what: str) -> None:
    """One line on where the model stands."""
    macs = cp.profile(model, x[:1]).macs
    print(f"   {macs / 1e6:5.2f} M MACs, {what}: accuracy {accuracy(model, x, y):.1%}")


if __name__ == "__main__":
    main()
