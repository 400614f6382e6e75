from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from compressor.data.ecg import (
    MedianDenoising,
    MorletBank,
    Preparation,
    Recordings,
    StackedImages,
    backbone_input,
    prepare,
    scalograms,
)
from compressor.errors import InputError


def noise(count: int = 2, samples: int = 5000) -> Recordings:
    return Recordings(
        signals_mV=torch.randn(count, 12, samples),
        labels=torch.arange(count) % 4,
        names=tuple(f"r{number}" for number in range(count)),
        classes=("SB", "AFIB", "GSVT", "SR"),
        sampling_hz=500,
    )


def test_ten_seconds_give_ten_images_of_each_recording_in_order() -> None:
    images = prepare(noise(3))
    assert images.images.shape == (30, 120, 50)
    assert images.records.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert images.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert repr(images) == "StackedImages(30 of 120x50, 3 recordings)"


def test_block_b_of_the_rows_is_lead_b_in_that_second() -> None:
    """By hand for one lead and second, from the recording on."""
    recordings = noise(2)
    images = prepare(recordings, Preparation(cleaning=()))
    signals = recordings.signals_mV[1].numpy()
    scaled = (signals - signals.mean()) / signals.std()
    for lead, second in ((0, 0), (4, 7), (11, 9)):
        window = torch.from_numpy(scaled[lead, 500 * second : 500 * (second + 1)])
        expected = scalograms(window, MorletBank(), sampling_hz=500).numpy().reshape(10, 50, 10).mean(2)
        found = images.images[10 + second, 10 * lead : 10 * (lead + 1)].numpy()
        assert np.allclose(found, expected, atol=1e-4)


def test_every_sample_can_be_kept_and_rows_follow_the_bank() -> None:
    images = prepare(noise(1), Preparation(bank=MorletBank(rows=18), columns=None))
    assert images.images.shape == (10, 216, 500)


def test_other_windows_and_steps_of_cleaning() -> None:
    how = Preparation(cleaning=(MedianDenoising(samples=3),), window_s=2.5, columns=125)
    assert prepare(noise(1), how).images.shape == (4, 120, 125)


def test_recordings_at_once_do_not_change_the_images() -> None:
    recordings = noise(3)
    assert torch.allclose(
        prepare(recordings).images, prepare(recordings, at_once=2).images, rtol=1e-4, atol=1e-5
    )


def test_a_selection_takes_recordings_whole_and_numbers_them_anew() -> None:
    images = prepare(noise(3))
    part = images.select_records([2, 0])
    assert part.names == ("r2", "r0")
    assert part.records.tolist() == [0] * 10 + [1] * 10
    assert torch.equal(part.images, torch.cat([images.images[20:], images.images[:10]]))
    assert part.labels.tolist() == [2] * 10 + [0] * 10
    assert len(images.select_records([])) == 0
    with pytest.raises(InputError, match=r"positions must lie in 0\.\.2, got 3\.\.3"):
        images.select_records([3])


def test_a_backbone_gets_three_normalised_channels() -> None:
    images = torch.rand(2, 120, 50) * 7 - 3
    images[1] = 4  # no contrast at all
    found = backbone_input(images)
    assert found.shape == (2, 3, 224, 224)
    unit = (images[0] - images[0].min()) / (images[0].max() - images[0].min())
    enlarged = F.interpolate(unit[None, None], (224, 224), mode="bilinear")[0, 0]
    assert torch.allclose(found[0, 1], (enlarged - 0.456) / 0.224, atol=1e-3)
    assert torch.allclose(found[1, 2], torch.full((224, 224), -0.406 / 0.225))
    assert backbone_input(images, size=299).shape == (2, 3, 299, 299)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"500 samples of a window do not divide into 60 columns"):
        prepare(noise(1), Preparation(columns=60))
    with pytest.raises(InputError, match=r"400 samples holds no window of 500"):
        prepare(noise(1, samples=400), Preparation(cleaning=()))
    with pytest.raises(InputError, match="at_once of 1 or more, got 1 and 0"):
        prepare(noise(1), at_once=0)
    with pytest.raises(InputError, match=r"takes images \[M, rows, columns\]"):
        backbone_input(torch.zeros(2, 1, 120, 50))
    with pytest.raises(InputError, match=r"labels \[M\] and records \[M\]"):
        StackedImages(
            images=torch.zeros(2, 3, 4),
            labels=torch.zeros(2).long(),
            records=torch.zeros(3).long(),
            names=("a",),
            classes=("x",),
        )
