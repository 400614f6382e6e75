from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import find_peaks
from torch import Tensor

from compressor.data.ecg import AFIB, GSVT, LEADS, RHYTHMS, SB, SR, Disturbances, Rhythm, simulate
from compressor.errors import InputError

CLEAN = Disturbances.none()


def signals(
    *rhythms: Rhythm, seed: int = 0, added: Disturbances | None = CLEAN, seconds: float = 10
) -> Tensor:
    """Recordings [N, 12, T] of these rhythms, one of each."""
    generator = torch.Generator().manual_seed(seed)
    made = simulate(
        range(len(rhythms)), generator=generator, rhythms=rhythms, disturbances=added, seconds=seconds
    )
    return made.signals_mV


def spectra(signals: Tensor) -> Tensor:
    """Powers at 0, 0.1, 0.2 ... Hz of ten seconds; the window keeps what leaks away from a line small."""
    return torch.fft.rfft(signals * torch.hann_window(5000, dtype=signals.dtype)).abs().square()


def r_waves_s(signal_12T: Tensor) -> np.ndarray:
    """When the R waves are, found as the peaks of the vector that the eight leads show."""
    size = signal_12T.double().square().sum(0).sqrt().numpy()
    peaks, _ = find_peaks(size, height=0.6 * size.max(), distance=75)
    return peaks / 500


def test_limb_leads_follow_from_two_with_all_disturbances() -> None:
    lead = dict(zip(LEADS, signals(*RHYTHMS, added=Disturbances()).unbind(1), strict=True))
    assert torch.equal(lead["III"], lead["II"] - lead["I"])
    assert torch.equal(lead["aVR"], -(lead["I"] + lead["II"]) / 2)
    assert torch.equal(lead["aVL"], lead["I"] - lead["II"] / 2)
    assert torch.equal(lead["aVF"], lead["II"] - lead["I"] / 2)
    torch.testing.assert_close(
        lead["aVR"] + lead["aVL"] + lead["aVF"], torch.zeros(4, 5000), atol=1e-6, rtol=0
    )


def test_clean_leads_are_views_of_one_vector() -> None:
    # Twelve leads, three dimensions: the fourth singular value of a clean recording is zero.
    for signal in signals(*RHYTHMS).double():
        values = torch.linalg.svdvals(signal)
        assert values[2] > 0.01 * values[0] and values[3] < 1e-5 * values[0]


@pytest.mark.parametrize("rhythm", RHYTHMS, ids=lambda rhythm: rhythm.name)
def test_rates_and_regularity_are_those_of_the_rhythm(rhythm: Rhythm) -> None:
    generator = torch.Generator().manual_seed(1)
    made = simulate([0] * 40, generator=generator, rhythms=[rhythm], disturbances=CLEAN, seconds=30)
    intervals = [np.diff(r_waves_s(signal)) for signal in made.signals_mV]
    rates = np.array([60 / rr.mean() for rr in intervals])
    variations = np.array([rr.std() / rr.mean() for rr in intervals])
    slack = 1 + 3 * max(rhythm.rr_variation) / np.sqrt(20)  # the mean of 20 intervals or more
    assert rates.min() > rhythm.rate_bpm[0] / slack and rates.max() < rhythm.rate_bpm[1] * slack
    assert rates.max() - rates.min() > 0.7 * (rhythm.rate_bpm[1] - rhythm.rate_bpm[0])
    assert variations.mean() == pytest.approx(np.mean(rhythm.rr_variation), rel=0.15, abs=0.002)


def test_intervals_of_fibrillation_are_independent_and_never_too_short() -> None:
    wild = replace(AFIB, rate_bpm=(140, 140), rr_variation=(0.3, 0.3))
    rr = np.concatenate([np.diff(r_waves_s(s)) for s in signals(*[wild] * 20, seconds=60)])
    assert rr.min() > 0.2 - 0.005  # two samples: where a peak is seen
    assert abs(np.corrcoef(rr[:-1], rr[1:])[0, 1]) < 0.06


def test_fibrillatory_waves_lie_in_their_band_and_have_their_size() -> None:
    rhythms = [AFIB] * 12
    calm = [replace(rhythm, f_waves_mV=(0.0, 0.0)) for rhythm in rhythms]
    waves = (signals(*rhythms) - signals(*calm)).double()  # all else is drawn alike
    power = spectra(waves)
    hz = torch.fft.rfftfreq(5000, 1 / 500)
    band = (hz >= 4.0) & (hz <= 9.0)
    share = power[..., band].sum((1, 2)) / power.sum((1, 2))
    assert share.min() > 0.99
    main = hz[power.sum(1).argmax(1)]
    assert main.min() >= 4.2 and main.max() <= 8.8 and main.max() - main.min() > 1.5
    largest = waves.abs().amax((1, 2))  # the longest lead vector has length 1.57
    assert largest.min() > 0.04 * 0.5 and largest.max() <= 0.10 * 1.57


