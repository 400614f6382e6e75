"""A video enlarged by ESPCN, frame by frame; the clip is never in memory.

    python examples/recipes/upscale_video.py clip.mp4 large.mp4 --weights runs/espcn/espcn.pth --scale 3
    python examples/recipes/upscale_video.py clip.mp4 large.mp4 --onnx runs/espcn/pruned-0.5.onnx --threads 2
    python examples/recipes/upscale_video.py --quick

Luminance goes through the network, colour differences are enlarged bicubically, sound is left out. Frames a
second are those of the wall clock, for reading, enlarging and writing apart. --quick makes a clip of its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

import compressor as cp
from compressor.data.video import Throughput, upscale_video

__all__ = ["onnx_upscaler"]


def onnx_upscaler(path: Path, *, threads: int = 1) -> Callable[[Tensor], Tensor]:
    """A function of luminance [n, 1, h, w] that runs an ONNX file in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()

    def upscale(y: Tensor) -> Tensor:
        (found,) = session.run(None, {taken.name: y.cpu().numpy()})
        return torch.from_numpy(found)

    return upscale


def moving_shapes(frames: int, height: int, width: int) -> Iterator[Tensor]:
    """A generated clip, uint8 [3, height, width] each: a bar and a disc on a gradient."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for number in range(frames):
        image = torch.stack([columns * 255 // width, rows * 255 // height, (rows + columns) % 256])
        disc = (rows - height / 2) ** 2 + (columns - 2 * number - 10) ** 2 < 64
        bar = (rows + columns + number) % 20 < 3
        yield torch.where(disc, 255, torch.where(bar, 0, image)).to(torch.uint8)


def arguments() -> argparse.Namespace:
    """What is said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("target", type=Path, nargs="?")
    parser.add_argument("--weights", type=Path, help="state dict of an ESPCN, as the recipe writes it")
    parser.add_argument("--onnx", type=Path, help="or an ONNX file, pruned or in int8, too")
    parser.add_argument("--scale", type=int, default=3, help="of the ESPCN")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    parser.add_argument("--frames", type=int, help="so many and no more")
    parser.add_argument("--quick", action="store_true", help="a generated clip and untrained weights")
    options = parser.parse_args()
    if not options.quick and (not options.source or not options.target):
        parser.error("name the source and the target, or try --quick")
    if not options.quick and (options.weights is None) == (options.onnx is None):
        parser.error("name the network, by --weights or by --onnx")
    return options


def upscaler(options: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    """The network that was named."""
    if options.onnx is not None:
        return onnx_upscaler(options.onnx, threads=options.threads)
    torch.set_num_threads(options.threads)
    model = cp.models.create("espcn", scale=options.scale)
    if options.weights is not None:
        model.load_state_dict(torch.load(options.weights, map_location="cpu", weights_only=True))
    return model.eval().to(options.device)


def main() -> None:
    """Enlarge, and say how fast."""
    options = arguments()
    if not options.quick:
        print(run(options, options.source, options.target))
        return
    with tempfile.TemporaryDirectory() as folder:
        target = options.target or Path(folder) / "large.mp4"
        frames = moving_shapes(24, 48, 64)
        print(upscale_video(frames, target, upscaler(options), rate_hz=24, device=options.device))


def run(options: argparse.Namespace, source: Path, target: Path) -> Throughput:
    """One file into another."""
    device = "cpu" if options.onnx is not None else options.device
    return upscale_video(source, target, upscaler(options), device=device, max_frames=options.frames)


if __name__ == "__main__":
    main()
