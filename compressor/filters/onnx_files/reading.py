"""The convolutions of an ONNX file as banks, by the rules that CNN Filter DB was made with."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import FileError, InputError
from compressor.extras import imported
from compressor.filters.bank import FilterBank
from compressor.filters.depths import conv_depths
from compressor.filters.kernel_sizes import KernelSize, check_wanted, is_wanted, size_words
from compressor.filters.onnx_files.constants import Constants, NotConstantError
from compressor.filters.onnx_files.depths import node_depths
from compressor.filters.onnx_files.facts import OnnxFacts, facts_of
from compressor.filters.onnx_files.growth import inlined_nodes
from compressor.runtimes.onnx_graph import inner_graphs

if TYPE_CHECKING:
    import onnx

__all__ = ["OnnxBanks", "Unread", "banks_of_onnx", "external_files", "read_onnx"]

log = logging.getLogger(__name__)

_MOST_NODES = 1_000_000
"""How many nodes a graph may have once functions stand in it; large networks have some ten thousand."""

_NAMED = 10
"""How many of the convolutions that cannot be read an error names."""


@dataclass(frozen=True)
class Unread:
    """A convolution, or a file, that was not read, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, repr=False, eq=False)
class OnnxBanks:
    """The banks of a file, facts about it, and what of it could not be read.

    `node_depths` gives for each bank the number of nodes on the longest path from an input to its node.
    """

    path: Path
    banks: tuple[FilterBank, ...]
    node_depths: tuple[int, ...]
    facts: OnnxFacts
    unread: tuple[Unread, ...] = ()

    def __repr__(self) -> str:
        left = f", {len(self.unread)} convolutions not read" if self.unread else ""
        return f"OnnxBanks({self.path.name}: {len(self.banks)} banks{left})"


def banks_of_onnx(
    path: str | os.PathLike[str],
    *,
    kernel_size: KernelSize = (3, 3),
    model_name: str | None = None,
) -> tuple[FilterBank, ...]:
    """The convolutions of a file with kernels of that size (None: of any), in the order of its graph.

    Rules and errors are those of `read_onnx`, which also leaves out what cannot be read, on request.

    >>> import tempfile, torch
    >>> from onnx import TensorProto, helper, numpy_helper
    >>> weights = [numpy_helper.from_array(torch.randn(8, 3, k, k).numpy(), f"conv{k}") for k in (3, 5)]
    >>> nodes = [helper.make_node("Conv", ["x", f"conv{k}"], [f"y{k}"]) for k in (3, 5)]
    >>> ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "y5")]
    >>> net = helper.make_model(helper.make_graph(nodes, "net", ends[:1], ends[1:], weights))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "net.onnx"
    ...     _ = file.write_bytes(net.SerializeToString())
    ...     banks_of_onnx(file), banks_of_onnx(file, kernel_size=None)
    ((FilterBank(conv3: 8 x 3 kernels of 3 x 3),),
     (FilterBank(conv3: 8 x 3 kernels of 3 x 3), FilterBank(conv5: 8 x 3 kernels of 5 x 5)))
    """
    return read_onnx(path, kernel_size=kernel_size, model_name=model_name).banks


def read_onnx(
    path: str | os.PathLike[str],
    *,
    kernel_size: KernelSize = (3, 3),
    model_name: str | None = None,
    skip_unreadable: bool = False,
) -> OnnxBanks:
    """The banks of a file, facts about it, and, with `skip_unreadable`, the convolutions that were left out.

    Every node `Conv` of the graph is a bank, depthwise and grouped ones as well, a shared weight once for
    each node; transposed convolutions are not read. `layer_id` counts the banks that are kept. The depth of
    a node is that of the longest path from an input of the model; `conv_depth` is its rank among the depths
    of all convolutions of as many axes, of any kernel size, so that parallel ones share it;
    `conv_depth_norm` is that rank over the last. A bank is named after its weight; its model is
    `model_name`, or the name of the file.

    Whether batch norms were folded in is not said in a file (exporters do it in eval mode), so `folded` is
    False.

    *Source: P. Gavrikov, J. Keuper, CNN Filter DB, 2022, arXiv 2203.15331, and its released extraction.*
    Departures: weights that nodes compute from constants (Identity, Cast, DequantizeLinear and others) are
    computed, where the original gives up the model; the weight is the node's second input, there its first
    initializer; `conv_depth_norm` of a model with one depth is 0, there a division by zero; convolutions in
    functions are inlined, there lost; kernels of other sizes and numbers of axes on request.

    What cannot be read is an error, or stands in `unread` and in the log: weights that depend on an input,
    are drawn at random, stored sparse, not floating, not finite or empty; convolutions in branches and
    loops; other operators that convolve (QLinearConv, ConvInteger, FusedConv, DeformConv).

    Raises FileError for a file that is missing, truncated, no ONNX file, or not to be read in full;
    InputError where it holds no convolution with such kernels; MissingExtraError without onnx.
    """
    check_wanted(kernel_size)
    file = Path(path)
    proto = _loaded(file)
    name = file.stem if model_name is None else model_name
    banks, unread = _banks(proto, Constants(proto, file.parent), name)
    _complain(file, unread, skipping=skip_unreadable)
    kept = {output: bank for output, bank in banks.items() if is_wanted(bank.kernel_size, kernel_size)}
    if not kept:
        raise InputError(_none_kept(file, kernel_size, banks.values()))
    depths = node_depths(proto.graph)
    places = _places(proto.graph, banks, depths)
    placed = []
    for layer_id, (output, bank) in enumerate(kept.items()):
        depth, norm = places[output]
        placed.append(replace(bank, layer_id=layer_id, conv_depth=depth, conv_depth_norm=norm))
    facts = facts_of(proto, banks.values(), depths)
    return OnnxBanks(file, tuple(placed), tuple(depths[output] for output in kept), facts, tuple(unread))


