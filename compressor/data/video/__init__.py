"""Video files frame by frame (extra `video`): read, written, and enlarged without ever holding the clip."""

from __future__ import annotations

from compressor.data.video.reading import frame_rate_hz, read_frames
from compressor.data.video.upscaling import Throughput, upscale_video
from compressor.data.video.writing import VideoWriter

__all__ = ["Throughput", "VideoWriter", "frame_rate_hz", "read_frames", "upscale_video"]
