"""Weights from a file, checked against the model before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.cli.objects import close_to
from compressor.errors import FileError
from compressor.unpacking import refuse_compressed

__all__ = ["load_weights_", "read_weights"]

_PICKLES = (".pt", ".pth", ".th", ".bin", ".ckpt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIX = "module."  # left by nn.DataParallel


def load_weights_(model: nn.Module, path: Path) -> None:
    """Load the file's tensors into the model; raises FileError with the first that does not fit."""
    weights = read_weights(path)
    expected = {
        name: tensor
        for name, tensor in model.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor)
    }
    where = f"weights {str(path)!r} do not fit {type(model).__name__}"
    for name, tensor in weights.items():
        if name not in expected:
            raise FileError(f"{where}: it has no tensor {name!r}{close_to(name, expected)}")
        if tensor.shape != expected[name].shape:
            raise FileError(
                f"{where}: {name!r} is expected as {list(expected[name].shape)}, found {list(tensor.shape)}"
            )
    # A safetensors file holds tied tensors under one of their names, and files from before PyTorch
    # 0.4.1 lack BatchNorm's counters, which no output depends on.
    given = {id(expected[name]) for name in weights}
    missing = [
        name
        for name, tensor in expected.items()
        if id(tensor) not in given and name.rpartition(".")[2] != "num_batches_tracked"
    ]
    if missing:
        raise FileError(
            f"{where}: {len(missing)} of its {len(expected)} tensors are not in the file, the "
            f"first is {missing[0]!r}{close_to(missing[0], weights)}"
        )
    model.load_state_dict(weights, strict=False)


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """The state dict in a .safetensors file, or in a .pt or .pth file of plain tensors.

    The latter may be wrapped in a dict under "state_dict" and carry the prefix "module.". No code
    in the file is run. Raises FileError.
    """
    if not path.is_file():
        raise FileError(f"weights {str(path)!r}: there is no such file")
    if path.suffix == ".safetensors":
        try:
            return _named(path, load_file(path))
        except (SafetensorError, OSError) as error:
            raise FileError(f"weights {str(path)!r} are damaged: {error}") from error
    if path.suffix in _PICKLES:
        return _named(path, _unpickled(path))
    raise FileError(
        f"weights {str(path)!r}: the ending {path.suffix!r} is unknown; expected .safetensors or "
        f"one of {', '.join(_PICKLES)}"
    )


def _unpickled(path: Path) -> object:
    refuse_compressed(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        raise FileError(
            f"weights {str(path)!r} cannot be read as a file of plain tensors "
            f"({type(error).__name__}): it may be damaged, or hold a whole pickled model, which "
            "could run any code. Save model.state_dict() instead"
        ) from error
    if isinstance(content, dict):
        for key in _WRAPPERS:
            if isinstance(content.get(key), dict):
                return content[key]
    return content


def _named(path: Path, content: object) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not content:
        raise FileError(
            f"weights {str(path)!r}: expected a state dict, found {type(content).__name__}"
            f"{' without entries' if content == {} else ''}"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise FileError(
                f"weights {str(path)!r}: expected a state dict of tensors, found {name!r}: "
                f"{type(value).__name__}"
            )
    wrapped = all(name.startswith(_PREFIX) for name in content)
    return {name.removeprefix(_PREFIX) if wrapped else name: t for name, t in content.items()}
