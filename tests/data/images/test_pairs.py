from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from compressor.data.images import (
    Augmented,
    Bicubic,
    Pair,
    Patches,
    luminance_pairs,
    patch_stride,
    patches,
    read_folder,
    symmetries,
)
from compressor.errors import InputError


def coloured(height: int, width: int) -> torch.Tensor:
    return torch.randint(256, (3, height, width), dtype=torch.uint8)


def test_odd_sizes_are_cropped_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        [pair] = luminance_pairs([("odd", coloured(31, 20))], Bicubic(3))
    assert pair.high.shape == (1, 30, 18) and pair.low.shape == (1, 10, 6)
    assert "image odd: cropped from 31x20 to 30x18, multiples of 3" in caplog.text


def test_images_that_cannot_be_scaled_are_named() -> None:
    with pytest.raises(InputError, match="image tiny: an image of 2x9 pixels is too small for a scale of 3"):
        list(luminance_pairs([("tiny", coloured(2, 9))], Bicubic(3)))
    with pytest.raises(InputError, match="image float: expected uint8"):
        list(luminance_pairs([("float", torch.zeros(3, 9, 9))], Bicubic(3)))
    with pytest.raises(InputError, match="image four: luminance: expected"):
        list(luminance_pairs([("four", torch.zeros(4, 9, 9).byte())], Bicubic(3)))


def test_t91_gives_the_number_of_patches_that_is_known(shared: Path) -> None:
    images = read_folder(shared / "data/sr_t91_train")
    assert len(images) == 91
    found = patches(luminance_pairs(images, Bicubic(3)), size=17, stride=14)
    assert repr(found) == "Patches(2420 of 17x17 -> 51x51)"


def test_patches_are_cut_where_they_belong() -> None:
    low, high = torch.arange(20 * 34).view(1, 20, 34), torch.arange(40 * 68).view(1, 40, 68)
    found = patches([Pair("a", low, high)], size=6, stride=4)
    expected = [(row, column) for row in range(0, 15, 4) for column in range(0, 29, 4)]
    assert len(found) == len(expected)
    for number, (row, column) in enumerate(expected):
        assert torch.equal(found.low[number], low[:, row : row + 6, column : column + 6])
        rows, columns = slice(2 * row, 2 * row + 12), slice(2 * column, 2 * column + 12)
        assert torch.equal(found.high[number], high[:, rows, columns])


def test_images_smaller_than_a_patch_are_named(caplog: pytest.LogCaptureFixture) -> None:
    pairs = list(luminance_pairs([("small", coloured(40, 99)), ("large", coloured(60, 60))], Bicubic(3)))
    found = patches(pairs)
    assert found.too_small == ("small",) and len(found) == 1
    assert "smaller than a patch of 17x17: small" in caplog.text
    with pytest.raises(InputError, match="none of 1 images holds a patch of 17x17"):
        patches(pairs[:1])


def test_pairs_of_two_scales_or_channels_are_refused() -> None:
    good = Pair("a", torch.zeros(1, 20, 20), torch.zeros(1, 40, 40))
    for other in (
        Pair("b", torch.zeros(1, 20, 20), torch.zeros(1, 60, 60)),
        Pair("b", torch.zeros(3, 20, 20), torch.zeros(3, 40, 40)),
        Pair("b", torch.zeros(1, 20, 20), torch.zeros(1, 20, 40)),
    ):
        with pytest.raises(InputError, match=r"image b is .* channels and a scale of 2"):
            patches([good, other])


def test_the_stride_of_the_paper() -> None:
    assert patch_stride(17, (5, 3, 3)) == 14
    assert patch_stride(17, (9, 1, 4)) == 15
    with pytest.raises(InputError, match="leave no stride"):
        patch_stride(3, (5, 3, 3))


def test_the_eight_symmetries_are_all_different_and_keep_the_pixels() -> None:
    square = torch.arange(9.0).view(1, 1, 3, 3).expand(8, 1, 3, 3)
    found = symmetries(square, torch.arange(8))
    turned = [torch.rot90(square[0], turns, (1, 2)) for turns in range(4)]
    expected = {tuple(x.flatten().tolist()) for one in turned for x in (one, one.flip(2))}
    assert {tuple(x.flatten().tolist()) for x in found} == expected and len(expected) == 8
    for images, which in ((torch.zeros(1, 1, 3, 4), [0]), (torch.zeros(2, 1, 3, 3), [0])):
        with pytest.raises(InputError, match="expected square images"):
            symmetries(images, torch.tensor(which))


def test_batches_move_both_patches_of_a_pair_alike_and_come_again_with_the_seed() -> None:
    low = torch.randint(256, (12, 1, 5, 5), dtype=torch.uint8)
    data = Augmented(Patches(low, low.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    torch.manual_seed(3)
    first = list(data.batches(4, seed=1))
    for small, large in first:
        assert small.shape == (4, 1, 5, 5) and small.dtype == torch.float32
        assert torch.equal(large[..., ::2, ::2], small)
    torch.manual_seed(3)
    again = list(data.batches(4, seed=1))
    assert all(torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    plain = Augmented(data._patches, symmetric=False)
    assert torch.equal(plain[2][0], low[2].float() / 255)
