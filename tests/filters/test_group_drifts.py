from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.errors import InputError
from compressor.filters import (
    Basis,
    FilterBank,
    Kernels,
    data_limits,
    drift,
    drifts,
    pooled_basis,
    published_drifts,
)
from compressor.models import load_akamaster_checkpoint


@pytest.fixture
def groups() -> dict[str, Kernels]:
    pruned = torch.randn(16, 16, 3, 3)
    pruned[:4] = 0
    return {
        "drawn": torch.randn(32, 16, 3, 3),
        "pruned": FilterBank(pruned, "conv"),
        "blurred": [FilterBank(torch.randn(8, 8, 3, 3).cumsum(-1), f"conv{place}") for place in range(6)],
    }


def matrices(groups: dict[str, Kernels]) -> list[torch.Tensor]:
    drawn, pruned, blurred = groups.values()
    assert isinstance(drawn, torch.Tensor) and isinstance(pruned, FilterBank) and isinstance(blurred, list)
    return [drawn.reshape(-1, 9), pruned.kernels, torch.cat([bank.kernels for bank in blurred])]


def test_every_pair_is_a_drift_in_the_basis_of_all(groups: dict[str, Kernels]) -> None:
    found = drifts(groups)
    expected = pooled_basis(matrices(groups))
    torch.testing.assert_close(found.basis.shares_K, expected.shares_K)
    for one, two in (("drawn", "pruned"), ("pruned", "blurred"), ("drawn", "blurred")):
        assert found[one, two] == found[two, one] == drift(groups[one], groups[two], basis=found.basis)
    assert not found["drawn", "pruned"].above_noise and found["drawn", "blurred"].above_noise
    assert found["drawn", "pruned"].zeros == (0, 64)


def test_as_published_zeros_count_and_the_range_is_that_of_all_groups(groups: dict[str, Kernels]) -> None:
    found = published_drifts(groups)
    basis = Basis.of_kernels(torch.cat(matrices(groups)))
    torch.testing.assert_close(found.basis.shares_K, basis.shares_K)
    limits = data_limits(matrices(groups), found.basis, keep_zeros=True)
    for pair, one in found.pairs.items():
        first, second = (groups[name] for name in pair)
        assert one == drift(first, second, basis=found.basis, limits=limits, keep_zeros=True)
    assert found["drawn", "pruned"].zeros == (0, 0) and found["drawn", "pruned"].above_noise


def test_the_table_marks_what_is_noise(groups: dict[str, Kernels]) -> None:
    lines = str(drifts(groups)).splitlines()
    assert lines[0].split() == ["drawn", "pruned", "blurred"]
    cells = lines[1].split()
    assert cells[:2] == ["drawn", "-"] and cells[2].startswith("(") and not cells[3].startswith("(")
    assert len(lines) == 5


def test_trained_networks_of_one_family_are_alike_and_far_from_random(shared: Path) -> None:
    files = sorted((shared / "data" / "ckpt_cifar10_resnet").glob("*.th"))
    nets: dict[str, Kernels] = {
        file.name[:8]: [
            FilterBank(w, key) for key, w in load_akamaster_checkpoint(file).items() if w.ndim == 4
        ]
        for file in files
    }
    assert len(nets) == 4
    found = drifts(nets | {"random": torch.randn(256, 128, 3, 3)})
    trained = [one.value for pair, one in found.pairs.items() if "random" not in pair]
    apart = [one.value for pair, one in found.pairs.items() if "random" in pair]
    assert max(trained) < 0.01 < 0.1 < min(apart)


def test_bad_input_is_refused(groups: dict[str, Kernels]) -> None:
    with pytest.raises(InputError, match=r"two groups or more, got \['drawn'\]"):
        drifts({"drawn": groups["drawn"]})
    with pytest.raises(InputError, match="'small': 4"):
        drifts(groups | {"small": torch.randn(4, 4, 2, 2)})
    with pytest.raises(InputError, match="no drift of"):
        drifts(groups)["drawn", "drawn"]
    with pytest.raises(InputError, match="kernels on both sides"):
        drifts(groups | {"zero": torch.zeros(4, 4, 3, 3)})
