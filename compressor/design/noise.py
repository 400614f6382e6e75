"""Independent weights of a variance that the width of the layer sets: He, Glorot, LeCun."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compressor.design.initialiser import Initialiser
from compressor.design.layer import Part
from compressor.errors import InputError

__all__ = ["GAIN_OF_RELU", "Glorot", "He", "LeCun", "check_gain"]

GAIN_OF_RELU = math.sqrt(2)


@dataclass(frozen=True)
class He(Initialiser):
    """Independent weights of variance gain² / fan: normal, or uniform within ±√3 standard deviations.

    `gain` is that of the activation that follows, √2 for ReLU; `torch.nn.init.calculate_gain` knows others.
    With `fan="out"` the variance of gradients is kept instead of that of activations.

    *Source: K. He, X. Zhang, S. Ren, J. Sun, 2015, arXiv 1502.01852, equations 10 and 14;* drawn by
    `torch.nn.init`. Departures: fans are those of a group alone, and the fan-in of a transposed convolution
    is divided by its stride, see `Part`; torch counts neither.

    >>> from compressor.design import initialise_
    >>> conv = nn.Conv2d(64, 64, 3)
    >>> _ = initialise_(conv, He())
    >>> abs(float(conv.weight.detach().var()) - 2 / 576) < 1e-4
    True
    """

    gain: float = GAIN_OF_RELU
    _: KW_ONLY
    fan: Literal["in", "out"] = "in"
    uniform: bool = False

    def __post_init__(self) -> None:
        check_gain("He", self.gain)
        if self.fan not in ("in", "out"):
            raise InputError(f"He: fan is 'in' or 'out', got {self.fan!r}")

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The rows of `torch.nn.init.kaiming_*` that are chosen."""
        new = torch.empty_like(part.filters)
        init = nn.init.kaiming_uniform_ if self.uniform else nn.init.kaiming_normal_
        mode: Literal["fan_in", "fan_out"] = "fan_in" if self.fan == "in" else "fan_out"
        init(new, mode=mode, nonlinearity="linear", generator=generator)
        spread = part.layer.stride if self.fan == "in" else 1
        return _chosen(part, new) * (self.gain * math.sqrt(spread))


@dataclass(frozen=True)
class LeCun(Initialiser):
    """Independent weights of variance 1 / fan-in, normal or uniform: He's for layers without activation.

    *Source: Y. LeCun, L. Bottou, G. Orr, K.-R. Müller, 1998, Efficient BackProp, equation 16.*

    >>> from compressor.design import initialise_
    >>> _ = initialise_(nn.Linear(8, 4), LeCun())
    """

    _: KW_ONLY
    uniform: bool = False

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """As `He(gain=1)` draws."""
        return He(1.0, uniform=self.uniform).draw(part, generator)


@dataclass(frozen=True)
class Glorot(Initialiser):
    """Independent weights of variance 2 gain² / (fan-in + fan-out), normal or uniform.

    *Source: X. Glorot, Y. Bengio, 2010, Understanding the difficulty of training deep feedforward neural
    networks, equations 12 and 16;* drawn by `torch.nn.init`, with the fans of `He`.

    >>> from compressor.design import initialise_
    >>> _ = initialise_(nn.Linear(8, 4), Glorot(nn.init.calculate_gain("tanh")))
    """

    gain: float = 1.0
    _: KW_ONLY
    uniform: bool = False

    def __post_init__(self) -> None:
        check_gain("Glorot", self.gain)

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """The rows of `torch.nn.init.xavier_*` that are chosen."""
        new = torch.empty_like(part.filters)
        init = nn.init.xavier_uniform_ if self.uniform else nn.init.xavier_normal_
        init(new, self.gain, generator=generator)
        spread = (part.size + part.fan_out) / (part.fan_in + part.fan_out)
        return _chosen(part, new) * math.sqrt(spread)


def check_gain(name: str, gain: float) -> None:
    """Raise InputError for a gain that is no positive number."""
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not 0 < gain < math.inf:
        raise InputError(f"{name}: gain must be positive and finite, got {gain!r}")


def _chosen(part: Part, filters: Tensor) -> Tensor:
    return filters[part.chosen.to(filters.device)]
