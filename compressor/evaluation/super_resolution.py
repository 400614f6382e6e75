"""How well images are upscaled, as super-resolution papers measure it: PSNR and SSIM of the luminance."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.core.restoring import undisturbed
from compressor.errors import EvaluationError, InputError
from compressor.evaluation import perceptual
from compressor.evaluation.fidelity import psnr
from compressor.observing.batches import device_of

__all__ = ["SuperResolution", "Upscaled", "super_resolution"]

# Luminance [1, 1, h, w] as floats in 0..1 to [1, 1, r * h, r * w].
Upscaler = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Upscaled:
    """One image: its PSNR in dB, and its SSIM where that was asked for."""

    name: str
    psnr: float
    ssim: float | None = None


@dataclass(frozen=True)
class SuperResolution:
    """What was measured image by image; the means are those that papers print.

    >>> print(SuperResolution(3, (Upscaled("bird", 33.5), Upscaled("head", 33.0))))
    x3    bird  33.50 dB
          head  33.00 dB
          mean  33.25 dB
    """

    scale: int
    images: tuple[Upscaled, ...]

    @property
    def psnr(self) -> float:
        """The mean over images of each image's PSNR, in dB."""
        return sum(image.psnr for image in self.images) / len(self.images)

    @property
    def ssim(self) -> float | None:
        """The mean SSIM; None where it was not asked for."""
        found = [image.ssim for image in self.images if image.ssim is not None]
        return sum(found) / len(found) if found else None

    def __str__(self) -> str:
        rows = (*self.images, Upscaled("mean", self.psnr, self.ssim))
        width = max(len(row.name) for row in rows)
        lines = [
            f"{row.name:>{width}}  {row.psnr:.2f} dB" + ("" if row.ssim is None else f"  {row.ssim:.4f}")
            for row in rows
        ]
        head = f"x{self.scale}"
        return "\n".join(f"{'' if n else head:<{len(head) + 4}}{line}" for n, line in enumerate(lines))


@torch.no_grad()
def super_resolution(
    upscale: nn.Module | Upscaler,
    pairs: Iterable[tuple[str, Tensor, Tensor]],
    *,
    shave: int | None = None,
    ssim: bool = False,
) -> SuperResolution:
    """PSNR (and SSIM, with the extra `metrics`) of each upscaled image against its original, in bytes.

    `pairs` are (name, low, high), luminance as uint8 [1, h, w] and [1, r * h, r * w]: those of
    `data.images.luminance_pairs`. `upscale` is a module, which runs in eval mode on its own device, or any
    function of float [1, 1, h, w] in 0..1. What it returns is clipped and rounded to bytes, `shave` pixels
    (r unless given) are left out at every border, and the peak is 255.

    PSNR is that of the literature to 0.01 dB: 30.39 for bicubic interpolation by 3 on Set5. SSIM (Wang et al.
    2004, a Gaussian window of sigma 1.5 wherever it lies in the image) is a little below: 0.8675, papers have
    0.8682.

    Raises InputError for no pairs, two scales or other tensors, EvaluationError for outputs of another size
    or not finite; both name the image.

    >>> low = torch.full((1, 4, 4), 100, dtype=torch.uint8)
    >>> pair = ("flat", low, torch.full((1, 8, 8), 110, dtype=torch.uint8))
    >>> round(super_resolution(nn.Upsample(scale_factor=2), [pair]).psnr, 2)
    28.13
    """
    if not isinstance(upscale, nn.Module):
        return _measured(upscale, torch.device("cpu"), pairs, shave, ssim)
    with undisturbed(upscale, training=False):
        return _measured(upscale, device_of(upscale), pairs, shave, ssim)


def _measured(
    upscale: Upscaler,
    device: torch.device,
    pairs: Iterable[tuple[str, Tensor, Tensor]],
    shave: int | None,
    ssim: bool,
) -> SuperResolution:
    found: list[Upscaled] = []
    scale = 0
    for name, low, high in pairs:
        scale = _scale(name, low, high, scale)
        output = upscale((low.float() / 255).to(device)[None])
        bytes_ = _bytes(name, output, high)
        border = scale if shave is None else shave
        inner = [_shaved(name, image[None].double(), border) for image in (bytes_, high.cpu())]
        try:
            similar = perceptual.ssim(*inner, peak=255) if ssim else None
        except InputError as error:
            raise InputError(f"super_resolution: image {name}: {error}") from error
        found.append(Upscaled(name, psnr(*inner, peak=255), similar))
    if not found:
        raise InputError("super_resolution: no pairs of images; an iterator can be run through only once")
    return SuperResolution(scale, tuple(found))


def _scale(name: str, low: Tensor, high: Tensor, before: int) -> int:
    fine = all(
        one.dtype == torch.uint8 and one.ndim == 3 and one.shape[0] == 1 and one.numel()
        for one in (low, high)
    )
    scale = high.shape[-1] // low.shape[-1] if fine else 0
    if not scale or list(high.shape) != [low.shape[0], scale * low.shape[1], scale * low.shape[2]]:
        raise InputError(
            f"super_resolution: image {name} is {low.dtype} {list(low.shape)} and large {high.dtype} "
            f"{list(high.shape)}, expected the luminance as uint8 [1, h, w] and [1, r * h, r * w], such as "
            f"data.images.luminance_pairs makes"
        )
    if before not in (0, scale):
        raise InputError(f"super_resolution: image {name} has the scale {scale}, those before {before}")
    return scale


def _bytes(name: str, output: object, high: Tensor) -> Tensor:
    """The output as bytes, rounded half up as MATLAB does."""
    if not isinstance(output, Tensor) or list(output.shape) != [1, *high.shape]:
        got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise EvaluationError(
            f"super_resolution: image {name} became {got}, expected {[1, *high.shape]}; is the model "
            f"of this scale?"
        )
    if not bool(torch.isfinite(output).all()):
        raise EvaluationError(f"super_resolution: image {name} became NaN or infinite in some pixels")
    return (output[0].double().cpu() * 255 + 0.5).floor().clamp(0, 255)


def _shaved(name: str, image: Tensor, border: int) -> Tensor:
    height, width = image.shape[-2:]
    if border < 0 or min(height, width) <= 2 * border:
        raise InputError(
            f"super_resolution: nothing is left of image {name}, {height}x{width}, without {border} pixels "
            f"at every border"
        )
    return image[..., border : height - border, border : width - border]
