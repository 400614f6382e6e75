"""Train a small ResNet on handwritten digits, remove 70 % of its MACs, recover, prove and export the result.

The digits are scikit-learn's (1,797 real 8x8 scans); nothing is downloaded. Run it with `make demo`;
it takes about a minute on two cores and writes to out/demo, the numbers of it all to numbers.json there.
`--quick` trains for an epoch on 512 digits and makes no page for the phone.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from training import Data, accuracy, draw, train

import compressor as cp


def digits(seed: int, *, train: int = 1297) -> Data:
    """`train` digits to train on and 500 others to test on, upsampled to 16x16."""
    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 8 - 1
    x = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    y = torch.tensor(bunch.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = x[order], y[order]
    return Data(x[:-500][:train], y[:-500][:train], x[-500:], y[-500:])


def main() -> None:
    """The whole story, from training to a file for the phone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    parser.add_argument(
        "--epochs", type=int, default=None, help="of training, and of fine-tuning: 6, quick 1"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="does everything work here?")
    options = parser.parse_args()
    options.epochs = options.epochs or (1 if options.quick else 6)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    torch.set_num_threads(1)  # layers so small are done before a second thread has woken up
    torch.manual_seed(options.seed)
    data = digits(options.seed, train=512 if options.quick else 1297)
    example = data.x_test[:8]

    print("1. Train ResNet-20 on handwritten digits")
    model = cp.models.create("resnet20_cifar", in_channels=1)
    train(model, data, epochs=options.epochs, lr=0.1, seed=options.seed)
    before = accuracy(model, data.x_test, data.y_test)
    print(f"   accuracy {before:.1%} on {len(data.x_test)} unseen digits")

    print("2. Remove 70 % of the MACs, proved; fit the layers anew without labels; fine-tune by the original")
    small = cp.prune(model, example, budget=cp.budget.Macs(0.3, round_to=8))
    stages = {"before": before, "as cut": report(small, data, "pruned")}
    cp.recovery.reconstruct_(small, model, data.unlabelled(512))
    stages["reconstructed"] = report(small, data, "reconstructed from 512 images without labels")
    train(small, data, epochs=options.epochs, lr=0.05, seed=options.seed, teacher=model)
    stages["fine-tuned"] = after = report(small, data, "fine-tuned")

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
    files = bundle(small, model, data, example, options.out / "bundle", page=not options.quick)
    print(files, end="\n\n")

    print("5. Before and after\n")
    comparison = cp.compare(model, small, example[:1])
    print(f"accuracy: {before:.1%} -> {after:.1%}")
    print(comparison)
    draw(options.out / "before_after.png", comparison, (before, after))
    (options.out / "numbers.json").write_text(json.dumps(numbers(stages, comparison, files), indent=1) + "\n")
    print(f"\nPicture: {options.out / 'before_after.png'}; {time.perf_counter() - started:.0f} s in all")


def bundle(
    small: torch.nn.Module, model: torch.nn.Module, data: Data, example: Tensor, folder: Path, *, page: bool
) -> cp.export.Bundle:
    """The bundle of `small`, beside `model`; without its page, and saying so, where that cannot be made."""
    write = partial(
        cp.export.mobile, small, example, folder,
        baseline=model, calibration=data.unlabelled(512),
        held_out=zip(data.x_test.split(100), data.y_test.split(100), strict=True),
        metadata=cp.export.Metadata(classes=[str(digit) for digit in range(10)], mean=[0.5], std=[0.5]),
    )  # fmt: skip
    try:
        return write(page=page)
    except cp.errors.MissingExtraError as missing:
        print(f"   without the bench page: {missing}\n")
        return write(page=False)


def report(model: torch.nn.Module, data: Data, what: str) -> float:
    """The accuracy of the model, and one line on where it stands."""
    right = accuracy(model, data.x_test, data.y_test)
    print(f"   {cp.profile(model, data.x_test[:1]).macs / 1e6:5.2f} M MACs, {what}: accuracy {right:.1%}")
    return right


def numbers(
    stages: dict[str, float], comparison: cp.profiling.Comparison, files: cp.export.Bundle
) -> dict[str, Any]:
    """What was printed, as plain values: accuracies are fractions, times milliseconds of CPU."""
    costs = ("macs", "params", "peak_activation_bytes")
    sides = {"before": comparison.before, "after": comparison.after}
    timings = zip(files.comparison.rows, files.comparison.latency.timings, strict=True)
    return {
        "accuracy": stages,
        "costs": {side: {name: getattr(found, name) for name in costs} for side, found in sides.items()},
        "files": {
            row.path.name: {"bytes": row.file_bytes, "accuracy": row.accuracy, **asdict(timing)}
            for row, timing in timings
        },
    }


if __name__ == "__main__":
    main()
