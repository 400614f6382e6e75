"""Images from files and what is made of them: colour, other sizes, pairs, degradations.

Files need the extra `images` (Pillow); everything else works on tensors, on any device.
"""

from __future__ import annotations

from compressor.data.images.blind_face import BlindFace
from compressor.data.images.colour import luminance, rgb_to_ycbcr, ycbcr_to_rgb
from compressor.data.images.degradations import Colourless, Degradation, LowResolution, MissingPixels, Noisy
from compressor.data.images.downscaling import Bicubic, Downscaling, GaussianSubsampling
from compressor.data.images.folders import ImageSet, Unreadable, image_files, read_folder
from compressor.data.images.pairs import Pair, cropped_to_multiple, luminance_pairs
from compressor.data.images.patches import Patches, patch_stride, patches
from compressor.data.images.reading import read_image, write_image
from compressor.data.images.resizing import rescale, resize
from compressor.data.images.symmetry import Augmented, symmetries
from compressor.data.images.upscaling import Upscaler, upscale_colour

__all__ = [
    "Augmented",
    "Bicubic",
    "BlindFace",
    "Colourless",
    "Degradation",
    "Downscaling",
    "GaussianSubsampling",
    "ImageSet",
    "LowResolution",
    "MissingPixels",
    "Noisy",
    "Pair",
    "Patches",
    "Unreadable",
    "Upscaler",
    "cropped_to_multiple",
    "image_files",
    "luminance",
    "luminance_pairs",
    "patch_stride",
    "patches",
    "read_folder",
    "read_image",
    "rescale",
    "resize",
    "rgb_to_ycbcr",
    "symmetries",
    "upscale_colour",
    "write_image",
    "ycbcr_to_rgb",
]
