from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.data.images import resize, rgb_to_ycbcr, upscale_colour, ycbcr_to_rgb
from compressor.data.video import Throughput, VideoWriter, frame_rate_hz, read_frames, upscale_video
from compressor.errors import FileError, InputError


def clip(frames: int = 12, height: int = 32, width: int = 48) -> Iterator[Tensor]:
    """Smooth frames, each brighter than the one before."""
    ramp = torch.linspace(0, 60, width).expand(3, height, width)
    for number in range(frames):
        yield (ramp + 15 * number).to(torch.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    with VideoWriter(tmp_path / "clip.mp4", rate_hz=12.5) as video:
        for frame in clip():
            video.write(frame)
    return tmp_path / "clip.mp4"


def test_frames_come_back_in_order_and_nearly_as_they_were(file: Path) -> None:
    found = list(read_frames(file))
    assert len(found) == 12 and frame_rate_hz(file) == 12.5
    for ours, theirs in zip(clip(), found, strict=True):
        assert theirs.dtype == torch.uint8 and theirs.shape == (3, 32, 48)
        assert (ours.float() - theirs.float()).abs().mean() < 3  # it is compressed


def test_frames_are_read_one_at_a_time(file: Path) -> None:
    frames = read_frames(file)
    next(frames)
    assert frames.gi_frame is not None  # type: ignore[attr-defined]  # a generator, stopped after the first
    frames.close()  # type: ignore[attr-defined]


def test_a_video_is_enlarged_frame_by_frame_and_never_held(file: Path) -> None:
    held: list[int] = []
    written: list[int] = []

    def frames() -> Iterator[Tensor]:
        for number, frame in enumerate(clip()):
            held.append(number - len(written))
            yield frame

    found = upscale_video(
        frames(), file.parent / "large.mp4", nn.Upsample(scale_factor=2), rate_hz=5, progress=written.append
    )
    assert found.frames == 12 and held == [0] * 12 and written == list(range(1, 13))
    assert found.fps < min(found.decode_fps, found.upscale_fps, found.encode_fps)
    large = list(read_frames(file.parent / "large.mp4"))
    assert large[0].shape == (3, 64, 96) and frame_rate_hz(file.parent / "large.mp4") == 5


def test_rate_and_size_follow_from_the_source_and_the_upscaler(file: Path) -> None:
    target = file.parent / "large.mp4"
    found = upscale_video(file, target, nn.Upsample(scale_factor=3), max_frames=4)
    assert found.frames == 4 and frame_rate_hz(target) == 12.5
    assert [frame.shape for frame in read_frames(target)] == [(3, 96, 144)] * 4


def test_nothing_is_left_of_a_video_that_fails(file: Path) -> None:
    def broken(y: Tensor) -> Tensor:
        raise RuntimeError("out of order")

    before = set(file.parent.iterdir())
    with pytest.raises(RuntimeError, match="out of order"):
        upscale_video(file, file.parent / "large.mp4", broken)
    with pytest.raises(InputError, match="no frame was written"):
        upscale_video(iter(()), file.parent / "large.mp4", nn.Identity(), rate_hz=5)
    with pytest.raises(InputError, match="have no rate"):
        upscale_video(clip(), file.parent / "large.mp4", nn.Identity())
    with pytest.raises(InputError, match=r"even sides, got 33x48.*yuv444p"):
        upscale_video(clip(height=33), file.parent / "large.mp4", nn.Identity(), rate_hz=5)
    with pytest.raises(FileError, match="cannot write the video"):
        upscale_video(clip(), file.parent / "large.mp4", nn.Identity(), rate_hz=5, codec="no such codec")
    assert set(file.parent.iterdir()) == before


def test_odd_sides_are_written_with_the_format_that_the_message_names(tmp_path: Path) -> None:
    target = tmp_path / "odd.mp4"
    upscale_video(clip(height=33), target, nn.Identity(), rate_hz=5, pixel_format="yuv444p")
    assert next(read_frames(target)).shape == (3, 33, 48)


def test_files_that_are_missing_damaged_or_no_videos_are_named(file: Path) -> None:
    with pytest.raises(FileError, match=r"none\.mp4: no such file"):
        read_frames(file.parent / "none.mp4")
    (file.parent / "text.mp4").write_text("no video")
    with pytest.raises(FileError, match=r"text\.mp4: cannot be read"):
        read_frames(file.parent / "text.mp4")


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_with_a_hole_is_not_taken_for_a_shorter_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"hole{suffix}"
    with VideoWriter(path, rate_hz=5) as video:
        for _ in range(40):
            video.write(torch.randint(256, (3, 64, 64), dtype=torch.uint8))
    whole, half = path.read_bytes(), len(path.read_bytes()) // 2
    path.write_bytes(whole[:half] + bytes(6000) + whole[half + 6000 :])
    with pytest.raises(FileError, match=r"hole\.\w+: (cannot be read beyond|ends after)"):
        list(read_frames(path))


def test_frames_of_another_kind_or_size_are_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", rate_hz=5) as video:
        video.write(torch.zeros(1, 32, 32, dtype=torch.uint8))
        with pytest.raises(InputError, match=r"a frame of \[32, 34\] after those of \[32, 32\]"):
            video.write(torch.zeros(3, 32, 34, dtype=torch.uint8))
        with pytest.raises(InputError, match="expected a frame uint8"):
            video.write(torch.zeros(3, 32, 32))
    with pytest.raises(InputError, match="rate_hz must be positive"):
        VideoWriter(tmp_path / "b.mp4", rate_hz=0)
    with pytest.raises(InputError, match="the suffix names the container"):
        VideoWriter(tmp_path / "b", rate_hz=5)


def test_throughput_says_each_part() -> None:
    found = Throughput(10, decode_s=1, upscale_s=2, encode_s=0)
    assert (found.fps, found.decode_fps, found.upscale_fps) == (10 / 3, 10, 5)
    assert str(found) == "10 frames, 3.3 a second (decode 10.0, upscale 5.0, encode inf)"


def test_colour_is_that_of_the_source_and_grey_stays_grey() -> None:
    same = torch.tensor([200, 40, 90], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 6, 8)
    found = upscale_colour(same, nn.Upsample(scale_factor=3))
    assert found.shape == (2, 3, 18, 24)
    assert (found.int() - same[:, :, :1, :1].int()).abs().max() <= 2
    image = torch.randint(256, (1, 3, 20, 24), dtype=torch.uint8)
    coded = rgb_to_ycbcr(image).double() / 255
    expected = (ycbcr_to_rgb(resize(coded, (40, 48))) * 255).round()
    ours = upscale_colour(image, lambda y: resize(y, (40, 48)))
    assert (ours - expected)[..., 6:-6, 6:-6].abs().max() <= 1
    grey = torch.randint(256, (1, 1, 4, 5), dtype=torch.uint8)
    assert torch.equal(upscale_colour(grey, nn.Identity()), grey)


@pytest.mark.parametrize("upscale", [
    lambda y: y[:, :, ::2, ::2],
    lambda y: y.expand(-1, 3, -1, -1),
    lambda y: y * float("nan"),
    lambda y: y[0],
    lambda y: y.repeat_interleave(2, 2),
])  # fmt: skip
def test_what_is_no_upscaler_is_refused(upscale: object) -> None:
    image = torch.zeros(1, 3, 4, 6, dtype=torch.uint8)
    with pytest.raises(InputError, match="upscale_colour: the upscaler"):
        upscale_colour(image, upscale)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected uint8"):
        upscale_colour(image.float(), nn.Identity())
