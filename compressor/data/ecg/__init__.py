"""Twelve-lead ECGs: reading, cleaning, and stacked time-frequency images for rhythm classifiers."""

from __future__ import annotations

from compressor.data.ecg.archives import LUDB_RHYTHM_CLASSES, load_cinc2021_npz, load_ludb_npz
from compressor.data.ecg.cleaning import BaselineRemoval, Cleaner, MedianDenoising, normalize_recordings
from compressor.data.ecg.collecting import Collection, LeftOut, collect, fit_length
from compressor.data.ecg.diagnoses import RHYTHM_CLASSES, RHYTHM_DIAGNOSES, Diagnosis, rhythm_classes
from compressor.data.ecg.images import Preparation, StackedImages, backbone_input, prepare, stack_leads
from compressor.data.ecg.quality import Fault, QualityLimits, limb_lead_error, signal_fault
from compressor.data.ecg.recordings import LEADS, Recording, Recordings
from compressor.data.ecg.rhythms import AFIB, GSVT, RHYTHMS, SB, SR, Disturbances, Rhythm
from compressor.data.ecg.scalograms import MorletBank, cut_windows, scalograms
from compressor.data.ecg.simulator import DOWER, simulate
from compressor.data.ecg.splitting import (
    Fold,
    folds_by_record,
    split_by_record,
    split_images_leaking_records,
)
from compressor.data.ecg.wfdb_files import read_recording, read_recordings

__all__ = [
    "AFIB",
    "DOWER",
    "GSVT",
    "LEADS",
    "LUDB_RHYTHM_CLASSES",
    "RHYTHMS",
    "RHYTHM_CLASSES",
    "RHYTHM_DIAGNOSES",
    "SB",
    "SR",
    "BaselineRemoval",
    "Cleaner",
    "Collection",
    "Diagnosis",
    "Disturbances",
    "Fault",
    "Fold",
    "LeftOut",
    "MedianDenoising",
    "MorletBank",
    "Preparation",
    "QualityLimits",
    "Recording",
    "Recordings",
    "Rhythm",
    "StackedImages",
    "backbone_input",
    "collect",
    "cut_windows",
    "fit_length",
    "folds_by_record",
    "limb_lead_error",
    "load_cinc2021_npz",
    "load_ludb_npz",
    "normalize_recordings",
    "prepare",
    "read_recording",
    "read_recordings",
    "rhythm_classes",
    "scalograms",
    "signal_fault",
    "simulate",
    "split_by_record",
    "split_images_leaking_records",
    "stack_leads",
]
