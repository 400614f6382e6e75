"""Example inputs: random ones of the shapes on the command line, or those of NumPy files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from compressor.errors import FileError
from compressor.unpacking import refuse_bomb

__all__ = ["InputOptions", "InputSpec", "Inputs", "example_inputs", "parse_input"]

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
    )
}
_FORM = re.compile(
    r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?(?::(?P<below>\d+))?"
)


@dataclass(frozen=True)
class InputOptions:
    """What the model is run on."""

    input: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="SHAPE",
            help="Shape of a random input, batch included: 1x3x224x224. With a type: 1x16:int64; "
            "integers below 1000 instead of 2: 1x16:int64:1000; for a keyword argument of "
            "forward: tokens=1x16:int64. Repeat it for models with several inputs.",
            rich_help_panel="Inputs",
        ),
    ] = None
    input_file: Annotated[
        list[Path] | None,
        typer.Option(
            "--input-file",
            metavar="FILE",
            help="Real inputs instead: an .npy file for each, or one .npz file, whose arrays "
            "arr_0, arr_1, ... go to forward in this order, and others by their names.",
            rich_help_panel="Inputs",
        ),
    ] = None


@dataclass(frozen=True)
class InputSpec:
    """One random input: its shape, type, exclusive upper end for integers, and keyword, if any."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    below: int = 2
    name: str | None = None

    def tensor(self, generator: torch.Generator) -> Tensor:
        """A random tensor: standard normal, or integers 0 ... below - 1."""
        if self.dtype.is_floating_point:
            return torch.randn(self.shape, generator=generator).to(self.dtype)
        return torch.randint(self.below, self.shape, generator=generator).to(self.dtype)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of one forward pass."""

    args: tuple[Tensor, ...]
    kwargs: dict[str, Any]


def parse_input(text: str) -> InputSpec:
    """The input that `text` describes; raises typer.BadParameter with the form that is expected.

    >>> parse_input("1x16:int64:1000")
    InputSpec(shape=(1, 16), dtype=torch.int64, below=1000, name=None)
    """
    match = _FORM.fullmatch(text)
    if match is None:
        extents = re.findall(r"\d+", text.partition(":")[0])
        meant = f"; did you mean {'x'.join(extents)}?" if extents else ""
        raise typer.BadParameter(
            f"{text!r} is not a shape such as 1x3x224x224 or 1x16:int64{meant}",
            param_hint="--input",
        )
    shape = tuple(map(int, match["shape"].split("x")))
    if 0 in shape:
        raise typer.BadParameter(
            f"{text!r} has no elements: every extent is at least 1", param_hint="--input"
        )
    word = match["dtype"] or "float32"
    if word not in DTYPES:
        raise typer.BadParameter(
            f"{text!r}: {word!r} is no type; known are {', '.join(DTYPES)}", param_hint="--input"
        )
    below = int(match["below"] or 2)
    if below < 1 or (match["below"] and DTYPES[word].is_floating_point):
        raise typer.BadParameter(
            f"{text!r}: the number after the type says below what integers lie; it is at least 1, "
            "and only integer types have one",
            param_hint="--input",
        )
    return InputSpec(shape, DTYPES[word], below, match["name"])


def example_inputs(options: InputOptions, *, seed: int, device: torch.device) -> Inputs:
    """The inputs that the options describe, on `device`; the same `seed`, the same numbers.

    Raises typer.BadParameter where none or both kinds are given, FileError for an unreadable file.
    """
    if bool(options.input) == bool(options.input_file):
        raise typer.BadParameter(
            "give the shape of the model's input, such as --input 1x3x224x224, or --input-file "
            "x.npy (one of the two)",
            param_hint="--input",
        )
    named = (
        _from_files(options.input_file)
        if options.input_file
        else _random([parse_input(text) for text in options.input or ()], seed)
    )
    args = tuple(tensor.to(device) for name, tensor in named if name is None)
    return Inputs(args, {name: tensor.to(device) for name, tensor in named if name is not None})


Named = list[tuple[str | None, Tensor]]


def _random(specs: Sequence[InputSpec], seed: int) -> Named:
    generator = torch.Generator().manual_seed(seed)
    return [(spec.name, spec.tensor(generator)) for spec in specs]


def _from_files(paths: Sequence[Path]) -> Named:
    return [pair for path in paths for pair in _from_file(path)]


def _from_file(path: Path) -> Named:
    refuse_bomb(path)
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return [(None, torch.from_numpy(content))]
        with content:
            if not content.files:
                raise ValueError("there is no array in it")
            return [
                (None if re.fullmatch(r"arr_\d+", name) else name, torch.from_numpy(content[name]))
                for name in content.files
            ]
    except Exception as error:  # damaged bytes make zip, zlib and the header's parser raise nearly anything
        raise FileError(
            f"--input-file {str(path)!r} cannot be read as .npy or .npz of plain numbers: {error}"
        ) from error
