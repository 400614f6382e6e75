"""imageio with its PyAV plugin, imported only when a video is read or written."""

from __future__ import annotations

from typing import Any

from compressor.extras import imported

__all__ = ["imageio"]


def imageio() -> Any:
    """The module imageio.v3; raises MissingExtraError where it or PyAV is absent."""
    imported("av", extra="video", needed_for="work with video files")
    return imported("imageio.v3", extra="video", needed_for="work with video files")
