from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compressor.data.images import read_image, write_image
from compressor.errors import FileError, InputError


def png_16(values: np.ndarray, colour_type: int, *chunks: bytes) -> bytes:
    """A PNG of 16 bits [h, w, samples], written by hand: Pillow writes none in colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    extra = b"".join(chunk(part[:4], part[4:]) for part in chunks)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def saved(image: Image.Image, file: Path, **options: object) -> Path:
    image.save(file, **options)
    return file


def test_colour_is_read_as_channels_rows_columns(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    found = read_image(saved(Image.fromarray(pixels), tmp_path / "a.png"))
    assert found.dtype == torch.uint8 and found.shape == (3, 2, 3)
    assert found[1, 0, 2] == pixels[0, 2, 1]


def test_grey_is_three_channels_or_one_where_asked(tmp_path: Path) -> None:
    file = saved(Image.fromarray(np.array([[7, 200]], np.uint8)), tmp_path / "a.png")
    assert read_image(file).tolist() == [[[7, 200]]] * 3
    assert read_image(file, keep_grey=True).tolist() == [[[7, 200]]]
    colour = saved(Image.new("RGB", (2, 1), (9, 9, 9)), tmp_path / "b.png")
    assert read_image(colour, keep_grey=True).shape == (3, 1, 2)


def test_16_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[[0], [128], [129], [300], [32768], [65535]]], np.uint16)
    (tmp_path / "a.png").write_bytes(png_16(levels, 0))
    expected = [round(level / 257) for level in levels.ravel().tolist()]
    assert read_image(tmp_path / "a.png", keep_grey=True).flatten().tolist() == expected
    tiff = saved(Image.fromarray(levels[..., 0]), tmp_path / "a.tif")
    assert read_image(tiff, keep_grey=True).flatten().tolist() == expected


def test_colour_of_16_bits_is_one_level_off_at_most(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(png_16(levels, 2))
    exact = torch.from_numpy(levels / 257).permute(2, 0, 1)
    assert (read_image(tmp_path / "a.png") - exact).abs().max() <= 1


def test_a_transparent_level_among_16_bits_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(png_16(np.full((1, 2, 1), 9, np.uint16), 0, b"tRNS" + struct.pack(">H", 9)))
    with pytest.raises(FileError, match="16 bits is not read"):
        read_image(file, background=(0, 0, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_refused_or_laid_over_a_background(tmp_path: Path, mode: str) -> None:
    image = Image.new(
        mode, (2, 1), (200, 100, 0, 255)[: 4 if mode == "RGBA" else 1] + (255,) * (mode == "LA")
    )
    image.putpixel((1, 0), (200, 100, 0, 51) if mode == "RGBA" else (200, 51))
    file = saved(image, tmp_path / "a.png")
    with pytest.raises(FileError, match=r"a\.png: 1 of 2 pixels are transparent.*background="):
        read_image(file)
    found = read_image(file, background=(255, 255, 255))
    assert found[0].tolist() == [[200, 244]]  # 200 * 0.2 + 255 * 0.8
    assert found[:, 0, 0].tolist() == ([200, 100, 0] if mode == "RGBA" else [200] * 3)
    grey = read_image(file, background=(255, 255, 255), keep_grey=True)
    assert len(grey) == (3 if mode == "RGBA" else 1)
    assert len(read_image(file, background=(255, 0, 0), keep_grey=True)) == 3


def test_an_opaque_alpha_channel_is_dropped(tmp_path: Path) -> None:
    file = saved(Image.new("RGBA", (2, 2), (1, 2, 3, 255)), tmp_path / "a.png")
    assert read_image(file)[:, 0, 0].tolist() == [1, 2, 3]


def test_palettes_are_resolved_their_transparency_included(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert read_image(saved(image, tmp_path / "a.png")).flatten(1).tolist() == [[10, 40], [20, 50], [30, 60]]
    clear = saved(image, tmp_path / "b.png", transparency=0)
    with pytest.raises(FileError, match="1 of 2 pixels are transparent"):
        read_image(clear)
    assert read_image(clear, background=(0, 0, 0)).flatten(1).tolist() == [[0, 40], [0, 50], [0, 60]]


def test_cmyk_and_bilevel_become_colours(tmp_path: Path) -> None:
    cyan = saved(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), tmp_path / "a.tif")
    assert read_image(cyan).flatten().tolist() == [0, 255, 255]
    line = saved(Image.new("1", (2, 1), 1), tmp_path / "b.png")
    assert read_image(line, keep_grey=True).flatten().tolist() == [255, 255]


def test_images_are_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    file = saved(image, tmp_path / "a.png", exif=exif)
    assert read_image(file, keep_grey=True).tolist() == [[[3, 0], [4, 1], [5, 2]]]


def test_floats_and_several_frames_are_refused(tmp_path: Path) -> None:
    floats = saved(Image.fromarray(np.ones((2, 2), np.float32)), tmp_path / "a.tif")
    with pytest.raises(FileError, match=r"a\.tif: pixels of mode 'F'"):
        read_image(floats)
    frames = [Image.new("L", (4, 4), level) for level in (0, 200)]
    moving = saved(frames[0], tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(FileError, match=r"b\.gif: holds 2 frames"):
        read_image(moving)


def test_files_that_are_missing_truncated_or_no_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    file = saved(Image.fromarray(noise), tmp_path / "cut.png")
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(FileError, match=r"cut\.png: cannot be read.*truncated"):
        read_image(file)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(FileError, match=r"text\.png: cannot be read"):
        read_image(tmp_path / "text.png")


def test_writing_gives_back_what_was_written_and_names_what_it_cannot(tmp_path: Path) -> None:
    image = torch.randint(256, (3, 5, 4), dtype=torch.uint8)
    write_image(image, tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), image)
    with pytest.raises(InputError, match="expected uint8"):
        write_image(image.float(), tmp_path / "b.png")
    with pytest.raises(FileError, match=r"cannot write the image .*b\.what"):
        write_image(image, tmp_path / "b.what")
    with pytest.raises(FileError, match="cannot write"):
        write_image(image, tmp_path / "no/such/folder.png")


@pytest.mark.parametrize("background", [(0, 0), (0, 0, 256), (0.0, 0, 0), 255])
def test_a_background_is_a_colour(tmp_path: Path, background: object) -> None:
    with pytest.raises(InputError, match="must be three integers"):
        read_image(tmp_path / "a.png", background=background)  # type: ignore[arg-type]
