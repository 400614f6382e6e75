"""Saving a pruned model: a folder holds the old one or the new one, at every moment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from compressor.core.alone import alone
from compressor.core.plan import Plan
from compressor.core.surgery import plan_of, signature_of
from compressor.core.tape import named_tensors
from compressor.errors import FileError, InputError, ModelError, PlanMismatchError
from compressor.persistence.example import Example, example_tensors
from compressor.persistence.load_model import FORMAT, PENDING, VERSION, place
from compressor.whole_files import on_disk, written_through

__all__ = ["save", "unpruned"]


def save(
    model: nn.Module,
    directory: str | Path,
    *,
    plan: Plan | None = None,
    example: Example | None = None,
    overwrite: bool = False,
) -> None:
    """Write a pruned model as a folder for `load`, or for its own load_model.py elsewhere.

    A pruned model knows its plan. Copies of it do not and need `plan`, which leads from what the
    constructor builds to `model`; it is `unpruned(model)` where nothing was cut. With `example` (a
    tensor, a tuple of positional or a dict of keyword tensors) the outputs on it are kept as well,
    and `load` compares.

    With `overwrite`, an earlier saved model is replaced; other files in the folder are left alone. A process
    that is killed meanwhile leaves the one or the other, whole.

    Raises InputError when the plan is not known, PlanMismatchError when it does not lead to
    `model`, ModelError for what safetensors cannot hold, FileError when writing fails.

    >>> import tempfile, compressor as cp
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(net, folder, plan=unpruned(net))
    ...     sorted(path.name for path in Path(folder).iterdir())
    ['load_model.py', 'manifest.json', 'plan.json', 'weights.safetensors']
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"save needs a torch.nn.Module, got {type(model).__name__}")
    with alone():
        plan = _checked_plan(model, plan)
        _refuse_what_cannot_be_kept(model)
        files = _contents(model, plan, example)
    _write(Path(directory), files, overwrite=overwrite)


def _contents(model: nn.Module, plan: Plan, example: Example | None) -> dict[str, bytes]:
    """The files by name, the manifest last."""
    tensors = named_tensors(model)
    files = {
        "plan.json": plan.to_json().encode(),
        "weights.safetensors": _packed(tensors, f"the weights of {type(model).__name__}"),
        "load_model.py": resources.files(__package__).joinpath("load_model.py").read_bytes(),
    }
    if example is not None:
        files["example.safetensors"] = _packed(example_tensors(model, example), "the example")
    files["manifest.json"] = _manifest(model, tensors, files)
    return files


def unpruned(model: nn.Module) -> Plan:
    """The plan without cuts: what `save` needs for a model that its constructor builds as it is.

    >>> print(unpruned(nn.Linear(2, 1)))
    Plan for Linear: 0 cuts, 0 sizes
    """
    return Plan((), (), signature_of(model))


# -- checks --------------------------------------------------------------------------------------


def _checked_plan(model: nn.Module, plan: Plan | None) -> Plan:
    kind = type(model).__name__
    if plan is None:
        plan = plan_of(model)
    if plan is None:
        raise InputError(
            f"how this {kind} came from the one that its constructor builds is not known: it was "
            f"never pruned, or it is a copy of a pruned model, or was changed since. Pass plan=…; "
            f"for a model as its constructor builds it, plan=compressor.persistence.unpruned(model)"
        )
    mismatch = plan.result.first_mismatch(signature_of(model))
    if mismatch is not None:
        hint = "Save what apply(model, plan) returns, and add or replace layers after loading"
        raise PlanMismatchError(f"this {kind} is not what the plan makes of the original: {mismatch}. {hint}")
    return plan


