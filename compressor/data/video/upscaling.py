"""Videos enlarged frame by frame by a network for luminance, and how fast that was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from compressor.data.images.upscaling import Upscaler, upscale_colour
from compressor.data.video.reading import frame_rate_hz, read_frames
from compressor.data.video.writing import VideoWriter
from compressor.errors import InputError

__all__ = ["Throughput", "upscale_video"]


@dataclass(frozen=True)
class Throughput:
    """How many frames were enlarged, and the seconds (wall clock) that each part of it took.

    >>> print(Throughput(30, decode_s=1.0, upscale_s=3.0, encode_s=2.0))
    30 frames, 5.0 a second (decode 30.0, upscale 10.0, encode 15.0)
    """

    frames: int
    decode_s: float
    upscale_s: float
    encode_s: float

    @property
    def fps(self) -> float:
        """Frames a second, everything together."""
        return self._fps(self.decode_s + self.upscale_s + self.encode_s)

    @property
    def decode_fps(self) -> float:
        """Frames a second that could be read."""
        return self._fps(self.decode_s)

    @property
    def upscale_fps(self) -> float:
        """Frames a second that could be enlarged, colour included."""
        return self._fps(self.upscale_s)

    @property
    def encode_fps(self) -> float:
        """Frames a second that could be written."""
        return self._fps(self.encode_s)

    def __str__(self) -> str:
        parts = f"decode {self.decode_fps:.1f}, upscale {self.upscale_fps:.1f}, encode {self.encode_fps:.1f}"
        return f"{self.frames} frames, {self.fps:.1f} a second ({parts})"

    def _fps(self, seconds: float) -> float:
        return self.frames / seconds if seconds > 0 else float("inf")


def upscale_video(
    source: str | os.PathLike[str] | Iterable[Tensor],
    target: str | os.PathLike[str],
    upscale: Upscaler,
    *,
    rate_hz: float | None = None,
    device: torch.device | str = "cpu",
    max_frames: int | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    progress: Callable[[int], None] | None = None,
) -> Throughput:
    """How fast the frames of `source`, a file or an iterable, went through `upscale` into the file `target`.

    One frame is held at a time, and goes through `upscale_colour` on `device`: a module there in eval mode,
    or any function of luminance [1, 1, h, w], such as a call of an onnxruntime session. `rate_hz` is that of
    the source unless given; an iterable has none. The file appears whole or not at all; sound is not copied.
    `progress(frames so far)` is called after every frame.

    Source: Shi et al. 2016, arXiv 1609.05158, section 3.4: video is enlarged frame by frame.

    >>> import tempfile
    >>> frames = (torch.full((3, 16, 24), level, dtype=torch.uint8) for level in range(5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     upscale_video(frames, f"{folder}/a.mp4", torch.nn.Upsample(scale_factor=2), rate_hz=10).frames
    5
    """
    if max_frames is not None and max_frames < 1:
        raise InputError(f"upscale_video: max_frames must be at least 1, got {max_frames}")
    if isinstance(source, str | os.PathLike):
        rate_hz = frame_rate_hz(source) if rate_hz is None else rate_hz
        frames = read_frames(source)
    else:
        frames = iter(source)
    if rate_hz is None:
        raise InputError("upscale_video: frames without a file have no rate; give rate_hz=25, say")
    spent = [0.0, 0.0, 0.0]
    count = 0
    with VideoWriter(target, rate_hz=rate_hz, codec=codec, pixel_format=pixel_format) as video:
        while count != max_frames:
            start = perf_counter()
            frame = next(frames, None)
            decoded = perf_counter()
            if frame is None:
                break
            large = upscale_colour(frame[None].to(device), upscale)[0].cpu()
            upscaled = perf_counter()
            video.write(large)
            written = perf_counter()
            for part, seconds in enumerate((decoded - start, upscaled - decoded, written - upscaled)):
                spent[part] += seconds
            count += 1
            if progress is not None:
                progress(count)
    return Throughput(count, *spent)
