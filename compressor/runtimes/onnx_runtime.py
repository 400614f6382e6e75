"""onnxruntime on the CPU: of ONNX files, or of modules written as such a file for the occasion."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from compressor.core.tape import output_tensors
from compressor.errors import InputError
from compressor.runtimes.base import Ready, Runtime, Target
from compressor.runtimes.clocks import cpu_clock, pinned_to
from compressor.runtimes.drafting import LOWEST_OPSET, cpu_copy, write_draft
from compressor.runtimes.examples import bind
from compressor.runtimes.exporters import Exporter, Request
from compressor.runtimes.extras import require_onnx
from compressor.runtimes.sessions import Optimization, Session

__all__ = ["OnnxRuntime", "feeds_of", "write_fixed"]


@dataclass(frozen=True, kw_only=True, repr=False)
class OnnxRuntime(Runtime):
    """onnxruntime's CPU kernels, on ONNX files or on modules, which are written aside as fixed-shape files.

    `optimization` is onnxruntime's graph optimisation. On x86, ALL (its default) lays convolutions out in
    blocks of 16 channels, which phones do not: EXTENDED is the closer stand-in for ARM. Inputs are given in
    the order of the file's inputs, or by their names. Needs compressor[onnx].

    Memory is taken from an `arena` that grows in powers of two and gives nothing back, and with
    `memory_pattern` from the second call on as one block beside it. Without either it takes the least.

    >>> OnnxRuntime(optimization=Optimization.EXTENDED).optimization.name
    'EXTENDED'
    """

    optimization: Optimization = Optimization.ALL
    arena: bool = True
    memory_pattern: bool = True

    @property
    def version(self) -> str:
        """Which onnxruntime is installed; raises MissingExtraError where none is."""
        require_onnx()
        return f"onnxruntime {version('onnxruntime')}"

    @contextmanager
    def ready(
        self, models: Sequence[Target], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[Ready]:
        """Within, a session for each model. Raises InputError where inputs do not fit a file."""
        require_onnx()
        with tempfile.TemporaryDirectory(prefix="compressor-") as aside, pinned_to(self.pin):
            calls = []
            for number, model in enumerate(models):
                path, what = Path(aside) / f"{number}.onnx", f"model {number}"
                if isinstance(model, nn.Module):
                    feeds = write_fixed(model, args, kwargs, path)
                    what = f"the draft of {type(model).__name__}"
                else:
                    path, what = Path(model), os.fspath(model)
                    feeds = None
                session = self.session(path, what=what)
                calls.append(
                    _call(session, feeds_of(session, args, kwargs, what) if feeds is None else feeds)
                )
            yield Ready(tuple(calls), cpu_clock(self.threads))

    def session(self, path: Path, *, what: str) -> Session:
        """A session with this runtime's options; raises ExportError where onnxruntime refuses the file."""
        return Session(
            path,
            what=what,
            threads=self.threads,
            optimization=self.optimization,
            arena=self.arena,
            memory_pattern=self.memory_pattern,
        )


def write_fixed(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    path: Path,
    exporter: Exporter = Exporter.DYNAMO,
) -> dict[str, Tensor]:
    """Draft the file for exactly these inputs; what to feed it. Raises InputError where they do not fit."""
    example = bind(model, args, kwargs)
    copy = cpu_copy(model)
    call_args, call_kwargs = example.call
    try:
        with torch.no_grad():
            outputs = len(output_tensors(copy(*call_args, **call_kwargs)))
    except Exception as error:
        raise InputError(
            f"{type(model).__name__} fails on inputs of shape {list(example.shapes.values())}: "
            f"{type(error).__name__}: {error}"
        ) from error
    names = tuple(f"output_{number}" for number in range(outputs))
    request = Request(copy, example, dict.fromkeys(example.tensors, ()), LOWEST_OPSET, names)
    write_draft(request, path, exporter)
    return dict(example.tensors)


def feeds_of(
    session: Session, args: Sequence[Any], kwargs: Mapping[str, Any], what: str
) -> dict[str, Tensor]:
    """What to feed a file by name; raises InputError where the inputs do not fit it."""
    names = list(session.inputs)
    given = [leaf for leaf in _pytree.tree_leaves(list(args)) if isinstance(leaf, Tensor)]
    feeds = {**dict(zip(names, given, strict=False)), **kwargs}
    if len(given) > len(names) or set(feeds) != set(names):
        raise InputError(
            f"{what} has the inputs {', '.join(names)}; got {len(given)} in order and "
            f"{', '.join(kwargs) or 'none'} by name"
        )
    return {name: feeds[name].detach().cpu() for name in names}


def _call(session: Session, feeds: Mapping[str, Tensor]) -> Callable[[], object]:
    arrays = {name: tensor.contiguous().numpy() for name, tensor in feeds.items()}
    return lambda: session.run_arrays(arrays)
