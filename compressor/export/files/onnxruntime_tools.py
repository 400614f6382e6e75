"""onnxruntime's quantiser and converters, kept from leaving marks on the process that calls them."""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from compressor.errors import MissingExtraError
from compressor.runtimes.extras import require_onnx

__all__ = ["contained", "require_tools"]

_OLDEST = (1, 18)


def require_tools() -> None:
    """Raise MissingExtraError where ONNX or onnxruntime is absent, or onnxruntime too old for its tools."""
    require_onnx()
    import onnxruntime

    version = re.match(r"(\d+)\.(\d+)", onnxruntime.__version__)
    if version is None or (int(version[1]), int(version[2])) < _OLDEST:
        raise MissingExtraError(
            f"onnxruntime {onnxruntime.__version__} is installed, its tools are used from "
            f"{'.'.join(map(str, _OLDEST))} on: pip install -U 'compressor[onnx]'"
        )


@contextmanager
def contained() -> Iterator[None]:
    """Within, nothing is printed; `sys.path`, logging and ONNX's classes are as before at the end.

    onnxruntime's transformers append their folder to `sys.path` when they are first imported, and find each
    other there, later imports included. The quantiser logs through functions that set up the root logger of
    the user; the converter prints, and the usability check makes ONNX's nodes hashable.
    """
    import onnx
    import onnxruntime

    root, converter = logging.getLogger(), logging.getLogger("ort_format_model.utils")
    # With a handler there, `logging.warning` does not set one up.
    silent, level, path, node_hash = (
        logging.NullHandler(),
        converter.level,
        [*sys.path],
        onnx.NodeProto.__hash__,
    )
    root.addHandler(silent)
    converter.setLevel(logging.ERROR)
    sys.path.append(str(Path(onnxruntime.__file__).parent / "transformers"))
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        onnx.NodeProto.__hash__ = node_hash  # type: ignore[method-assign]
        sys.path[:] = path
        converter.setLevel(level)
        root.removeHandler(silent)
