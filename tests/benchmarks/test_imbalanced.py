"""How the imbalanced benchmark trains, rescales, compares and goes on after an interruption."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("torch_pruning")

import compressor as cp
from benchmarks import imbalanced, imbalanced_methods, medical, results, resuming
from benchmarks.imbalanced_methods import METHODS, RESCALED, norm_of, published_scores, rescale_
from benchmarks.medical import Medical
from compressor.data import Labelled, Partition
from compressor.training import Recipe

HAM = "HAM10000"


def written(folder: Path) -> Path:
    """A shared folder with a small file in HAM10000's form."""
    rng = np.random.default_rng(0)
    file = folder / medical.SETS[HAM][0]
    file.parent.mkdir(parents=True)
    labels = np.tile([0, 1, 1, 1, 2], 12)
    pixels = (rng.integers(0, 80, (60, 28, 28, 3)) + 80 * labels[:, None, None, None]).astype(np.uint8)
    parts = np.repeat([0, 1, 2], 20)
    np.savez(file, x=pixels, y=labels, split=parts, lesion=np.arange(60), classes=["a", "b", "c"])
    return folder


def small(channels: int = 3) -> Medical:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 40 + [1] * 8 + [2] * 2)
    part = torch.randn(50, channels, 28, 28, generator=generator), labels
    return Medical("small", ("a", "b", "c"), flips=True, train=part, val=part, test=part)


def test_every_class_is_drawn_as_often_whatever_its_share() -> None:
    drawn = medical.Drawn(small(), seed=1)
    counts = torch.cat([labels for _ in range(60) for _, labels in drawn]).bincount()
    assert counts.sum() == 3000
    assert ((counts - 1000).abs() < 4 * (3000 * 2 / 9) ** 0.5).all()  # four standard errors


def test_drawn_images_are_shifted_and_flipped_ones_of_the_set() -> None:
    data = small(1)
    padded = np.pad(data.train[0][:, 0].numpy(), ((0, 0), (3, 3), (3, 3)), mode="edge")
    images, labels = (part[:4] for part in next(iter(medical.Drawn(data, seed=1))))
    for image, label in zip(images[:, 0].numpy(), labels.tolist(), strict=True):
        candidates = [
            np.flip(padded[i, a : a + 28, b : b + 28], axes)
            for i in range(50)
            if data.train[1][i] == label
            for a in range(7)
            for b in range(7)
            for axes in ((), (0,), (1,), (0, 1))
        ]
        assert sum(np.array_equal(image, candidate) for candidate in candidates) == 1


def test_training_depends_on_the_seed_alone() -> None:
    nets = [medical.network(small(), width=2, seed=3) for _ in range(2)]
    for net in nets:
        torch.manual_seed(len(nets))
        torch.rand(7)
        medical.train_(net, small(), medical.recipe_of(1, 0.1), seed=5)
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not nets[0].training


def test_no_lesion_is_on_both_sides_of_the_new_split_and_the_test_part_stays() -> None:
    def part(subjects: list[int]) -> Labelled:
        n = len(subjects)
        return Labelled(torch.zeros(n, 3, 1, 1, dtype=torch.uint8), torch.arange(n), torch.tensor(subjects))

    train, val, test = part([1, 1, 2, 3, 4, 4, 5]), part([6, 7, 7, 8]), part([9])
    again = medical._more_validation(Partition(train, val, test, ("a",)))
    assert again.test is test
    assert again.train.subjects is not None and again.val.subjects is not None
    sides = set(again.train.subjects.tolist()), set(again.val.subjects.tolist())
    assert not sides[0] & sides[1] and sides[0] | sides[1] == set(range(1, 9))
    assert len(again.train) + len(again.val) == 11 and len(sides[1]) == 1


@pytest.mark.parametrize("kind", ["L1", "HRank", "Beta-Rank"])
def test_rescaled_filters_compute_the_same(kind: str) -> None:
    data = small()
    net = medical.network(data, width=4, seed=0)
    medical.train_(net, data, medical.recipe_of(1, 0.05), seed=0)
    net = net.double().eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eps = 0.0
    doubled = Medical(data.name, data.classes, flips=True, train=_double(data), val=data.val, test=data.test)
    x = doubled.train[0]
    with torch.no_grad():
        before = net(x)
        scores = published_scores(kind, net, doubled)
        weights = {name: net.get_submodule(name).weight.clone() for name in scores}
        for name, values in scores.items():
            rescale_(net, name, 1 + values)
        after = net(x)
    assert len(scores) == 19  # all 3x3 convolutions of a ResNet-20
    assert torch.allclose(before, after, rtol=1e-9)
    for name, values in scores.items():
        growth = net.get_submodule(name).weight.flatten(1).norm(dim=1) / weights[name].flatten(1).norm(dim=1)
        assert torch.allclose(growth, 1 + values.double())
    highest = {"L1": np.inf, "HRank": 28.0, "Beta-Rank": 1.0}[kind]
    assert 0 < max(float(values.max()) for values in scores.values()) <= highest


def _double(data: Medical) -> tuple[torch.Tensor, torch.Tensor]:
    return data.train[0].double(), data.train[1]


def test_the_norm_of_a_convolution() -> None:
    net = medical.network(small(), width=2, seed=0)
    names = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert all(isinstance(net.get_submodule(norm_of(name)), nn.BatchNorm2d) for name in names)


