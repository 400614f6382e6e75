"""Twelve-lead ECGs: reading, cleaning, and stacked time-frequency images for rhythm classifiers."""

from __future__ import annotations

from compressor.data.ecg.cleaning import BaselineRemoval, Cleaner, MedianDenoising, normalize_recordings
from compressor.data.ecg.images import Preparation, StackedImages, backbone_input, prepare, stack_leads
from compressor.data.ecg.recordings import LEADS, Recording, Recordings
from compressor.data.ecg.rhythms import AFIB, GSVT, RHYTHMS, SB, SR, Disturbances, Rhythm
from compressor.data.ecg.scalograms import MorletBank, cut_windows, scalograms
from compressor.data.ecg.simulator import DOWER, simulate

__all__ = [
    "AFIB",
    "DOWER",
    "GSVT",
    "LEADS",
    "RHYTHMS",
    "SB",
    "SR",
    "BaselineRemoval",
    "Cleaner",
    "Disturbances",
    "MedianDenoising",
    "MorletBank",
    "Preparation",
    "Recording",
    "Recordings",
    "Rhythm",
    "StackedImages",
    "backbone_input",
    "cut_windows",
    "normalize_recordings",
    "prepare",
    "scalograms",
    "simulate",
    "stack_leads",
]