def test_p_waves_are_there_halved_or_absent() -> None:
    def before_r(rhythm: Rhythm) -> Tensor:
        """The largest size of the vector 160 ms before each R wave."""
        signal = signals(rhythm, seed=3)[0].double()
        size = signal.square().sum(0).sqrt()
        places = [round(500 * (t - 0.16)) for t in r_waves_s(signal)[1:-1]]
        return torch.stack([size[place - 5 : place + 6].max() for place in places])

    whole, half, none = (replace(SR, p_sizes=(size,)) for size in (1.0, 0.5, 0.0))
    assert before_r(whole).min() > 0.1
    torch.testing.assert_close(before_r(half), before_r(whole) / 2, rtol=0.02, atol=0)
    assert before_r(none).max() < 1e-3
    assert before_r(replace(AFIB, f_waves_mV=(0.0, 0.0), rr_variation=(0.01, 0.01))).max() < 1e-3
    assert set(GSVT.p_sizes) == {0.0, 0.5} and set(SB.p_sizes) == {1.0}


def test_disturbances_have_their_size_and_frequency() -> None:
    def added(**options: object) -> Tensor:
        one = Disturbances.none()
        return (signals(*[SR] * 8, added=replace(one, **options)) - signals(*[SR] * 8)).double()[:, 6:]

    assert added(noise_mV=0.02).std() == pytest.approx(0.02, rel=0.02)
    mains = added(mains_mV=0.01)
    assert mains.abs().max() == pytest.approx(0.01, rel=0.01)
    assert torch.fft.rfft(mains).abs().sum((0, 1)).argmax() == 500  # 50 Hz in 10 s
    wander = added(wander_mV=(0.1, 0.5))
    power = spectra(wander).sum((0, 1))
    assert power[:7].sum() / power.sum() > 0.999  # up to 0.6 Hz
    assert wander.abs().max() <= 0.5 and wander.abs().amax(2).min() > 0.09


def test_the_generator_decides_and_nothing_else() -> None:
    one, other, third = signals(*RHYTHMS), signals(*RHYTHMS), signals(*RHYTHMS, seed=1)
    torch.manual_seed(5)
    assert torch.equal(one, other) and torch.equal(one, signals(*RHYTHMS))
    assert not torch.equal(one, third)


def test_persons_differ_and_are_numbered() -> None:
    made = simulate([3] * 130, generator=torch.Generator().manual_seed(0), seconds=2)
    assert made.subjects is not None and made.subjects.tolist() == list(range(130))
    assert made.duplicates() == () and made.names[7] == "simulated-007"
    assert made.classes == ("SB", "AFIB", "GSVT", "SR") and made.sampling_hz == 500


def test_a_beat_is_a_sum_of_gaussians_at_the_edges_too() -> None:
    # A naive sum over all samples and beats, against the one that looks near the middles only.
    from compressor.data.ecg.simulator import _gaussians

    middle = torch.tensor([[-0.02, 0.5, 0.99], [0.25, 0.26, 5.0]], dtype=torch.float64)
    width = torch.tensor([[0.05, 0.02, 0.03], [0.01, 0.02, 0.05]], dtype=torch.float64)
    time = torch.arange(500) / 500
    naive = torch.exp(-0.5 * ((time - middle[..., None]) / width[..., None]).square()).sum(1)
    torch.testing.assert_close(_gaussians(middle, width, 500, 500), naive, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": [0, 4]}, r"labels must lie in 0\.\.3, got 0\.\.4"),
        ({"labels": [-1]}, r"got -1\.\.-1"),
        ({"labels": []}, "labels must be whole numbers"),
        ({"labels": [0.5]}, "labels must be whole numbers"),
        ({"labels": [0], "seconds": 0.5}, "a second or more"),
        ({"labels": [0], "sampling_hz": 50}, "at 100 Hz or more"),
    ],
)
def test_what_cannot_be_simulated(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(**{"generator": torch.Generator(), **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_bpm": (80, 60)}, r"rhythm SR: rate_bpm must be \(low, high\)"),
        ({"rate_bpm": (0, 60)}, "20 <= low"),
        ({"rr_variation": (-0.1, 0.1)}, "rr_variation"),
        ({"f_waves_mV": (0.1, float("inf"))}, "f_waves_mV"),
        ({"p_sizes": ()}, "p_sizes must be one size or more"),
    ],
)
def test_ranges_that_make_no_rhythm(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(SR, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Disturbances: noise_mV"):
        Disturbances(noise_mV=-1)
