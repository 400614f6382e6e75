"""Choosing the filters of a network: how many, how large, and what they start from."""

from compressor.design.measures import EnergyRank, ParticipationRatio, SpectralMeasure, StableRank
from compressor.design.ranks import GroupRank, SpectralRanks, WriterRank
from compressor.design.spectra import ActivationSpectra, FilterSpectra, Spectra, WriterSpectrum
from compressor.design.spectral_widths import SpectralWidths
from compressor.design.widths import LayerWidth, WidthProposal, suggest_widths

__all__ = [
    "ActivationSpectra",
    "EnergyRank",
    "FilterSpectra",
    "GroupRank",
    "LayerWidth",
    "ParticipationRatio",
    "Spectra",
    "SpectralMeasure",
    "SpectralRanks",
    "SpectralWidths",
    "StableRank",
    "WidthProposal",
    "WriterRank",
    "WriterSpectrum",
    "suggest_widths",
]