@pytest.mark.parametrize("name", ["L1", "MaskSparsity", "default"])
def test_every_method_trains_for_the_same_epochs_and_meets_the_budget(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, epochs = small(), []
    train_ = medical.train_

    def counted(model: nn.Module, data: Medical, recipe: Recipe, **options: Any) -> None:
        epochs.append(recipe.epochs)
        train_(model, data, recipe, **options)

    monkeypatch.setattr(imbalanced_methods, "train_", counted)
    net = medical.network(data, width=4, seed=0)
    macs = cp.profile(net, data.example).macs
    cut, tuned = imbalanced_methods.prune_and_tune(
        net, data, METHODS[name], medical.recipe_of(3, 0.02), fraction=0.5, seed=0
    )
    assert sum(epochs) == 3 and len(epochs) == 1 + (name == "MaskSparsity")
    for small_net in (cut, tuned):
        assert cp.profile(small_net, data.example).macs <= 0.5 * macs
    assert not torch.equal(cut.linear.weight, tuned.linear.weight)


# -- rows and tables -----------------------------------------------------------------------------


def row(
    method: str, confusion: str, *, seed: int = 0, fraction: float = 0.5, **changed: Any
) -> dict[str, Any]:
    stages = {"cut": confusion, "tuned": confusion}
    return {
        "set": HAM,
        "seed": seed,
        "method": method,
        "fraction": fraction,
        "rate": 0.03,
        "macs_left": fraction,
        "params_left": fraction,
        "classes": ["a", "b"],
        "confusion": {"val": stages, "test": stages},
        "schedule": {"epochs": 3, "width": 8, "limit": None, "rate": 0.02},
        **changed,
    }


def test_rates_come_back_from_the_confusion_matrix() -> None:
    assert imbalanced.rates_of(row("L1", "3 1; 1 1"), "test") == pytest.approx(
        (5 / 8, (3 / 4 + 1 / 2) / 2, 1 / 2)
    )


def test_differences_are_paired_by_seed() -> None:
    mine = {0: row("Taylor", "4 0; 1 1"), 2: row("Taylor", "4 0; 0 2")}
    theirs = {2: row("L1", "4 0; 1 1"), 1: row("L1", "4 0; 0 2")}
    assert imbalanced.differences(mine, theirs, "test")[0] == pytest.approx([1 - 3 / 4])


def test_a_difference_is_bold_only_where_its_interval_leaves_out_zero() -> None:
    # 4.303 standard errors of three values: of 1, 2, 3 points 2 ± 2.48, of 10, 11, 12 points 11 ± 2.48
    assert imbalanced._gain([0.01, 0.02, 0.03]) == "+2.0 ± 2.5"
    assert imbalanced._gain([0.10, 0.11, 0.12]) == "**+11.0 ± 2.5**"


def test_the_ablation_runs_at_the_smallest_fraction_alone() -> None:
    found = imbalanced.keys(imbalanced._options([]))
    fractions = {key["fraction"] for key in found if key["method"] in (*RESCALED, "Random")}
    assert fractions == {0.42}
    # Of 20 methods, 11 at both fractions, and the dense network: for three seeds of two sets.
    assert len(found) == 3 * 2 * (1 + 2 * 11 + 9)


def test_runs_of_another_schedule_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.write_json(tmp_path / "imbalanced.json", {"rows": [row("L1", "1 0; 0 1")]})
    wanted = {"epochs": 3, "width": 8, "limit": None, "rate": 0.02}
    assert len(resuming.kept("imbalanced", wanted)) == 1
    with pytest.raises(SystemExit, match="'epochs': 9"):
        resuming.kept("imbalanced", {**wanted, "epochs": 9})
    assert imbalanced.schedule(imbalanced._options([])) == wanted
    with pytest.raises(SystemExit, match=r"'rate': 0\.1"):  # rates are only mixed to choose one
        resuming.kept("imbalanced", imbalanced.schedule(imbalanced._options(["--rate", "0.1"])))


def test_without_the_data_it_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["imbalanced", "--quick", "--shared", str(tmp_path)])
    assert imbalanced.main() == 0
    assert "skipped: the shared folder lacks data/ham10000_28/ham10000_28.npz" in capsys.readouterr().out


def test_the_small_mode_runs_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = written(tmp_path / "shared")
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(medical, "ROOT", tmp_path)
    words = ["imbalanced", "--quick", "--sets", HAM, "--width", "2", "--shared", str(shared)]
    monkeypatch.setattr(sys, "argv", [*words, "--methods", "L1"])
    assert imbalanced.main() == 0
    assert "0 runs are done, 2 to go" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*words, "--methods", "L1", "default", "L1, rescaled"])
    assert imbalanced.main() == 0
    out = capsys.readouterr().out
    assert "2 runs are done, 2 to go" in out and "Filters rescaled by 1 + score" in out
    assert "what `default` does to each class, 45 % of the MACs removed, seed 0" in out
    kept = results.read("imbalanced-quick")
    assert kept is not None
    dense, cut, _, rescaled = kept["rows"]
    true, named = (np.array(list(map(int, text))) for text in (dense["labels"], dense["named"]))
    confusion = [[int(((true == i) & (named == j)).sum()) for j in range(3)] for i in range(3)]
    assert dense["confusion"]["test"]["tuned"] == "; ".join(" ".join(map(str, line)) for line in confusion)
    assert cut["macs_left"] <= 0.55 and cut["macs_left"] == rescaled["macs_left"]
    assert len(list((tmp_path / "out" / "imbalanced").iterdir())) == 1
