"""A video file written frame by frame, whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.data.video.library import imageio
from compressor.errors import FileError, InputError

__all__ = ["VideoWriter"]


class VideoWriter:
    """A video file that is written frame by frame, and has its name only when it is whole.

    A context manager; `write(frame)` takes uint8 [3, H, W] or [1, H, W], all of one size. Where the block
    ends with an error, nothing is left. Raises InputError for other frames, and for odd sides with the
    default `pixel_format`, which halves colour in both directions; FileError where the encoder fails.

    >>> import tempfile
    >>> from compressor.data.video import frame_rate_hz, read_frames
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.mp4"
    ...     with VideoWriter(file, rate_hz=10) as video:
    ...         for level in (0, 128, 255):
    ...             video.write(torch.full((3, 32, 48), level, dtype=torch.uint8))
    ...     frame_rate_hz(file), sum(1 for _ in read_frames(file))
    (10.0, 3)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate_hz: float,
        codec: str = "libx264",
        pixel_format: str = "yuv420p",
    ) -> None:
        if not (rate_hz > 0 and rate_hz < float("inf")):
            raise InputError(f"VideoWriter: rate_hz must be positive and finite, got {rate_hz!r}")
        if not Path(path).suffix:
            raise InputError(f"VideoWriter: the suffix names the container, a.mp4 say, got {str(path)!r}")
        self._path, self._rate, self._codec, self._format = Path(path), rate_hz, codec, pixel_format
        self._file: Any = None
        self._aside = self._path.with_name(f".{secrets.token_hex(8)}{self._path.suffix}")
        self._size: tuple[int, ...] | None = None

    def __enter__(self) -> VideoWriter:
        library = imageio()
        try:
            self._file = library.imopen(self._aside, "w", plugin="pyav")
            self._file.init_video_stream(self._codec, fps=self._rate, pixel_format=self._format)
        except Exception as error:  # PyAV raises kinds of its own for unknown formats and codecs
            self._drop()
            raise FileError(f"cannot write the video {self._path}: {error}") from error
        return self

    def write(self, frame: Tensor) -> None:
        """Append one frame, uint8 [3, H, W] or [1, H, W]."""
        if frame.dtype != torch.uint8 or frame.ndim != 3 or frame.shape[0] not in (1, 3):
            raise InputError(
                f"VideoWriter: expected a frame uint8 [3, H, W] or [1, H, W], got {frame.dtype} "
                f"{list(frame.shape)}"
            )
        size = tuple(frame.shape[1:])
        if self._size not in (None, size):
            raise InputError(f"VideoWriter: a frame of {list(size)} after those of {list(self._size or ())}")
        if self._format == "yuv420p" and any(side % 2 for side in size):
            raise InputError(
                f"VideoWriter: yuv420p needs even sides, got {size[0]}x{size[1]}; crop a pixel, or "
                f"take pixel_format='yuv444p', which fewer players know"
            )
        self._size = size
        pixels = frame.expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
        try:
            self._file.write_frame(np.ascontiguousarray(pixels))
        except Exception as error:  # PyAV's own kinds again
            raise FileError(f"cannot write the video {self._path}: {error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self._size is None:
            self._drop()
            if kind is None:
                raise InputError(f"VideoWriter: no frame was written to {self._path}")
            return
        try:
            self._file.close()
            os.replace(self._aside, self._path)
        except Exception as fault:
            self._aside.unlink(missing_ok=True)
            raise FileError(f"cannot write the video {self._path}: {fault}") from fault

    def _drop(self) -> None:
        """Close what was opened, and take away what was written."""
        if self._file is not None:
            try:
                self._file.close()
            except Exception:  # an encoder that never started cannot be flushed
                self._file._container = None
        self._aside.unlink(missing_ok=True)