def _refuse_what_cannot_be_kept(model: nn.Module) -> None:
    for path, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ModelError(
                f"module {path!r} ({type(module).__name__}) has extra state, which only a pickle "
                f"could hold; keep it as a buffer"
            )
    for name, tensor in named_tensors(model).items():
        if tensor.is_meta:
            raise ModelError(f"tensor {name!r} is on the meta device and has no values to save")
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ModelError(
                f"tensor {name!r} is {'quantised' if tensor.is_quantized else tensor.layout}; "
                f"safetensors holds dense tensors only. Save the floating-point model"
            )


# -- contents ------------------------------------------------------------------------------------


def _packed(tensors: Mapping[str, Tensor], what: str) -> bytes:
    plain = {name: _plain(tensor) for name, tensor in tensors.items()}
    try:
        return to_safetensors(plain, metadata={"format": "pt", "written_by": FORMAT})
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        kinds = ", ".join(sorted({str(tensor.dtype) for tensor in plain.values()}))
        raise ModelError(f"safetensors cannot hold {what} ({kinds}): {error}") from error


def _plain(tensor: Tensor) -> Tensor:
    """Values in a memory of their own: safetensors refuses tensors that share one."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _manifest(model: nn.Module, tensors: Mapping[str, Tensor], files: Mapping[str, bytes]) -> bytes:
    content = {
        "model": type(model).__name__,
        "torch": str(torch.__version__),
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        },
        "tensors": {name: _facts(tensor) for name, tensor in tensors.items()},
        "aliases": dict(_aliases(model)),
        "layers": {
            name: type(module).__name__
            for name, module in model.named_modules()
            if next(module.children(), None) is None
        },
        "trainable": [name for name, tensor in tensors.items() if tensor.requires_grad],
        "training": [name for name, module in model.named_modules() if module.training],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    head = {"format": FORMAT, "version": VERSION, "digest": digest}
    return (json.dumps({**head, **content}, indent=1) + "\n").encode()


def _facts(tensor: Tensor) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
    }
    # Kernels are chosen by memory layout, and outputs are to be equal to the last bit.
    if tensor.stride() != torch.empty(tensor.shape, device="meta").stride() and _is_dense(tensor):
        facts["stride"] = list(tensor.stride())
    return facts


def _is_dense(tensor: Tensor) -> bool:
    """Whether the strides are those of a permuted contiguous tensor: no gaps, no overlaps."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _aliases(model: nn.Module) -> Iterator[tuple[str, str]]:
    first = {id(tensor): name for name, tensor in named_tensors(model).items()}
    for every in (model.named_parameters, model.named_buffers):
        for name, tensor in every(remove_duplicate=False):
            if name != first[id(tensor)]:
                yield name, first[id(tensor)]


# -- files ---------------------------------------------------------------------------------------


def _write(folder: Path, files: Mapping[str, bytes], *, overwrite: bool) -> None:
    """Write the files aside, say by one rename that they count, and only then put them in place one by one.

    A process that is killed before that rename leaves the old model; after it `load` finds the new one, whose
    files are in the folder or still in PENDING, and the next save puts the rest in place.
    """
    names = (*files, "example.safetensors")
    present = [name for name in names if place(folder, name).exists()]
    if present and not overwrite:
        raise FileError(
            f"{folder} holds {present[0]} already; choose another folder, or pass overwrite=True "
            f"to replace the model in it"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _put_in_place(folder)
        draft = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        try:
            for name, data in files.items():
                written_through(draft / name, data)
            on_disk(draft)
            os.replace(draft, folder / PENDING)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        on_disk(folder)
        _put_in_place(folder)
        if "example.safetensors" not in files:  # an earlier model's, which `load` does not look at any more
            (folder / "example.safetensors").unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"cannot write the model to {folder}: {error}") from error


def _put_in_place(folder: Path) -> None:
    """Move what waits in PENDING into the folder, the manifest last."""
    pending = folder / PENDING
    if not pending.exists():
        return
    for path in sorted(pending.iterdir(), key=lambda path: path.name == "manifest.json"):
        os.replace(path, folder / path.name)
    on_disk(folder)
    pending.rmdir()
