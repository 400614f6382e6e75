"""The arguments of an export: the path behind the inputs, and what no format can hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import ExportError, InputError
from compressor.runtimes.examples import Example

__all__ = ["named_outputs", "refuse_bfloat16", "require_module", "require_size", "split_file", "split_path"]


def split_file(args: Sequence[Any], *, verb: str, suffix: str) -> tuple[Path, tuple[Any, ...]]:
    """The path of a file that ends `args`, and the inputs before it; InputError where there is none."""
    path, inputs = split_path(args, kind="file", example=f'{verb}(model, x, "net{suffix}")')
    if path.is_dir():
        raise InputError(f"{path} is a folder; the path of a file is expected, as {path / f'net{suffix}'}")
    return path, inputs


def split_path(args: Sequence[Any], *, kind: str, example: str) -> tuple[Path, tuple[Any, ...]]:
    """The path of a `kind` that ends `args`, and the inputs before it; InputError where there is none."""
    if not args or not isinstance(args[-1], (str, os.PathLike)):
        raise InputError(
            f"the last positional argument is the path of the {kind}, as in {example}; got "
            f"{type(args[-1]).__name__ if args else 'none'}"
        )
    return Path(args[-1]), tuple(args[:-1])


def require_module(model: nn.Module, *, verb: str) -> None:
    """Raise InputError for what is no module."""
    if not isinstance(model, nn.Module):
        raise InputError(f"{verb} needs a torch.nn.Module, got {type(model).__name__}")


def require_size(model: nn.Module, *, largest_bytes: int) -> None:
    """Raise ExportError where the weights do not fit into one ONNX file."""
    weight_bytes = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    if weight_bytes >= largest_bytes:
        raise ExportError(
            f"{type(model).__name__} has {weight_bytes:,} bytes of weights, and a single ONNX file "
            f"holds less than 2 GiB; prune more, or export model.half()"
        )


def refuse_bfloat16(model: nn.Module, example: Example, *, runtime: str) -> None:
    """Raise ExportError for weights or inputs in bfloat16."""
    for name, tensor in {**dict(model.named_parameters()), **example.tensors}.items():
        if tensor.dtype == torch.bfloat16:
            raise ExportError(
                f"{name!r} is bfloat16, which {runtime} does not compute on a CPU; export "
                f"model.float() with float32 inputs"
            )


def named_outputs(given: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """A name for each of `count` outputs; InputError where `given` are not as many different ones."""
    if given is None:
        return ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))
    if len(given) != count or len(set(given)) != count or isinstance(given, str):
        raise InputError(f"output_names must be {count} different names, one for each output, got {given!r}")
    return tuple(given)
