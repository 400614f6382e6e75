"""Loading a saved model: the folder's own loader, and then its plan and its example."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from compressor.core.plan import Plan
from compressor.core.surgery import cut_copy, remember_plan
from compressor.errors import FileError, InputError, PlanError
from compressor.persistence.example import compare_example
from compressor.persistence.load_model import LoadError, place
from compressor.persistence.load_model import load as load_plain

__all__ = ["load"]


def load(directory: str | Path, build: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """The model saved in `directory`, equal to the last bit, with its flags and modes.

    `build` makes the original, unpruned network: its class, any function without arguments, or a
    network that was just built, which stays as it is. The loaded model is on the device of what was
    built, and knows its plan.

    Raises FileError when a file is missing, truncated, changed or of another version, and when
    `build` makes another network; InputError when `build` is neither of the three.

    >>> import tempfile, torch, compressor as cp
    >>> def build():
    ...     return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> net, x = build(), torch.ones(1, 4)
    >>> graph = cp.capture(net, x)
    >>> small = cp.apply(net, graph.plan([True] * 3 + [False] * 5))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cp.save(small, folder)
    ...     again = load(folder, build)
    >>> again[0]
    Linear(in_features=4, out_features=5, bias=True)
    >>> torch.equal(again(x), small(x))
    True
    """
    folder = Path(directory)
    try:
        model = load_plain(lambda: _built(build), folder)
    except LoadError as error:
        raise FileError(str(error)) from error
    except PlanError as error:
        raise FileError(f"{folder / 'plan.json'} does not fit the model: {error}") from error
    if "example.safetensors" in json.loads(place(folder, "manifest.json").read_bytes())["files"]:
        compare_example(model, _tensors(place(folder, "example.safetensors")), str(folder))
    remember_plan(model, Plan.load(place(folder, "plan.json")))
    return model


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return from_safetensors(file.read_bytes())
    except (SafetensorError, OSError) as error:
        raise FileError(f"{file} is damaged ({error}); copy or save the model again") from error


def _built(build: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    if isinstance(build, nn.Module):
        return cut_copy(build, (), lambda tensor, _cuts: tensor.detach())
    model = build() if callable(build) else build
    if not isinstance(model, nn.Module):
        what = f"{build!r} returned" if callable(build) else "got"
        raise InputError(
            f"load needs what builds the original network, as a class, a function without "
            f"arguments or a torch.nn.Module; {what} {type(model).__name__}"
        )
    return model
