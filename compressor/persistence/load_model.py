"""Loads the pruned network saved in this folder; needs torch and safetensors, nothing else.

(Where its plan patches numbers in a forward, it also needs the library that wrote it, compressor.)

    from load_model import load
    model = load(Net)  # Net() builds the original, unpruned network

From a shell, `python load_model.py package.module:Net` prints how many parameters it has.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_in
from torch import Tensor, nn

FORMAT, VERSION = "compressor-model", 1
HERE = Path(__file__).parent
PENDING = ".replacing"  # in it whole files wait that were on their way into the folder when a save was killed


class LoadError(Exception):
    """The folder is damaged, or belongs to another network than the one that was built."""


def load(build: Callable[[], nn.Module], directory: str | Path = HERE) -> nn.Module:
    """The pruned network: what `build()` returns, cut to size, with the weights in `directory`."""
    folder = Path(directory)
    with sense_in(folder):
        manifest, files = read(folder)
        weights, plan = tensors_in(files["weights.safetensors"]), json.loads(files["plan.json"])
        for name in {**manifest["tensors"], **weights}:
            facts, tensor = manifest["tensors"].get(name), weights.get(name)
            if facts is None or tensor is None or list(tensor.shape) != facts["shape"]:
                raise LoadError(f"{folder / 'weights.safetensors'} has {name!r} otherwise than manifest.json")
    model = build()
    with sense_in(folder):
        fill(model, manifest, plan, weights, folder)
    return model


@contextmanager
def sense_in(folder: Path) -> Iterator[None]:
    """A LoadError in place of whatever files raise that are what they were written as, and make no sense."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise LoadError(
            f"the files in {folder} contradict each other ({type(error).__name__}: {error}); copy or save "
            f"the model again"
        ) from error
    except SafetensorError as error:
        raise LoadError(f"{folder / 'weights.safetensors'} is damaged ({error})") from error


