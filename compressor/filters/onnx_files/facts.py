"""What an ONNX file says of its model, under the names of the published meta data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compressor.filters.bank import FilterBank
from compressor.runtimes.onnx_graph import opset_of

if TYPE_CHECKING:
    import onnx

__all__ = ["OnnxFacts", "facts_of"]


@dataclass(frozen=True)
class OnnxFacts:
    """Who wrote a file, and how many of which operators and kernels it holds.

    `depth` is the number of nodes on the longest path from an input. `kernels` counts the kernels of its 2-D
    convolutions by their size.
    """

    producer: str
    opset: int
    depth: int
    operators: Mapping[str, int]
    kernels: Mapping[tuple[int, int], int]

    def columns(self) -> dict[str, str | int | float]:
        """These facts under the names of the published meta data.

        `total_filters` leaves out kernels of 1 x 1, as there; the share of 3 x 3 among none is left out.

        >>> OnnxFacts("pytorch 2.0", 17, 3, {"Conv": 2}, {(3, 3): 24, (1, 1): 32}).columns()
        {'producer': 'pytorch 2.0', 'op_set': 17, 'depth': 3, 'Conv': 2, '(3, 3) filters': 24,
         '(1, 1) filters': 32, 'total_filters': 24, '3x3_filter_share': 1.0}
        """
        total = sum(count for size, count in self.kernels.items() if size != (1, 1))
        share = {"3x3_filter_share": self.kernels.get((3, 3), 0) / total} if total else {}
        counts = {f"({height}, {width}) filters": count for (height, width), count in self.kernels.items()}
        said: dict[str, str | int | float] = {
            "producer": self.producer,
            "op_set": self.opset,
            "depth": self.depth,
        }
        return {**said, **self.operators, **counts, "total_filters": total, **share}


def facts_of(model: onnx.ModelProto, banks: Iterable[FilterBank], depths: Mapping[str, int]) -> OnnxFacts:
    """The facts of a model, given all its banks and the depths of its nodes."""
    kernels: Counter[tuple[int, int]] = Counter()
    for bank in banks:
        if len(bank.kernel_size) == 2:
            height, width = bank.kernel_size
            kernels[height, width] += bank.count
    return OnnxFacts(
        producer=f"{model.producer_name} {model.producer_version}",
        opset=opset_of(model),
        depth=max(depths.values()) + 1,
        operators=dict(Counter(node.op_type for node in model.graph.node)),
        kernels=dict(kernels),
    )
