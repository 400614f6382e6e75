"""onnxruntime's session with the options of ours; needs no torch, so that memory is measured without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["open_session"]


def open_session(
    file: str | bytes,
    *,
    threads: int | None,
    optimization: str,
    arena: bool = True,
    memory_pattern: bool = True,
) -> onnxruntime.InferenceSession:
    """A session on the CPU, of a path or of a file's content.

    `optimization` is onnxruntime's name of the level, with `threads` None it takes as many as it likes.
    `arena` and `memory_pattern` say how it takes memory, see `OnnxRuntime`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is fatal is raised as well
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, optimization)
    options.enable_cpu_mem_arena, options.enable_mem_pattern = arena, memory_pattern
    if threads is not None:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
