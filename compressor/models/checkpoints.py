"""Weights that others have published, as state dicts for the networks of this package."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from compressor.errors import FileError
from compressor.models.swinir_layers import offsets_in_window
from compressor.unpacking import refuse_compressed

__all__ = ["load_akamaster_checkpoint", "load_swinir_checkpoint"]

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


def load_swinir_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict, on the CPU, of a SwinIR as PMRF and DifFace publish it, for `swinir_m` or `swinir_l`.

    Read are files of SwinIR alone, of a training of the posterior mean (`state_dict` of Lightning, with the
    weights as they are and not their average), and of a whole PMRF, of which the posterior mean is taken;
    `.safetensors`, or files of torch, read with `weights_only=True`. Window offsets that are written there
    are compared with ours, and left out like masks of attention: both follow from the sizes.

    Raises FileError for a file that is missing, damaged or of another kind.

    Source: github.com/ohayonguy/PMRF.

    >>> load_swinir_checkpoint("pmrf.safetensors")
    Traceback (most recent call last):
        ...
    compressor.errors.FileError: checkpoint pmrf.safetensors: no such file
    """
    file = Path(path)
    content = _safely(file) if file.suffix == ".safetensors" else _unpickled(file)
    for key in ("params_ema", "params", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    named = content if isinstance(content, dict) else {}
    if any(str(name).startswith("mmse_model.") for name in named):  # beside the flow's model
        named = {name: value for name, value in named.items() if str(name).startswith("mmse_model.")}
    weights = {re.sub(r"^((mmse_)?model\.|module\.)*", "", str(name)): value for name, value in named.items()}
    if not {"conv_first.1.weight", "layers.0.conv.weight", "conv_up3.weight"} <= weights.keys():
        raise FileError(
            f"checkpoint {file}: not a SwinIR as PMRF uses it: expected tensors conv_first.1.weight, ..., "
            f"conv_up3.weight, found {list(weights)[:3]}, ..."
        )
    return {
        name: weight for name, weight in _tensors(file, weights).items() if not _follows(file, name, weight)
    }


def _follows(file: Path, name: str, value: Tensor) -> bool:
    """Whether a tensor is none of the weights, but follows from the sizes."""
    if name.endswith(".attn.relative_position_index"):
        window = round(len(value) ** 0.5)
        if not torch.equal(value, offsets_in_window(window)):
            raise FileError(
                f"checkpoint {file}: {name} counts offsets in another order; its tables do not fit"
            )
        return True
    return name.endswith(".attn_mask")


def _tensors(file: Path, weights: Mapping[str, object]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if not isinstance(weight, Tensor):
            raise FileError(
                f"checkpoint {file}: expected tensors only, found {name}: {type(weight).__name__}"
            )
        found[name] = weight
    return found


def _safely(file: Path) -> object:
    if not file.is_file():
        raise FileError(f"checkpoint {file}: no such file")
    try:
        return safetensors.torch.load_file(file)
    except (SafetensorError, OSError) as error:
        raise FileError(
            f"checkpoint {file}: cannot be read as safetensors ({error}); it may be truncated: fetch it again"
        ) from error


def _unpickled(file: Path) -> object:
    if not file.is_file():
        raise FileError(f"checkpoint {file}: no such file")
    refuse_compressed(file)
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