def external_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The files beside an ONNX file that hold values of its initializers, by their names in order.

    Raises FileError where one is missing, no plain file, or outside of the folder.
    """
    file = Path(path)
    initializers = _loaded(file).graph.initializer
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    stored = [tensor for tensor in initializers if uses_external_data(tensor)]
    names = sorted({ExternalDataInfo(tensor).location for tensor in stored})
    for name in names:
        beside = file.parent / name
        if not beside.resolve().is_relative_to(file.parent.resolve()) or not beside.is_file():
            raise FileError(f"{file} keeps values in {name!r}, which is no file in its folder")
    return tuple(file.parent / name for name in names)


def _loaded(file: Path) -> onnx.ModelProto:
    """The model, its functions inlined; values of a second file are read when they are asked for."""
    library = imported("onnx", extra="onnx", needed_for="reading ONNX files")
    inliner = imported("onnx.inliner", extra="onnx", needed_for="reading ONNX files")
    if not file.is_file():
        raise FileError(f"{file}: no such ONNX file")
    try:
        proto: onnx.ModelProto = library.load(str(file), load_external_data=False)
        for kind, there in (("graph", proto.graph.node), ("opset", proto.opset_import)):
            if not there:
                raise ValueError(f"it holds no {kind}")
        for node in proto.graph.node:
            if not all(isinstance(name, str) for name in (node.op_type, *node.input, *node.output)):
                raise ValueError(f"a name in its node {node.name!r} is no text")
        if not proto.functions:
            return proto
        if (nodes := inlined_nodes(proto)) > _MOST_NODES:
            raise ValueError(f"its functions make it {nodes:,} nodes, at most {_MOST_NODES:,} are read")
        inlined: onnx.ModelProto = inliner.inline_local_functions(proto)
        return inlined
    except Exception as error:  # protobuf and the inliner raise kinds of their own
        raise FileError(
            f"{file}: cannot be read as an ONNX file ({type(error).__name__}: {error}); it may be truncated "
            "or of another format: export it again"
        ) from error


def _banks(
    proto: onnx.ModelProto, constants: Constants, model: str
) -> tuple[dict[str, FilterBank], list[Unread]]:
    """The bank of each convolution by the value it makes, and those that cannot be read."""
    banks: dict[str, FilterBank] = {}
    unread = list(_other_convolutions(proto.graph))
    for node in proto.graph.node:
        if node.op_type == "Conv":
            try:
                banks[node.output[0]] = _bank(node, constants, model)
            except (NotConstantError, InputError) as error:
                unread.append(Unread(node.name or node.output[0], str(error)))
    return banks, unread


def _bank(node: onnx.NodeProto, constants: Constants, model: str) -> FilterBank:
    groups = next((int(attribute.i) for attribute in node.attribute if attribute.name == "group"), 1)
    if len(node.input) < 2:
        raise NotConstantError("the node names no weight")
    return FilterBank(constants.value(node.input[1]), node.input[1], model=model, groups=groups)


def _other_convolutions(graph: onnx.GraphProto, within: str = "") -> Iterator[Unread]:
    """Operators that convolve and are none of the graph's own `Conv`; transposed ones are no fault."""
    for node in graph.node:
        transposed = node.op_type.startswith("ConvTranspose")
        if "Conv" in node.op_type and not transposed and (within or node.op_type != "Conv"):
            reason = f"{node.op_type} in a graph of {within}" if within else f"{node.op_type} is no Conv"
            yield Unread(node.name or node.output[0], reason)
        for inner in inner_graphs(node):
            yield from _other_convolutions(inner, node.op_type)


def _places(
    graph: onnx.GraphProto, banks: Mapping[str, FilterBank], depths: Mapping[str, int]
) -> dict[str, tuple[int, float]]:
    """The rank of each convolution's depth among those over as many axes, those not read included."""
    beside: dict[int, list[str]] = defaultdict(list)
    for node in graph.node:
        if node.op_type == "Conv":
            output = node.output[0]
            beside[len(banks[output].kernel_size) if output in banks else _axes(node)].append(output)
    places: dict[str, tuple[int, float]] = {}
    for outputs in beside.values():
        places.update(zip(outputs, conv_depths([depths[output] for output in outputs]), strict=True))
    return places


def _axes(node: onnx.NodeProto) -> int:
    """The number of axes of a convolution whose weight is not known; 2 where the node does not say."""
    return next((len(entry.ints) for entry in node.attribute if entry.name == "kernel_shape"), 2)


def _complain(file: Path, unread: Sequence[Unread], *, skipping: bool) -> None:
    if unread and not skipping:
        lines = [f"  {entry}" for entry in unread[:_NAMED]]
        more = [f"  and {len(unread) - _NAMED} more"] if len(unread) > _NAMED else []
        raise FileError(
            f"{file}: {len(unread)} convolutions cannot be read; leave them out with "
            "read_onnx(path, skip_unreadable=True), or export the model again:\n" + "\n".join(lines + more)
        )
    for entry in unread:
        log.warning("%s: left out %s", file, entry)


def _none_kept(file: Path, kernel_size: KernelSize, banks: Iterable[FilterBank]) -> str:
    sizes = Counter(size_words(bank.kernel_size) for bank in banks)
    held = ", ".join(f"{count} of {named}" for named, count in sizes.items())
    wanted = "that can be read" if kernel_size is None else f"with kernels of size {kernel_size}"
    other = f"; it holds {held}: kernel_size=None takes all" if held else ""
    return f"{file}: holds no convolution {wanted}{other}"