def read(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the content of every file it lists, checked against its digests."""
    path = place(folder, "manifest.json")
    if not path.is_file():
        raise LoadError(
            f"{path} is missing: {folder} is not the folder of a saved model, or saving was interrupted"
        )
    try:
        manifest = json.loads(path.read_bytes())
        written, version, digest = (manifest.pop(key) for key in ("format", "version", "digest"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LoadError(f"{path} is damaged ({error}); copy or save the model again") from error
    if written != FORMAT or version != VERSION:
        raise LoadError(
            f"{path} has format {written!r} version {version!r}, expected {FORMAT!r} version "
            f"{VERSION}; load it with the load_model.py beside it or with the library version that "
            f"wrote it"
        )
    if digest != hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest():
        raise LoadError(f"{path} was changed after it was written; copy or save the model again")
    for name in manifest["files"]:
        if Path(name).name != name or name == "..":
            raise LoadError(f"{path} names the file {name!r}, which is not in its folder")
    return manifest, {name: content(place(folder, name), facts) for name, facts in manifest["files"].items()}


def place(folder: Path, name: str) -> Path:
    """Where a file of the model is: in the folder, or in PENDING, which has a manifest while any wait."""
    pending = folder / PENDING
    waits = (pending / "manifest.json").is_file() and (pending / name).is_file()
    return (pending if waits else folder) / name


def content(path: Path, facts: dict[str, Any]) -> bytes:
    """The bytes of one file, which must have the length and digest noted in the manifest."""
    if not path.is_file():
        raise LoadError(f"{path} is missing; copy or save the whole folder again")
    size = path.stat().st_size
    if size != facts["bytes"]:
        raise LoadError(
            f"{path} has {size} bytes, expected {facts['bytes']}: truncated or changed; "
            f"copy or save the model again"
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise LoadError(f"{path} was changed after it was written; copy or save the model again")
    return data


def fill(
    model: nn.Module,
    manifest: dict[str, Any],
    plan: dict[str, Any],
    weights: dict[str, Tensor],
    folder: Path,
) -> None:
    """Make the freshly built `model` the saved one: ties, sizes, tensors, flags and modes."""
    tie(model, manifest["aliases"])
    named = tensors_of(model)
    fault = difference(model, named, manifest, plan)
    if fault is not None:
        raise LoadError(
            f"{folder} holds a pruned {manifest['model']}, and the {type(model).__name__} that "
            f"was built is not its original: {fault}. Build it with the arguments it had before "
            f"pruning"
        )
    modules = dict(model.named_modules())
    for path, attribute, _, new in plan["sizes"]:
        old = getattr(modules[path], attribute)
        setattr(modules[path], attribute, new if isinstance(new, int) else type(old)(new))
    trainable, training = set(manifest["trainable"]), set(manifest["training"])
    for name, tensor in named.items():
        new, stride = weights[name].clone(), manifest["tensors"][name].get("stride")
        if stride is not None:
            new = torch.empty_strided(new.shape, stride, dtype=new.dtype).copy_(new)
        tensor.grad = None
        tensor.data = new.to(tensor.device)
        tensor.requires_grad_(name in trainable)
    for name, module in modules.items():
        module.training = name in training
    reason = needs_library(modules, plan)
    if reason is not None:
        finish(model, plan, reason)


def needs_library(modules: dict[str, nn.Module], plan: dict[str, Any]) -> str | None:
    """Why the forward of the network has to be changed as well, or None where its tensors are enough."""
    if plan.get("patches"):
        module, function, call, argument, old, new = plan["patches"][0]
        return (
            f"the forward of {module or 'the network'!r} holds numbers that pruning changed (the first: "
            f"{function}, call {call + 1}, argument {argument}: {old} -> {new})"
        )
    for path, module in modules.items():
        inside = f"{path}." if path else ""
        if type(module) is nn.MultiheadAttention and any(c[0].startswith(inside) for c in plan["cuts"]):
            return f"the attention {path!r} was cut to sizes that torch's does not take"
    return None


def finish(model: nn.Module, plan: dict[str, Any], reason: str) -> None:
    """Have the forwards of the network follow what was cut."""
    try:
        surgery = importlib.import_module("compressor.core.surgery")
        plans = importlib.import_module("compressor.core.plan")
    except ImportError as error:
        raise LoadError(
            f"{reason}; to load this network, install the library that pruned it: pip install compressor"
        ) from error
    surgery.follow(model, plans.Plan.from_json(json.dumps(plan)))


def tie(model: nn.Module, aliases: dict[str, str]) -> None:
    """Let names that shared one tensor when the model was saved share it again."""
    for alias, name in aliases.items():
        try:
            tensor = model.get_submodule(name.rpartition(".")[0]).get_parameter(name.rpartition(".")[2])
            owner, leaf = model.get_submodule(alias.rpartition(".")[0]), alias.rpartition(".")[2]
        except AttributeError:
            continue  # `difference` says what the model lacks
        if leaf in owner._parameters and owner._parameters[leaf] is not tensor:
            setattr(owner, leaf, tensor)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Every distinct parameter and buffer by its first name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def difference(
    model: nn.Module, named: dict[str, Tensor], manifest: dict[str, Any], plan: dict[str, Any]
) -> str | None:
    """The first way in which the built model is not the one that was pruned, or None."""
    expected = {name: list(shape) for name, shape in plan["tensors"]}
    for name, shape in expected.items():
        if name not in named:
            return f"tensor {name!r} {shape} is missing"
        if list(named[name].shape) != shape:
            return f"tensor {name!r} is {list(named[name].shape)}, expected {shape}"
        if named[name].is_meta:
            return f"tensor {name!r} is on the meta device, expected one with memory"
    for name in named:
        if name not in expected:
            return f"tensor {name!r} {list(named[name].shape)} is not part of it"
    modules = dict(model.named_modules())
    for name, kind in manifest["layers"].items():
        if name not in modules or type(modules[name]).__name__ != kind:
            found = type(modules[name]).__name__ if name in modules else "nothing"
            return f"module {name!r} is {found}, expected {kind}"
    for path, attribute, old, _ in plan["sizes"]:
        value = getattr(modules.get(path), attribute, None)
        if (list(value) if isinstance(value, (list, tuple)) else value) != old:
            return f"{path}.{attribute} is {value!r}, expected {old!r}"
    return None


if __name__ == "__main__":
    if len(sys.argv) != 2 or ":" not in sys.argv[1]:
        sys.exit("usage: python load_model.py package.module:Net")
    sys.path.insert(0, "")
    module_name, _, attribute_name = sys.argv[1].partition(":")
    try:
        network = load(getattr(importlib.import_module(module_name), attribute_name))
    except LoadError as error:
        sys.exit(f"error: {error}")
    count = sum(parameter.numel() for parameter in network.parameters())
    sys.stdout.write(f"{type(network).__name__}: {count:,} parameters\n")
