"""Twelve-lead ECGs: reading, cleaning, and stacked time-frequency images for rhythm classifiers."""

from __future__ import annotations

from compressor.data.ecg.recordings import LEADS, Recording, Recordings

__all__ = ["LEADS", "Recording", "Recordings"]
