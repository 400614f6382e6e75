"""Sectors, windows and training samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.data import DataLoader

from compressor.data.echo import (
    PUBLISHED,
    CleanWindows,
    PairedWindows,
    Phantom,
    Sequences,
    Windowing,
    phantoms,
    sector_mask,
    windows,
)
from compressor.errors import InputError


def counting(frames: int = 10) -> Sequences:
    """Two sequences whose pixels hold the number of their frame, and half a step in the left column."""
    values = torch.arange(frames) / 100
    tensor = values.expand(2, 1, 4, 4, frames).clone()
    tensor[:, :, :, 0] += 0.005
    return Sequences(tensor, ("first", "second"), ("", ""))


def test_windows_follow_each_other() -> None:
    cut = windows(counting(), 4, stride=3)
    assert cut.shape == (6, 1, 4, 4, 4)
    assert (100 * cut[:, 0, 0, 1, 0]).round().tolist() == [0, 3, 6, 0, 3, 6]
    assert (100 * cut[2, 0, 3, 3]).round().tolist() == [6, 7, 8, 9]


@pytest.mark.parametrize(
    "make", [windows, lambda s, n: CleanWindows(s, samples=1, windowing=Windowing(frames=n))]
)
def test_a_sequence_shorter_than_the_window_is_named(make: object) -> None:
    assert callable(make)
    with pytest.raises(InputError, match="of 10 frames hold no window of 11: 'first', "):
        make(counting(), 11)


def test_a_rotated_sequence_begins_anywhere_and_goes_round() -> None:
    clean = counting()
    samples = PairedWindows(clean, clean, samples=400, windowing=Windowing(frames=10, flip=0, rotate=0.5))
    starts = []
    for index in range(400):
        cluttered, target = samples[index]
        assert torch.equal(cluttered, target)
        numbers = (100 * target[0, 0, 1]).round().long().tolist()
        assert numbers == [(numbers[0] + step) % 10 for step in range(10)]
        starts.append(numbers[0])
    assert set(starts) == set(range(10))
    assert starts.count(0) / 400 == pytest.approx(0.5 + 0.5 / 10, abs=0.08)


def test_flips_are_left_right_and_of_both_alike() -> None:
    clean = counting()
    samples = PairedWindows(clean, clean, samples=200, windowing=Windowing(frames=3, rotate=0))
    flipped = 0
    for index in range(200):
        cluttered, target = samples[index]
        assert torch.equal(cluttered, target)
        left = bool(target[0, 0, 0, 0] > target[0, 0, 3, 0])
        assert torch.equal(target, target[:, :1].expand_as(target))  # rows stay rows
        flipped += not left
    assert flipped == pytest.approx(100, abs=30)


def test_samples_of_clean_sequences_have_clutter_in_the_sector_only() -> None:
    clean = phantoms(2, Phantom(size=32, frames=10))
    masks = sector_mask(clean.unit())
    samples = CleanWindows(clean, samples=8, windowing=Windowing(flip=0, rotate=0), clutter=PUBLISHED)
    for index in range(8):
        cluttered, target = samples[index]
        inside = masks[index % 2].expand_as(target)
        assert torch.equal(cluttered[~inside], target[~inside])
        assert (cluttered >= target).all() and (cluttered - target).amax() > 0.3


def test_brightness_is_drawn_before_the_clutter_is_added() -> None:
    frames = torch.full((1, 1, 16, 16, 8), 0.25)
    clean = Sequences(frames, ("grey",), ("",))
    samples = CleanWindows(clean, samples=300, clutter=PUBLISHED, gamma=(0.5, 2.0))
    powers = []
    for index in range(300):
        cluttered, target = samples[index]
        assert (cluttered >= target).all() and target.unique().numel() == 1
        powers.append(math.log(float(target[0, 0, 0, 0])) / math.log(0.25))
    assert 0.5 <= min(powers) < 0.53 and 1.9 < max(powers) <= 2.0 + 1e-5
    assert sum(power < 1 for power in powers) / 300 == pytest.approx(0.5, abs=0.1)
    with pytest.raises(InputError, match="gamma must be"):
        CleanWindows(clean, samples=1, gamma=(0, 1))


def test_a_flipped_sector_is_that_of_the_flipped_image() -> None:
    frames = torch.zeros(1, 1, 16, 16, 9)
    frames[:, :, :, 10:] = 0.4  # a sector on the right alone
    samples = CleanWindows(
        Sequences(frames, ("right",), ("",)), samples=20, windowing=Windowing(flip=1.0), clutter=PUBLISHED
    )
    for index in range(20):
        cluttered, clean = samples[index]
        assert torch.equal(cluttered[clean == 0], clean[clean == 0])


def test_the_same_random_state_gives_the_same_epoch() -> None:
    samples = CleanWindows(phantoms(2, Phantom(size=16, frames=8)), samples=6)
    epochs = []
    for _ in range(2):
        torch.manual_seed(5)
        epochs.append([torch.stack(batch) for batch in DataLoader(samples, 2, shuffle=True)])
    assert all(torch.equal(a, b) for a, b in zip(*epochs, strict=True))


def test_masks_and_pairs_have_to_fit() -> None:
    clean = counting()
    with pytest.raises(InputError, match="masks must be"):
        CleanWindows(clean, samples=1, masks=torch.ones(2, 1, 4, 4, 10, dtype=torch.bool))
    with pytest.raises(InputError, match="do not match"):
        PairedWindows(clean, clean.pick([0]))
    with pytest.raises(InputError, match="at least one frame, got 0"):
        windows(clean, 0)
    with pytest.raises(InputError, match="at least one sample"):
        CleanWindows(clean, samples=0, masks=torch.ones(2, 1, 4, 4, 1, dtype=torch.bool))
    with pytest.raises(IndexError):
        PairedWindows(clean, clean)[2]
    with pytest.raises(InputError, match=r"cannot be cut from sequences of \[9, 8\] frames"):
        Windowing(frames=8).cut(torch.zeros(1, 4, 4, 9), torch.zeros(1, 4, 4, 8))
    with pytest.raises(InputError, match="rotate is a probability"):
        Windowing(rotate=2)


def test_a_sector_is_the_hull_of_what_is_bright() -> None:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    wedge = ((columns - 31.5).abs() <= 0.7 * rows) & (rows**2 + (columns - 31.5) ** 2 <= 60**2)
    generator = torch.Generator().manual_seed(0)
    bright = (torch.rand(1, 1, 64, 64, 8, generator=generator) < 0.5) * wedge[..., None] * 0.3
    bright[0, 0, 60, 2, 3] = 0.9  # one pixel of noise
    mask = sector_mask(bright)
    wrong = (mask[0, 0, :, :, 0] != wedge).sum()
    assert wrong <= 0.02 * wedge.sum() and not mask[0, 0, 60, 2, 0]


def test_an_empty_sequence_has_no_sector() -> None:
    with pytest.raises(InputError, match="sequence 1 has no region brighter"):
        sector_mask(torch.stack([torch.ones(1, 8, 8, 2), torch.zeros(1, 8, 8, 2)]))
    with pytest.raises(InputError, match="not finite"):
        sector_mask(torch.full((1, 1, 8, 8, 2), float("nan")))
    with pytest.raises(InputError, match=r"got torch\.uint8"):
        sector_mask(torch.ones(1, 1, 8, 8, 2, dtype=torch.uint8))


def test_the_phantom_contracts_by_what_it_says() -> None:
    """Each frame is the first one, drawn together about the middle by the stretch."""
    options = Phantom(size=128, frames=8, contraction=0.25)
    frames = phantoms(1, options, seed=3).unit()[0, 0]
    expected = options.stretch()
    assert expected.min().item() == pytest.approx(0.75)
    for frame in (2, 4, 7):
        scores = {}
        for stretch in (0.7, 0.75, 0.8, 0.875, 0.95, 1.0):
            place = (torch.arange(40, 88) + 0.5 - 64) / (64 * stretch)  # where it was at first, from -1 to 1
            grid = torch.stack(torch.meshgrid(place, place, indexing="xy"), -1)[None]
            moved = torch.nn.functional.grid_sample(frames[None, None, ..., 0], grid, align_corners=False)
            scores[stretch] = (moved[0, 0] - frames[40:88, 40:88, frame]).abs().mean().item()
        nearest = min(scores, key=lambda stretch: abs(stretch - expected[frame].item()))
        assert min(scores, key=scores.__getitem__) == nearest


def test_phantoms_are_seeded_and_differ() -> None:
    first, again, other = (phantoms(2, Phantom(size=32, frames=2), seed=seed).frames for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    with pytest.raises(InputError, match="contraction"):
        Phantom(contraction=0.6)
    with pytest.raises(InputError, match="count must be"):
        phantoms(0)
