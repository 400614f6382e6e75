"""Fourier transforms and complex numbers."""

from __future__ import annotations

from compressor.core.rules.call import Call, Layers
from compressor.core.rules.movement import all_but
from compressor.core.rules.table import rule

__all__: list[str] = []


@rule("aten._fft_r2c.default", "aten._fft_c2r.default", "aten._fft_c2c.default")
def transform(call: Call) -> list[Layers]:
    """Transformed along some axes; the others carry on."""
    value = call.args[0]
    axes = [axis % len(value.shape) for axis in call.args[1]]
    return [all_but(call, value, axes, "an axis of a Fourier transform")]


@rule("aten.view_as_real.default")
def as_real(call: Call) -> list[Layers]:
    """A new last axis: real and imaginary parts."""
    return [call.args[0].layers]


@rule("aten.view_as_complex.default")
def as_complex(call: Call) -> list[Layers]:
    """The last axis holds real and imaginary parts."""
    value = call.args[0]
    return [all_but(call, value, [len(value.shape) - 1], "real and imaginary parts")]
