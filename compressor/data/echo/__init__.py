"""Echocardiography sequences: published data, simulated clutter, a phantom, and training samples of them."""

from __future__ import annotations

from compressor.data.echo.clutter import PUBLISHED, Clutter, ClutterRanges, add_clutter, draw_clutter
from compressor.data.echo.folds import VendorFold, vendor_folds
from compressor.data.echo.phantom import Phantom, phantoms
from compressor.data.echo.published_tree import (
    MOTIONS,
    MotionFold,
    PublishedTree,
    read_published_tree,
)
from compressor.data.echo.sector import sector_mask
from compressor.data.echo.sequences import Sequences
from compressor.data.echo.video_panels import VideoPanels, load_echo_clutter_npz
from compressor.data.echo.windows import CleanWindows, PairedWindows, Windowing, windows

__all__ = [
    "MOTIONS",
    "PUBLISHED",
    "CleanWindows",
    "Clutter",
    "ClutterRanges",
    "MotionFold",
    "PairedWindows",
    "Phantom",
    "PublishedTree",
    "Sequences",
    "VendorFold",
    "VideoPanels",
    "Windowing",
    "add_clutter",
    "draw_clutter",
    "load_echo_clutter_npz",
    "phantoms",
    "read_published_tree",
    "sector_mask",
    "vendor_folds",
    "windows",
]
