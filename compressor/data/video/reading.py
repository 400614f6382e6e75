"""The frames of a video file, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.data.video.library import imageio
from compressor.errors import FileError

__all__ = ["frame_rate_hz", "read_frames"]


def read_frames(path: str | os.PathLike[str]) -> Iterator[Tensor]:
    """The frames of a video file one by one, uint8 [3, H, W]; a single one is held at a time.

    Raises FileError for a file that is missing or no video at once, and where it is damaged when it gets
    there, with the number of the frame. A file whose container does not count its frames (Matroska) may end
    early without a sign.
    """
    file = _video(path)

    def frames() -> Iterator[Tensor]:
        number = 0
        with closing(file):
            counted = file.properties().n_images or 0
            try:
                for frame in file.iter(format="rgb24"):
                    number += 1
                    yield torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).contiguous()
            except (OSError, RuntimeError, ValueError) as error:  # what PyAV raises on damaged packets
                raise FileError(
                    f"video {path}: cannot be read beyond frame {number} ({type(error).__name__}: {error}); "
                    f"it may be truncated"
                ) from error
        if number < counted:
            raise FileError(f"video {path}: ends after {number} of its {counted} frames; it is damaged")

    return frames()


def frame_rate_hz(path: str | os.PathLike[str]) -> float:
    """The frames a second that a video file says it has; raises FileError where it says nothing."""
    with closing(_video(path)) as file:
        rate = file.metadata().get("fps")
    if not rate or not rate > 0:
        raise FileError(f"video {path}: says no frame rate")
    return float(rate)


def _video(path: str | os.PathLike[str]) -> Any:
    """An opened video file."""
    library = imageio()
    if not Path(path).is_file():
        raise FileError(f"video {path}: no such file")
    try:
        return library.imopen(path, "r", plugin="pyav")
    except Exception as error:  # what PyAV raises depends on what the file is
        raise FileError(
            f"video {path}: cannot be read ({type(error).__name__}: {error}); it is truncated or no video"
        ) from error
