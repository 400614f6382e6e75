"""What the emulated Python runs: each model a few times, every run between two calls of getppid.

    python guest.py PACKAGES CALLS MODEL ...

PACKAGES is the folder with onnxruntime and numpy. Only the standard library and those two.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, sys.argv[1])

import numpy as np
import onnxruntime

_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_WHOLE = {
    f"tensor({name})": name for name in ("int8", "uint8", "int16", "int32", "int64", "bool")
}  # the same names in numpy


def main() -> None:
    """Run every model of the command line `CALLS` times after one call that is not bracketed."""
    calls = int(sys.argv[2])
    for path in sys.argv[3:]:
        try:
            _run(path, calls)
        except Exception as error:
            sys.exit(f"{path}: {error}")


def _run(path: str, calls: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {node.name: _array(node) for node in session.get_inputs()}
    session.run(None, feeds)
    os.getppid()
    for _ in range(calls):
        session.run(None, feeds)
        os.getppid()


def _array(node: onnxruntime.NodeArg) -> np.ndarray:
    """Normal numbers from seed 0, zeros for whole numbers; a first axis without a size is one example."""
    first, *others = [*node.shape] or [1]
    shape = [first if isinstance(first, int) else 1, *others][: len(node.shape)]
    if not all(isinstance(size, int) for size in shape):
        raise ValueError(f"input {node.name!r} has the shape {node.shape}; fix every size but the first")
    if node.type in _FLOATS:
        return np.random.default_rng(0).standard_normal(shape).astype(_FLOATS[node.type])
    if node.type in _WHOLE:
        return np.zeros(shape, _WHOLE[node.type])
    raise ValueError(f"input {node.name!r} is a {node.type}, which this benchmark cannot make up")


if __name__ == "__main__":
    main()
