"""Patches and their symmetries: what makes none."""

from __future__ import annotations

import pytest
import torch

from compressor.data.images import Augmented, Pair, Patches, patches, symmetries
from compressor.errors import InputError


def test_sizes_and_numbers_without_sense() -> None:
    pair = Pair("a", torch.zeros(1, 20, 20), torch.zeros(1, 40, 40))
    with pytest.raises(InputError, match=r"whole numbers of at least 1, got 2\.5 and 14"):
        patches([pair], size=2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"must lie in 0\.\.7, got -1\.\.9"):
        symmetries(torch.zeros(2, 1, 4, 4), torch.tensor([9, -1]))


@pytest.mark.parametrize("size", [0, 6])
def test_batches_that_no_patches_fill_are_refused(size: int) -> None:
    data = Augmented(Patches(torch.zeros(5, 1, 4, 4).byte(), torch.zeros(5, 1, 8, 8).byte()))
    with pytest.raises(InputError, match=f"5 patches make no batch of {size}"):
        data.batches(size)
    assert [len(low) for low, _ in data.batches(5)] == [5]
