"""Filter analysis: what the filters of a network, or of a billion networks' layers, are worth."""

from compressor.filters.bank import FilterBank, kernel_matrix
from compressor.filters.depths import conv_depths
from compressor.filters.modules import banks
from compressor.filters.moments import Moments

__all__ = ["FilterBank", "Moments", "banks", "conv_depths", "kernel_matrix"]
