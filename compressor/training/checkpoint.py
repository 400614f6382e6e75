"""The file a training goes on from: tensors and plain values, read without running any code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.core.surgery import signature_of
from compressor.core.tape import named_tensors
from compressor.errors import FileError, InputError, ModelError
from compressor.training.recipe import Recipe
from compressor.unpacking import refuse_compressed
from compressor.whole_files import drafted

__all__ = ["check_model", "copy_tensors_", "read_checkpoint", "tensors_of", "write_checkpoint"]

FORMAT = "compressor-training"
VERSION = 1
_PLAIN = (Tensor, int, float, complex, bool, str, type(None), torch.dtype, torch.device)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers by name."""
    return {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}


@torch.no_grad()
def copy_tensors_(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the parameters and buffers of a model these values."""
    for name, tensor in named_tensors(model).items():
        tensor.detach().copy_(tensors[name])


def check_model(model: nn.Module) -> None:
    """Raise ModelError for a model with state that is in no tensor."""
    for path, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ModelError(
                f"module {path!r} ({type(module).__name__}) has extra state, which a checkpoint without "
                f"pickles cannot hold; keep it as a buffer, or train without checkpoint"
            )


def write_checkpoint(
    path: Path,
    model: nn.Module,
    recipe: Recipe,
    settings: Mapping[str, int | str | None],
    state: Mapping[str, Any],
) -> None:
    """Write everything to `path`, which holds the old or the new state at every moment.

    Raises InputError where the state holds what could not be read without running code, FileError when
    writing fails.
    """
    signature = signature_of(model)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "model": signature.model,
        "shapes": {name: list(shape) for name, shape in signature.tensors},
        "recipe": recipe.plain(),
        "settings": dict(settings),
        **state,
    }
    _refuse_objects("checkpoint", content)
    with drafted(path, what=f"the checkpoint {path}", make_folder=True) as draft, draft.open("wb") as file:
        torch.save(content, file)  # to a file, not a path: the archive would be named after the draft


def read_checkpoint(
    path: Path, model: nn.Module, recipe: Recipe, settings: Mapping[str, int | str | None]
) -> dict[str, Any]:
    """The state of a training of this model by this recipe with these settings.

    Raises FileError for a damaged file, and where it belongs to another model, recipe or setting.
    """
    if path.is_dir():
        raise FileError(f"the checkpoint {path} is a folder; name a file in it, {path / 'training.pt'} say")
    try:
        refuse_compressed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        _check_sums(path)
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        raise FileError(
            f"the checkpoint {path} cannot be read (truncated, or no checkpoint?): {error}; delete it to "
            f"start anew"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileError(f"{path} is no checkpoint of fine_tune_; choose another file name")
    if content.get("version") != VERSION:
        raise FileError(
            f"the checkpoint {path} has format version {content.get('version')!r}, this library reads "
            f"{VERSION}; go on with the version that wrote it, or delete the file to start anew"
        )
    try:
        _check_shapes(path, content, model)
        _check_same(path, content["recipe"], recipe.plain())
        # Files of before settings were compared have none.
        _check_same(path, content.get("settings", settings), settings)
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(f"the checkpoint {path} lacks a part ({error!r}); delete it to start anew") from error
    return content


def _check_sums(path: Path) -> None:
    """Raise ValueError where a byte was changed: torch reads past the checksums that it writes."""
    written = getattr(
        torch.serialization, "get_crc32_options", lambda: True
    )()  # torch 2.6 can leave them out
    if written:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is another")


def _check_shapes(path: Path, content: Mapping[str, Any], model: nn.Module) -> None:
    expected: Mapping[str, list[int]] = content["shapes"]
    found = {name: list(shape) for name, shape in signature_of(model).tensors}
    for name in dict.fromkeys((*expected, *found)):
        if expected.get(name) != found.get(name):
            raise FileError(
                f"the checkpoint {path} is of another {content['model']}: tensor {name!r} has shape "
                f"{expected.get(name)} there and {found.get(name)} in the model; each model (each step of a "
                f"gradual pruning, too) needs a file of its own"
            )


def _check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in dict.fromkeys((*before, *now)):
        if before.get(name) != now.get(name):
            raise FileError(
                f"the checkpoint {path} was written with {name}={before.get(name)!r}, and now it is "
                f"{now.get(name)!r}; go on with the same, or delete the file to start anew"
            )


def _refuse_objects(where: str, value: object) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _refuse_objects(f"{where}[{key!r}]", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_objects(f"{where}[{index}]", item)
    elif not isinstance(value, _PLAIN):
        raise InputError(
            f"{where} is a {type(value).__name__}, which could only be read back by running code; expected "
            f"tensors and plain values. Take an optimizer without such state, or train without checkpoint"
        )
