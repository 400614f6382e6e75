"""How natural restored images look: similarity to the clean ones, and distances between two sets of features.

Which features is the caller's choice: Inception v3's give the FID and KID of papers, a small classifier's
are enough to compare restorations of one small data set. Nothing is downloaded. NIQE, precision and
recall are left out, as none of the libraries used here has them; PMRF's IndRMSE, for images without a clean
version, is `mse(restored, posterior_means) ** 0.5`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.core.restoring import undisturbed
from compressor.errors import FileError, InputError
from compressor.evaluation.extras import require
from compressor.evaluation.fidelity import check_peak

__all__ = ["energy_distance", "features_of", "frechet_distance", "kernel_distance", "lpips", "ssim"]

# The backbone of each LPIPS network as torchvision keeps it on disk.
BACKBONES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}


def ssim(outputs: Tensor, targets: Tensor, *, peak: float = 1.0) -> float:
    """The mean structural similarity of images [N, C, H, W]; 1 where they are the same.

    For `training.Validation(metric=ssim)`. An 11x11 Gaussian window of σ = 1.5, by torchmetrics. *Source:
    Z. Wang et al., 2004, IEEE Transactions on Image Processing 13(4).*

    >>> images = torch.rand(2, 1, 16, 16)
    >>> round(ssim(images, images), 4)
    1.0
    """
    check_peak("ssim", peak)
    _check_images("ssim", outputs, targets, side=11)
    functional: Any = _torchmetrics("functional.image", "ssim")
    value = functional.structural_similarity_index_measure(
        outputs.double(), targets.double(), data_range=peak
    )
    return float(value)


def lpips(outputs: Tensor, targets: Tensor, *, network: str = "alex") -> float:
    """The mean LPIPS of RGB images [N, 3, H, W] in [0, 1], by torchmetrics; 0 where they are the same.

    `network` is "alex", "vgg" or "squeeze", of torchvision, whose weights have to lie where it keeps them:
    MissingExtraError without torchvision, FileError that names the file where it is not there. *Source: R.
    Zhang et al., 2018, arXiv 1801.03924.*
    """
    if network not in BACKBONES:
        raise InputError(f"lpips: network must be one of {', '.join(BACKBONES)}, got {network!r}")
    _check_images("lpips", outputs, targets, side=32)
    if outputs.shape[1] != 3:
        raise InputError(
            f"lpips: expected RGB images, got {outputs.shape[1]} channels; repeat a grey one three times"
        )
    require("torchvision", package="torchvision", needed_for="lpips", install="torchvision")
    functional: Any = _torchmetrics("functional.image", "lpips")
    weights = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[network]
    if not weights.is_file():
        raise FileError(
            f"lpips: the weights of {network} are missing at {weights}; nothing is downloaded here"
        )
    return float(
        functional.learned_perceptual_image_patch_similarity(
            outputs.float(), targets.float(), net_type=network, normalize=True
        )
    )


@torch.no_grad()
def features_of(network: Callable[[Tensor], Tensor], images: Tensor, *, batch: int = 256) -> Tensor:
    """The features [N, D], float64 on the CPU, that a network in eval mode has of images [N, ...].

    >>> features_of(nn.Flatten(), torch.zeros(3, 1, 2, 2)).shape
    torch.Size([3, 4])
    """
    if batch < 1:
        raise InputError(f"features_of: batch is how many images go at once, 1 or more, got {batch}")
    quiet = undisturbed(network, training=False) if isinstance(network, nn.Module) else nullcontext()
    with quiet:
        found = torch.cat([network(part).double().cpu() for part in images.split(batch)])
    if found.dim() != 2:
        raise InputError(f"features_of: the network must return [N, D], got {list(found.shape)}")
    return found


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """The squared Fréchet distance of the Gaussians that two sets of features [N, D], [M, D] are taken for.

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½), by torchmetrics in float64: the FID of these features. Too
    large for small sets: compare sets of one size. *Source: M. Heusel et al., 2017, arXiv 1706.08500.*

    >>> round(frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])), 6)
    1.0
    """
    _check_features("frechet_distance", features, reference)
    fid: Any = _torchmetrics("image.fid", "frechet_distance")
    metric = fid.FrechetInceptionDistance(feature=_Given(features.shape[1])).set_dtype(torch.float64)
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    return float(metric.compute())


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """The squared maximum mean discrepancy of two sets of features [N, D], unbiased: their KID.

    The kernel is (x·y/D + 1)³. By torchmetrics, in float64, of the whole sets instead of random subsets
    of 1,000; the larger one is cut to the size of the smaller. Unbiased where the sets are independent:
    against the very images that were restored it falls below zero, so take others. *Source: M. Bińkowski
    et al., 2018, arXiv 1801.01401.*

    >>> same = torch.randn(500, 4)
    >>> abs(kernel_distance(same, torch.randn(500, 4))) < 0.1
    True
    """
    _check_features("kernel_distance", features, reference)
    kid: Any = _torchmetrics("image.kid", "kernel_distance")
    count = min(len(features), len(reference))
    with warnings.catch_warnings():  # that it keeps the features, which are given here
        warnings.simplefilter("ignore", UserWarning)
        metric = kid.KernelInceptionDistance(feature=_Given(features.shape[1]), subsets=1, subset_size=count)
    with torch.random.fork_rng(devices=[]):  # it shuffles what it takes whole
        metric.update(reference[:count].double(), real=True)
        metric.update(features[:count].double(), real=False)
        return float(metric.compute()[0])


def energy_distance(samples: Tensor, reference: Tensor) -> float:
    """The energy distance 2 E|a − b| − E|a − a'| − E|b − b'| of two sets of points [N, D], [M, D].

    Means over all pairs, those of a point with itself included, so that it is never negative and about
    E|a − a'| (1/N + 1/M) for two sets of one distribution. For points of few dimensions. *Source: G.
    Székely, M. Rizzo, 2013, Journal of Statistical Planning and Inference 143(8).*

    >>> energy_distance(torch.zeros(2, 1), torch.full((2, 1), 3.0))
    6.0
    """
    _check_features("energy_distance", samples, reference)
    a, b = samples.double(), reference.double()
    between, within_a, within_b = (torch.cdist(*pair).mean() for pair in ((a, b), (a, a), (b, b)))
    return float(2 * between - within_a - within_b)


def _torchmetrics(module: str, needed_for: str) -> Any:
    return require(f"torchmetrics.{module}", package="torchmetrics", needed_for=needed_for)


class _Given(nn.Module):
    """Features in place of images: what torchmetrics takes for its network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _check_images(name: str, outputs: Tensor, targets: Tensor, *, side: int) -> None:
    if (
        outputs.shape != targets.shape
        or outputs.dim() != 4
        or min(outputs.shape[2:]) < side
        or not len(outputs)
    ):
        raise InputError(
            f"{name}: expected outputs and targets of one shape [N, C, H, W] with sides of at least {side}, "
            f"got {list(outputs.shape)} and {list(targets.shape)}"
        )
    for kind, images in (("outputs", outputs), ("targets", targets)):
        if not bool(torch.isfinite(images).all()):
            raise InputError(f"{name}: the {kind} hold NaN or infinite values")


def _check_features(name: str, features: Tensor, reference: Tensor) -> None:
    if features.dim() != 2 or reference.dim() != 2 or features.shape[1] != reference.shape[1]:
        raise InputError(
            f"{name}: expected two sets of one width, [N, D] and [M, D], got {list(features.shape)} and "
            f"{list(reference.shape)}"
        )
    if min(len(features), len(reference)) < 2:
        raise InputError(f"{name}: each set needs two rows, got {len(features)} and {len(reference)}")
    for values in (features, reference):
        if not bool(torch.isfinite(values).all()):
            raise InputError(f"{name}: features hold NaN or infinite values")
