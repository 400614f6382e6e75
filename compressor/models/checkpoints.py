"""Weights that others have published, as state dicts for the networks of this package."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from compressor.errors import FileError

__all__ = ["load_akamaster_checkpoint"]

_PREFIX = "module."  # left by the nn.DataParallel of the trainer


def load_akamaster_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict, on the CPU, of a ResNet for CIFAR-10 from akamaster's collection.

    It fits `create("resnetNN_cifar")` with its default options. The images have to be normalised as
    by `compressor.data.normalize`. Raises FileError for a file that is missing, damaged or of
    another kind. The file is read with `weights_only=True`: it cannot run code.

    Source: Y. Idelbayev, github.com/akamaster/pytorch_resnet_cifar10, pretrained_models/*.th.

    >>> load_akamaster_checkpoint("resnet20.th")
    Traceback (most recent call last):
        ...
    compressor.errors.FileError: checkpoint resnet20.th: no such file
    """
    file = Path(path)
    content = _unpickled(file)
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        found = f"the keys {list(content)[:5]}" if isinstance(content, dict) else type(content)
        raise _other_format(file, f"a dict with the key 'state_dict', found {found}")
    named = {str(name).removeprefix(_PREFIX): weight for name, weight in weights.items()}
    if not {"conv1.weight", "linear.weight"} <= named.keys():
        raise _other_format(file, f"tensors conv1.weight, ..., linear.weight, found {list(named)[:3]}, ...")
    for name, weight in named.items():
        if not isinstance(weight, Tensor):
            raise _other_format(file, f"only tensors, found {name}: {type(weight).__name__}")
    return named


def _unpickled(file: Path) -> object:
    if not file.is_file():
        raise FileError(f"checkpoint {file}: no such file")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        raise FileError(
            f"checkpoint {file}: cannot be read as a PyTorch file of plain tensors "
            f"({type(error).__name__}); it may be truncated or of another format: fetch it again"
        ) from error


def _other_format(file: Path, expected_and_found: str) -> FileError:
    return FileError(
        f"checkpoint {file}: not in the format of akamaster/pytorch_resnet_cifar10: "
        f"expected {expected_and_found}"
    )
