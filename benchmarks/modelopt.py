"""NVIDIA ModelOpt's FastNAS as a contender, where it is installed.

    pip install nvidia-modelopt huggingface_hub "torchprofile<0.1"

Channels go by their norm, widths by a search for the sub-network whose accuracy falls least.
"""

from __future__ import annotations

import copy
import io
import tempfile
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

import compressor as cp
from benchmarks.cifar import Data

__all__ = ["missing", "prune"]

_SCORED_ON = 256  # training images for its accuracies, and for the statistics of norms
_DIVISOR = 4  # widths it may choose; its own 32 would leave layers of 16 channels as they are
_CLOSE = 0.04  # below the fraction asked for


def missing() -> str | None:
    """Why FastNAS cannot be run here, or None."""
    lacking = [name for name in ("modelopt", "torchprofile", "huggingface_hub") if find_spec(name) is None]
    if not lacking:
        return None
    return (
        f"ModelOpt needs {', '.join(lacking)}: pip install nvidia-modelopt huggingface_hub 'torchprofile<0.1'"
    )


def prune(model: nn.Module, x: Tensor, data: Data, *, fraction: float) -> nn.Module:
    """What FastNAS finds within `fraction` of the MACs, by accuracy on training images."""
    import modelopt.torch.prune as mtp

    images, labels = data.x_train[:_SCORED_ON], data.y_train[:_SCORED_ON]

    def accuracy(small: nn.Module) -> float:
        with torch.no_grad():
            named = torch.cat([small(part).argmax(dim=1) for part in images.split(128)])
        return float((named == labels).float().mean())

    rules = mtp.fastnas.FastNASConfig()
    rules["nn.Conv2d"]["*"]["channel_divisor"] = _DIVISOR
    rules["nn.BatchNorm2d"]["*"]["feature_divisor"] = _DIVISOR
    whole = cp.profile(model, x).macs
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        small, _ = mtp.prune(
            copy.deepcopy(model),
            mode=[("fastnas", rules)],
            constraints={"flops": f"{100 * fraction:g}%"},
            dummy_input=x,
            config={
                "data_loader": _endless(images),
                "collect_func": lambda batch: batch,
                "score_func": accuracy,
                "checkpoint": str(Path(folder) / "search.pth"),
            },
        )
    small.eval()
    left = cp.profile(small, x).macs / whole
    if not fraction - _CLOSE <= left <= fraction:
        raise RuntimeError(f"FastNAS left {left:.3f} of the MACs where {fraction:g} was asked for")
    plain: nn.Module = small
    return plain


def _endless(images: Tensor) -> list[Tensor]:
    """Batches as it wants them to measure statistics of norms: fifty."""
    batches = list(images.split(64))
    return [batches[i % len(batches)] for i in range(50)]
