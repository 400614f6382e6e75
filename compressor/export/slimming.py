"""A smaller graph for the same computation: onnxslim, kept only where it made the file no worse."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from compressor.export.canonical import canonicalise
from compressor.runtimes.exporters import quiet
from compressor.runtimes.norm_folding import fold_norms
from compressor.runtimes.onnx_graph import strip

__all__ = ["slimmed"]

logger = logging.getLogger(__name__)


def slimmed(draft: Path, out: Path, weights: Collection[str]) -> Path | None:
    """`out`, written with fewer nodes and no more bytes than `draft` has; None where that was not to be had.

    Constants are computed (an LSTM's weights come in one piece, as a quantiser wants them), repeated ones
    shared. `weights` names the constants that keep their names. Whether the result computes the same is for
    the caller to check. onnxslim also sets onnxruntime's log level to errors.
    """
    import onnx as onnx_format
    import onnxslim

    before = onnx_format.load(str(draft))
    try:
        with quiet():
            after = onnxslim.slim(onnx_format.load(str(draft)))
        strip(after)
        fold_norms(after)
        canonicalise(after, weights)
        onnx_format.checker.check_model(after)
    except Exception as error:  # whatever a rewriting tool trips over, there is a file without it
        logger.warning(
            "onnxslim cannot slim the graph (%s: %s); it stays as exported", type(error).__name__, error
        )
        return None
    if (
        after == before
        or len(after.graph.node) > len(before.graph.node)
        or after.ByteSize() > before.ByteSize()
    ):
        return None
    onnx_format.save(after, str(out))
    return out
