"""Sequences: refusals that name the sequence, selections, halving."""

from __future__ import annotations

import math

import pytest
import torch

from compressor.data.echo import Sequences, vendor_folds
from compressor.errors import InputError


def of(frames: torch.Tensor, vendors: tuple[str, ...] = ("GE", "Philips", "GE")) -> Sequences:
    names = tuple("abcdefg"[: len(frames)])
    return Sequences(frames, names, vendors[: len(frames)])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(2, 8, 8, 4), r"must be a tensor \[N, 1, H, W, T\].*got \[2, 8, 8, 4\]"),
        (torch.zeros(2, 3, 8, 8, 4), r"got \[2, 3, 8, 8, 4\]"),
        (torch.zeros(0, 1, 8, 8, 4), "none empty"),
        (torch.zeros(2, 1, 8, 8, 4, dtype=torch.int16), "must be uint8 .* got torch.int16"),
        (
            torch.full((2, 1, 8, 8, 4), 200.0),
            r"sequence 'a' must lie in 0..1, got 200..200; .*divided by 255",
        ),
    ],
)
def test_another_layout_or_range_is_refused(frames: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        of(frames)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_sequence_that_is_not_finite_is_named(bad: float) -> None:
    frames = torch.zeros(3, 1, 8, 8, 4)
    frames[1, 0, 2, 3, 1] = bad
    with pytest.raises(InputError, match="'b' holds values that are not finite"):
        of(frames)


def test_names_and_vendors_are_one_each() -> None:
    with pytest.raises(InputError, match="need as many names and vendors, got 2 and 3"):
        Sequences(torch.zeros(3, 1, 8, 8, 4), ("a", "b"), ("", "", ""))


def test_vendors_are_kept_and_left_out() -> None:
    frames = torch.arange(3.0)[:, None, None, None, None].expand(3, 1, 4, 4, 2) / 2
    sequences = of(frames)
    assert sequences.of("GE").names == ("a", "c")
    assert sequences.without("GE").frames.unique().tolist() == [0.5]
    with pytest.raises(InputError, match="no sequence of vendor 'Siemens'; there are GE, Philips"):
        sequences.of("Siemens")
    with pytest.raises(InputError, match="no sequence was picked"):
        sequences.without("GE", "Philips")


def test_halving_takes_means_of_four_pixels() -> None:
    frames = torch.arange(2 * 4 * 6 * 3, dtype=torch.uint8).reshape(2, 1, 4, 6, 3)
    halved = of(frames).halved().frames
    by_hand = frames[1, 0, 2:4, 4:6, 1].double().mean() / 255
    assert halved.shape == (2, 1, 2, 3, 3)
    assert halved[1, 0, 1, 2, 1].item() == pytest.approx(by_hand.item(), abs=1e-7)
    with pytest.raises(InputError, match=r"even height and width, got 5x6; crop .*:4, :6"):
        of(torch.zeros(1, 1, 5, 6, 2)).halved()


def test_each_vendor_is_held_out_once() -> None:
    folds = list(vendor_folds(of(torch.zeros(3, 1, 4, 4, 2))))
    assert [(fold.vendor, fold.train, fold.test) for fold in folds] == [
        ("GE", (1,), (0, 2)),
        ("Philips", (0, 2), (1,)),
    ]
    with pytest.raises(InputError, match="two vendors are needed"):
        next(vendor_folds(of(torch.zeros(1, 1, 4, 4, 2))))
    with pytest.raises(InputError, match="vendor of 'b' is not known"):
        next(vendor_folds(of(torch.zeros(3, 1, 4, 4, 2), ("GE", "", "GE"))))
