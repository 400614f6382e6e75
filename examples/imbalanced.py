"""A classifier of medical images with rare classes: pruned, and judged class by class, with intervals.

    python examples/imbalanced.py --data ham10000_28.npz
    python examples/imbalanced.py --set pneumoniamnist --data pneumoniamnist.npz --normals 388
    python examples/imbalanced.py --quick  # synthetic images, in seconds

The .npz files are those that `compressor.data` reads; nothing is downloaded. With 388 normal images there is
one for nine with pneumonia. Rare classes are drawn as often as common ones in training and weigh as much in
the scores. The test part is used for nothing but the numbers that are printed. Needs the extra `metrics`.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate

import compressor as cp
from compressor.data import Labelled, Partition, load_ham10000_npz, load_pneumoniamnist_npz, normalize
from compressor.evaluation import classification, classify, compare_classes
from compressor.training import Distillation, Recipe, balanced_sampler, class_counts, fine_tune_


def read(options: argparse.Namespace) -> Partition:
    """The images that the command line names."""
    if options.quick:
        return stand_in()
    if options.data is None:
        raise SystemExit("name the .npz file of HAM10000 or PneumoniaMNIST with --data, or try --quick")
    if options.set == "ham10000":
        return load_ham10000_npz(options.data)
    return load_pneumoniamnist_npz(options.data, normals=options.normals)


def stand_in() -> Partition:
    """Noise with a faint blob, whose place is the class. It shows nothing medical."""
    generator = torch.Generator().manual_seed(0)

    def part(*counts: int) -> Labelled:
        labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
        images = torch.randint(0, 160, (len(labels), 1, 16, 16), generator=generator)
        for image, label in zip(images, labels, strict=True):
            image[:, 2 + 4 * int(label) :][:, :5, 5:10] += 70
        return Labelled(images.to(torch.uint8), labels)

    return Partition(part(200, 60, 20), part(20, 20, 20), part(100, 40, 20), ("common", "rarer", "rare"))


def shifted(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """A batch, moved at random by up to two pixels."""
    x, y = default_collate(items)
    top, left = torch.randint(5, (2,)).tolist()
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    return padded[:, :, top : top + x.shape[2], left : left + x.shape[3]], y


def main() -> None:
    """Train, prune by class-balanced scores, fine-tune, and say what that did to each class."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, help="the .npz file")
    parser.add_argument(
        "--set", choices=("ham10000", "pneumoniamnist"), default="ham10000", help="what is in it"
    )
    parser.add_argument("--normals", type=int, help="PneumoniaMNIST: normal images to train on (all)")
    parser.add_argument("--macs", type=float, default=0.5, help="fraction of the MACs that stays")
    parser.add_argument("--epochs", type=int, default=8, help="of training, and of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out/imbalanced"))
    parser.add_argument("--quick", action="store_true", help="synthetic images, 4 epochs")
    options = parser.parse_args()
    if options.quick:
        options.epochs = 4
    torch.manual_seed(options.seed)
    parts = read(options)
    classes, pixels = parts.classes, parts.train.images.double() / 255
    scaled = partial(normalize, mean=pixels.mean((0, 2, 3)).tolist(), std=pixels.std((0, 2, 3)).tolist())
    x, y = scaled(parts.train.images), parts.train.labels
    counts = class_counts(y, classes=len(classes)).tolist()
    print(f"to train on: {', '.join(f'{n} {name}' for n, name in zip(counts, classes, strict=True))}")

    sampler = balanced_sampler(y, classes=len(classes), seed=options.seed)
    loader = DataLoader(TensorDataset(x, y), 64, sampler=sampler, collate_fn=shifted, drop_last=True)
    test = [*zip(scaled(parts.test.images).split(250), parts.test.labels.split(250), strict=True)]
    recipe = Recipe(
        epochs=options.epochs, lr=0.05, weight_decay=5e-4, warmup_epochs=options.epochs / 4, seed=options.seed
    )

    def build() -> nn.Module:
        return cp.models.create("resnet20_cifar", in_channels=x.shape[1], n_classes=len(classes))

    model = build()
    fine_tune_(model, loader, F.cross_entropy, recipe, progress=False)
    model.eval()
    before = classify(model, test, classes=classes)
    print(f"\noriginal\n{classification(before).summary()}")

    some = torch.randperm(len(x))[:1024]
    scored = [*zip(x[some].split(128), y[some].split(128), strict=True)]
    scorer = cp.scoring.BetaRank(scored, balanced=True, n_classes=len(classes))
    small = cp.prune(model, x[:1], scorer=scorer, budget=cp.budget.Macs(options.macs))
    cut = classify(small, test, classes=classes)
    print(f"\nas cut\n{compare_classes(before, cut).summary()}")
    fine_tune_(small, loader, Distillation(model, F.cross_entropy), recipe, progress=False)
    small.eval()
    after = classify(small, test, classes=classes)
    print(f"\nfine-tuned\n{classification(after).summary()}")

    changes = compare_classes(before, after)
    print(f"\noriginal -> fine-tuned\n{changes.summary()}")
    verdict(changes)
    print(f"\n{cp.compare(model, small, x[:1])}")
    cp.save(small, options.out / "small", overwrite=True)
    again = cp.load(options.out / "small", build).eval()
    with torch.no_grad():
        assert torch.equal(again(x[:8]), small(x[:8]))
    print(f"saved to {options.out / 'small'} and loaded again")


def verdict(changes: cp.evaluation.ClassComparison) -> None:
    """What these samples can say of each class, and what they cannot."""
    print()
    for change in changes.changes:
        if change.p_adjusted < 0.05:
            word = "lower" if change.change.value < 0 else "higher"
            print(f"{change.name}: recall is {word}, by {abs(change.change.value):.1%}")
        else:
            worst = max(0.0, -change.change.low)
            images = f"{change.samples} images cannot rule out a loss of {worst:.1%}"
            print(f"{change.name}: no change shown, but {images}")
    print("One training, one seed: another would end elsewhere; `cp.evaluation.over_seeds` compares several.")
    print("The small network was trained twice as long as the original: a gain may be the training's.")


if __name__ == "__main__":
    main()
