"""Twelve-lead ECGs of four rhythms, simulated: for tests, demonstrations and small trainings.

A heart vector in Frank's axes (X to the left, Y to the feet, Z to the back, mV) is the sum of Gaussians P, Q,
R, S and T of each beat, each along a direction that every person has of its own. It is projected onto eight
leads; the other four follow from I and II. Sizes of waves are our choice where no source is named: what a
network learns from them is rate, regularity and P waves in textbook shapes, not a diagnosis.

Legend: N recordings, B beats of each, L leads, T samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.data.ecg.recordings import Recordings
from compressor.data.ecg.rhythms import RHYTHMS, Disturbances, Range, Rhythm
from compressor.errors import InputError

__all__ = ["DOWER", "simulate"]

# What I, II, V1 ... V6 see of the vector (X, Y, Z). Source: G. E. Dower, H. B. Machado, J. A. Osborne 1980,
# "On deriving the electrocardiogram from vectorcardiographic leads", Clinical Cardiology 3, 87-95.
DOWER = (
    (0.632, -0.235, 0.059),
    (0.235, 1.066, -0.132),
    (-0.515, 0.157, -0.917),
    (0.044, 0.164, -1.387),
    (0.882, 0.098, -1.277),
    (1.213, 0.127, -0.601),
    (1.125, 0.127, -0.086),
    (0.831, 0.076, 0.230),
)


@dataclass(frozen=True)
class _Wave:
    """One Gaussian of a beat: where its vector points in the mean (X, Y, Z), its size and width."""

    direction: tuple[float, float, float]
    size_mV: Range
    width_s: Range = (0.012, 0.020)


_P = _Wave((0.6, 0.8, 0.0), (0.08, 0.18), (0.022, 0.022))
_Q = _Wave((-0.4, -0.1, -0.9), (0.10, 0.25))
_R = _Wave((0.75, 0.55, 0.35), (1.0, 1.8))
_S = _Wave((-0.4, -0.2, 0.9), (0.15, 0.40))
_T = _Wave((0.7, 0.5, -0.5), (0.20, 0.45))  # its width follows from QT
_F = (-0.4, 0.5, -0.8)  # where fibrillatory waves point: to V1, next to the right atrium
_SPREAD = 0.25  # of directions between persons, before they are made unit vectors
_P_BEFORE_R_S, _Q_BEFORE_R_S, _S_AFTER_R_S = 0.16, 0.028, 0.030
_REACH = 5.0  # a Gaussian is nothing (4e-6) so many widths from its middle
_SHORTEST_RR_S = 0.2
_BEFORE_S, _AFTER_S = 1.5, 0.5  # beats are made from so long before the start until so long after the end
_F_DEVIATION_HZ, _F_MODULATION_HZ = 0.2, 0.2  # how far and how fast the frequency of f waves changes
_CHUNK = 128  # recordings that are made at once, for the memory


def simulate(
    labels: Sequence[int] | Tensor,
    *,
    generator: torch.Generator,
    rhythms: Sequence[Rhythm] = RHYTHMS,
    disturbances: Disturbances | None = None,
    seconds: float = 10.0,
    sampling_hz: int = 500,
) -> Recordings:
    """One recording of another person for each of `labels`, which are positions in `rhythms`.

    RR intervals are log-normal and independent, 0.2 s at least. The T wave's middle lies 0.75·QT behind the
    R wave, its width is 0.12·QT, with QT = 0.39·√RR seconds of the interval before it. III, aVR, aVL and aVF
    follow from I and II with all that disturbs those, as in a recorder. `generator` (of the CPU) is drawn
    from in the same way whatever the sizes in `rhythms` and `disturbances` are, so that two calls from one
    seed differ by these alone.

    Raises InputError for labels that are no rhythm, no labels, less than a second, or less than 100 Hz.

    *Sources: the projection, Dower et al. 1980 (see `DOWER`); beats as sums of Gaussians, P. E. McSharry et
    al. 2003, IEEE Transactions on Biomedical Engineering 50, 289-294. Departure from the latter: a heart
    vector in time instead of one lead on a limit cycle.*

    >>> simulate([0, 1, 2, 3], generator=torch.Generator().manual_seed(0))
    Recordings(4 of 10 s at 500 Hz: 1 SB, 1 AFIB, 1 GSVT, 1 SR)
    """
    own = torch.as_tensor(labels).cpu()
    _check(own, rhythms, seconds, sampling_hz)
    time_T = torch.arange(round(seconds * sampling_hz), dtype=torch.float64) / sampling_hz
    added = Disturbances() if disturbances is None else disturbances
    parts = []
    for part in own.split(_CHUNK):
        person = _People(tuple(rhythms[label] for label in part.tolist()), generator)
        vector_N3T = person.beats(time_T, sampling_hz) + person.f_waves(time_T)
        seen_NLT = torch.einsum("lx,nxt->nlt", torch.tensor(DOWER, dtype=torch.float64), vector_N3T)
        parts.append(_twelve((seen_NLT + person.disturbed(time_T, added)).float()))
    digits = len(str(len(own) - 1))
    return Recordings(
        signals_mV=torch.cat(parts),
        labels=own.long(),
        names=tuple(f"simulated-{number:0{digits}}" for number in range(len(own))),
        classes=tuple(rhythm.name for rhythm in rhythms),
        sampling_hz=sampling_hz,
        subjects=torch.arange(len(own)),
    )


class _People:
    """Draws for a few recordings, and the parts of their signals."""

    def __init__(self, rhythms: Sequence[Rhythm], generator: torch.Generator) -> None:
        self._rhythms, self._generator = rhythms, generator

    def beats(self, time_T: Tensor, sampling_hz: int) -> Tensor:
        """The heart vector [N, 3, T] of all beats."""
        rr_NB, r_NB = self._intervals(float(time_T[-1]))
        qt_NB = 0.39 * rr_NB.sqrt()
        p_N = self._p_sizes()
        shifts: dict[_Wave, float | Tensor] = {
            _P: -_P_BEFORE_R_S,
            _Q: -_Q_BEFORE_R_S,
            _R: 0.0,
            _S: _S_AFTER_R_S,
            _T: 0.75 * qt_NB,
        }
        vector_N3T = torch.zeros(len(r_NB), 3, len(time_T), dtype=torch.float64)
        for wave, shift in shifts.items():
            size_N = self._between([wave.size_mV] * len(r_NB)) * (p_N if wave is _P else 1)
            width_N1 = self._between([wave.width_s] * len(r_NB))[:, None]
            width_NB = 0.12 * qt_NB if wave is _T else width_N1.expand_as(r_NB)
            bumps_NT = _gaussians(r_NB + shift, width_NB, len(time_T), sampling_hz)
            vector_N3T += (size_N[:, None] * self._directions(wave.direction))[:, :, None] * bumps_NT[:, None]
        return vector_N3T

    def f_waves(self, time_T: Tensor) -> Tensor:
        """The heart vector [N, 3, T] of the fibrillating atria: a sine whose frequency wanders a little."""
        size_N, hz_N = (
            self._between([getattr(rhythm, name) for rhythm in self._rhythms])
            for name in ("f_waves_mV", "f_waves_hz")
        )
        first_N1, second_N1 = (2 * math.pi * self._uniform(len(size_N))[:, None] for _ in range(2))
        slow_NT = torch.sin(2 * math.pi * _F_MODULATION_HZ * time_T + second_N1)
        phase_NT = 2 * math.pi * hz_N[:, None] * time_T + _F_DEVIATION_HZ / _F_MODULATION_HZ * slow_NT
        wave_NT = size_N[:, None] * torch.sin(phase_NT + first_N1)
        return self._directions(_F)[:, :, None] * wave_NT[:, None]

    def disturbed(self, time_T: Tensor, added: Disturbances) -> Tensor:
        """What is added to the eight leads [N, L, T]."""
        shape = (len(self._rhythms), len(DOWER))
        pairs = [added.wander_mV] * math.prod(shape), [added.wander_hz] * math.prod(shape)
        size_NL, hz_NL = (self._between(pair).view(*shape, 1) for pair in pairs)
        first_NL, second_NL = (2 * math.pi * self._uniform(*shape, 1) for _ in range(2))
        wander_NLT = size_NL * torch.sin(2 * math.pi * hz_NL * time_T + first_NL)
        mains_NLT = added.mains_mV * torch.sin(2 * math.pi * added.mains_hz * time_T + second_NL)
        noise_NLT = torch.randn(*shape, len(time_T), generator=self._generator)
        return wander_NLT + mains_NLT + added.noise_mV * noise_NLT

    def _intervals(self, end_s: float) -> tuple[Tensor, Tensor]:
        """RR intervals and the R waves that end them, in seconds, both [N, B]."""
        rate_N, variation_N = (
            self._between([getattr(rhythm, name) for rhythm in self._rhythms])
            for name in ("rate_bpm", "rr_variation")
        )
        most = math.ceil((end_s + _BEFORE_S + _AFTER_S + 3.0) / _SHORTEST_RR_S)
        normal_NB = torch.randn(len(rate_N), most, generator=self._generator, dtype=torch.float64)
        mean_N1 = 60 / rate_N[:, None]
        # Of a log-normal number with standard deviation v and mean 1.
        spread_N1 = variation_N[:, None].square().log1p().sqrt()
        rr_NB = mean_N1 * torch.exp(spread_N1 * normal_NB - spread_N1.square() / 2)
        rr_NB = rr_NB.clamp(min=_SHORTEST_RR_S)
        start_N1 = -_BEFORE_S - self._uniform(len(rate_N), 1) * mean_N1
        return rr_NB, start_N1 + rr_NB.cumsum(1)

    def _p_sizes(self) -> Tensor:
        sizes = [rhythm.p_sizes for rhythm in self._rhythms]
        draws = self._uniform(len(sizes)).tolist()
        return torch.tensor([size[int(u * len(size))] for size, u in zip(sizes, draws, strict=True)])

    def _directions(self, mean: tuple[float, float, float]) -> Tensor:
        """Unit vectors [N, 3] around `mean`."""
        away_N3 = torch.randn(len(self._rhythms), 3, generator=self._generator, dtype=torch.float64)
        direction_N3 = torch.tensor(mean, dtype=torch.float64) + _SPREAD * away_N3
        return torch.nn.functional.normalize(direction_N3, dim=1)

    def _between(self, ranges: Sequence[Range]) -> Tensor:
        low, high = torch.tensor(ranges, dtype=torch.float64).unbind(1)
        return torch.lerp(low, high, self._uniform(len(ranges)))

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self._generator, dtype=torch.float64)


def _gaussians(middle_NB: Tensor, width_NB: Tensor, samples: int, sampling_hz: int) -> Tensor:
    """Sums [N, T] of Gaussians of height 1, computed only where they are not zero."""
    reach = math.ceil(_REACH * float(width_NB.max()) * sampling_hz)
    nearest_NB = (middle_NB * sampling_hz).round().long()
    number, beat = ((nearest_NB >= -reach) & (nearest_NB < samples + reach)).nonzero(as_tuple=True)
    middle_M1, width_M1 = middle_NB[number, beat][:, None], width_NB[number, beat][:, None]
    sample_MK = nearest_NB[number, beat][:, None] + torch.arange(-reach, reach + 1)
    height_MK = torch.exp(-0.5 * ((sample_MK / sampling_hz - middle_M1) / width_M1).square())
    there_MK = (sample_MK >= 0) & (sample_MK < samples)
    total = torch.zeros(len(middle_NB) * samples, dtype=torch.float64)
    total.index_add_(0, (number[:, None] * samples + sample_MK)[there_MK], height_MK[there_MK])
    return total.view(len(middle_NB), samples)


def _twelve(measured_NLT: Tensor) -> Tensor:
    """I, II, III, aVR, aVL, aVF, V1 ... V6 from I, II, V1 ... V6: Einthoven's and Goldberger's leads."""
    one, two = measured_NLT[:, 0], measured_NLT[:, 1]
    limbs = torch.stack((one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2), dim=1)
    return torch.cat((limbs, measured_NLT[:, 2:]), dim=1)


def _check(labels: Tensor, rhythms: Sequence[Rhythm], seconds: float, sampling_hz: int) -> None:
    if labels.ndim != 1 or not len(labels) or labels.is_floating_point():
        raise InputError(
            f"simulate: labels must be whole numbers [N], one for each recording, got {labels.dtype} "
            f"{list(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(rhythms):
        raise InputError(f"simulate: labels must lie in 0..{len(rhythms) - 1}, got {low}..{high}")
    if not 1 <= seconds < math.inf or sampling_hz < 100:
        raise InputError(
            f"simulate: expected a second or more at 100 Hz or more, got {seconds} s at {sampling_hz} Hz"
        )
