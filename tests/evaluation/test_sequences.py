"""Scores of sequences: a naive loop, and what was measured on the authors' videos."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.data.echo import load_echo_clutter_npz
from compressor.errors import InputError
from compressor.evaluation import sequence_quality, temporal_coherence

# Vendor: MAE, PSNR and coherence of the cluttered sequence, the authors' 3-D and their 2-D filter.
MEASURED = {
    "GE": ((5.24, 2.96, 2.35), (22.5, 31.3, 34.1), (1835, 1516, 1715)),
    "Hitachi": ((6.06, 1.63, 2.16), (20.8, 38.5, 34.1), (1932, 1492, 1598)),
    "Philips": ((6.02, 1.83, 1.92), (21.0, 36.9, 35.6), (1649, 1377, 1626)),
    "Samsung": ((5.94, 1.60, 2.02), (21.0, 38.8, 34.8), (1809, 1519, 1525)),
    "Siemens": ((5.70, 2.02, 2.29), (20.9, 34.2, 32.0), (1650, 1089, 1197)),
    "Toshiba": ((5.01, 1.94, 2.27), (21.6, 34.1, 31.7), (1571, 1249, 1394)),
}


def test_the_scores_are_those_of_a_naive_loop() -> None:
    outputs, clean = (torch.rand(3, 1, 5, 6, 4, dtype=torch.float64) for _ in range(2))
    found = sequence_quality(outputs, clean)
    errors = 255 * np.abs(outputs.numpy() - clean.numpy())
    scores = []
    for one in errors:
        sums = [one[..., frame].sum() for frame in range(4)]
        scores.append(np.mean([abs(sums[frame] - sums[frame + 1]) for frame in range(3)]))
    assert found.mae == pytest.approx(errors.mean())
    assert found.psnr_db == pytest.approx(
        np.mean([10 * math.log10(255**2 / np.mean(one**2)) for one in errors])
    )
    assert found.coherence == pytest.approx(np.mean(scores))
    np.testing.assert_allclose(temporal_coherence(outputs, clean).numpy(), scores)


def test_both_scores_refuse_grey_levels() -> None:
    clean = torch.full((1, 1, 2, 2, 2), 200.0)
    for score in (sequence_quality, temporal_coherence):
        with pytest.raises(InputError, match="divide grey levels by 255"):
            score(clean, clean)


def test_outputs_are_clipped_as_they_are_shown_unless_asked() -> None:
    clean = torch.full((1, 1, 2, 2, 2), 1.0)
    outputs = torch.full((1, 1, 2, 2, 2), 1.1)
    assert sequence_quality(outputs, clean).mae == 0
    assert sequence_quality(outputs, clean, clip=False).mae == pytest.approx(25.5, rel=1e-4)


@pytest.mark.parametrize(
    ("outputs", "clean", "message"),
    [
        (torch.zeros(1, 1, 4, 4, 3), torch.zeros(1, 1, 4, 4, 2), "two tensors"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), "two tensors"),
        (torch.zeros(1, 1, 4, 4, 1), torch.zeros(1, 1, 4, 4, 1), "two frames are needed"),
        (torch.zeros(1, 1, 4, 4, 2), torch.full((1, 1, 4, 4, 2), 99.0), r"0\.\.1, got 99\.\.99"),
        (torch.full((1, 1, 4, 4, 2), math.inf), torch.zeros(1, 1, 4, 4, 2), "outputs hold values"),
        (torch.zeros(1, 1, 4, 4, 2), torch.full((1, 1, 4, 4, 2), math.nan), "clean hold values"),
        (torch.zeros(1, 1, 4, 4, 2).byte(), torch.zeros(1, 1, 4, 4, 2), "got torch.uint8"),
    ],
)
def test_what_cannot_be_scored_is_refused(outputs: torch.Tensor, clean: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sequence_quality(outputs, clean)


def test_the_authors_outputs_have_the_scores_measured_on_their_videos(shared: Path) -> None:
    """Letters at the top left put to black, black pixels counted, numbers to the last digit given."""
    panels = load_echo_clutter_npz(shared / "data/echo_clutter/echo_clutter.npz")
    for vendor, (maes, psnrs, coherences) in MEASURED.items():
        clean = panels.clean.of(vendor).unit()
        for place, panel in enumerate((panels.cluttered, panels.filtered_3d, panels.filtered_2d)):
            found = sequence_quality(panel.of(vendor).unit(), clean)
            assert found.mae == pytest.approx(maes[place], abs=0.005)
            assert found.psnr_db == pytest.approx(psnrs[place], abs=0.05)
            assert found.coherence == pytest.approx(coherences[place], abs=1)


def test_at_half_the_size_toshibas_scores_are_those_measured(shared: Path) -> None:
    panels = load_echo_clutter_npz(shared / "data/echo_clutter/echo_clutter.npz")
    clean = panels.clean.of("Toshiba").halved().unit()
    for panel, mae, psnr in (
        (panels.cluttered, 4.69, 21.75),
        (panels.filtered_3d, 1.61, 34.75),
        (panels.filtered_2d, 1.93, 32.07),
    ):
        found = sequence_quality(panel.of("Toshiba").halved().unit(), clean)
        assert found.mae == pytest.approx(mae, abs=0.005)
        assert found.psnr_db == pytest.approx(psnr, abs=0.005)
