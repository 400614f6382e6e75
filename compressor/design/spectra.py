"""The spectra of what layers write, for each group of channels: of their filters, or of what these answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compressor.core.graph import Axis, Graph, UnitArray
from compressor.core.tape import named_tensors
from compressor.design.norm_scales import norm_scales
from compressor.errors import InputError
from compressor.filters import Moments
from compressor.filters.bank import require_finite
from compressor.observing import LayerCall, run_batches
from compressor.scoring.weights import channel_slices, weights_of

__all__ = ["ActivationSpectra", "FilterSpectra", "Spectra", "WriterSpectrum", "output_axes", "written_axes"]

_AT_ONCE = 1 << 22  # values of a weight that are held in float64 at a time


@dataclass(frozen=True, eq=False)
class WriterSpectrum:
    """The spectrum [n] of the channels of one group (or one of its cells) that `tensor` writes.

    `group` is the position in `graph.groups`; `rows` is how many channels there are, `alive` how many of them
    are not dead.
    """

    tensor: str
    group: int
    spectrum: Tensor
    rows: int
    alive: int


class Spectra(ABC):
    """A source of spectra; subclass it with the one method `of`."""

    @abstractmethod
    def of(self, graph: Graph) -> tuple[WriterSpectrum, ...]:
        """The spectra of every group of a graph, one for each layer that writes it (and each cell)."""


@dataclass(frozen=True, repr=False)
class FilterSpectra(Spectra):
    """Squared singular values of the filter matrix F [O, I·k] of each convolution, matrix or recurrent layer.

    With `fold_batch_norm` each filter is multiplied by the scale of the batch norm behind it, as a filter
    that is scaled to nothing writes nothing. Filters whose largest weight is below `dead` times the layer's
    are left out, see `WriterSpectrum.alive`. F is not centred: parallel filters are one direction. A weight
    that is computed (weight norm) is taken as the parameter of its shape.

    Depthwise convolutions have no such spectrum, as each of their filters reads a channel of its own; nor
    have heads and dims of attention, which share their rows.

    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
    >>> _ = torch.nn.init.ones_(net[0].weight)
    >>> [found] = FilterSpectra().of(cp.capture(net, torch.ones(1, 1, 8, 8)))
    >>> found.tensor, [round(value, 6) for value in found.spectrum.tolist()]
    ('0.weight', [36.0, 0.0, 0.0, 0.0])
    """

    _: KW_ONLY
    fold_batch_norm: bool = True
    dead: float = 0.01

    def __post_init__(self) -> None:
        if isinstance(self.dead, bool) or not 0 <= self.dead < 1:
            raise InputError(f"FilterSpectra(dead={self.dead!r}): a share of the largest weight, 0 to 1")

    def __repr__(self) -> str:
        return f"FilterSpectra({_options(self, FilterSpectra())})"

    def of(self, graph: Graph) -> tuple[WriterSpectrum, ...]:
        """The spectra of filters; InputError, with the name of the weight, where one is not finite."""
        tensors, scales = weights_of(graph), norm_scales(graph) if self.fold_batch_norm else {}
        found = []
        for axis in written_axes(graph):
            require_finite(tensors[axis.tensor], axis.tensor)
            rows = channel_slices(tensors[axis.tensor], axis)
            scale = scales.get(axis.tensor, torch.ones(len(rows), dtype=torch.float64))
            require_finite(scale, f"the scale of the batch norm behind {axis.tensor}")
            peaks = torch.linalg.vector_norm(rows, torch.inf, dim=1).to("cpu", torch.float64) * scale.abs()
            for group, channels in _cells(graph, axis):
                units = torch.from_numpy(channels)
                alive = units[peaks[units].amax(1) >= self.dead * peaks.max()] if peaks.any() else units[:0]
                values = _squared_singular(rows, scale, alive)
                found.append(WriterSpectrum(axis.tensor, group, values, len(units), len(alive)))
        return tuple(found)


@dataclass(frozen=True, eq=False, repr=False)
class ActivationSpectra(Spectra):
    """Eigenvalues of the covariance of what each layer writes over `batches`: images and places are samples.

    With `fold_batch_norm` as behind the batch norm, see `FilterSpectra`. A channel whose deviation is below
    `dead` times the layer's largest is dead. Batches are read as by the scorers that take them.

    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> graph = cp.capture(net, torch.ones(1, 1))
    >>> [found] = ActivationSpectra([torch.randn(32, 1)]).of(graph)
    >>> found.rows, int((found.spectrum > 1e-9).sum())  # one input can move in one direction only
    (4, 1)
    """

    batches: Iterable[object]
    _: KW_ONLY
    fold_batch_norm: bool = True
    dead: float = 0.01

    def __post_init__(self) -> None:
        if isinstance(self.dead, bool) or not 0 <= self.dead < 1:
            raise InputError(
                f"ActivationSpectra(dead={self.dead!r}): a share of the largest deviation, 0 to 1"
            )

    def __repr__(self) -> str:
        return f"ActivationSpectra({_options(self, ActivationSpectra(()))})"

    def of(self, graph: Graph) -> tuple[WriterSpectrum, ...]:
        """The spectra of activations; InputError, with the name of the layer, where they are not finite."""
        axes = {axis.tensor: axis for axis in written_axes(graph)}
        seen: dict[str, Moments] = {}

        def see(call: LayerCall) -> None:
            axis = axes.get(call.weight)
            if axis is not None and axis.axis == call.writer_axis:
                rows = call.output.movedim(call.channel_dim, -1).flatten(0, -2)
                require_finite(rows, f"what {call.weight} writes")
                moments = Moments.of(rows)
                seen[call.weight] = seen[call.weight].merge(moments) if call.weight in seen else moments

        run_batches(graph.model, self.batches, see)
        scales = norm_scales(graph) if self.fold_batch_norm else {}
        found = []
        for tensor, moments in seen.items():
            scale = scales[tensor] if tensor in scales else torch.ones(moments.width).double()
            covariance = moments.covariance * torch.outer(scale, scale)
            deviation = covariance.diagonal().clamp(min=0).sqrt()
            peak = float(deviation.max())
            for group, channels in _cells(graph, axes[tensor]):
                if channels.shape[1] > 1:
                    continue  # gates of a recurrent layer, which is not seen as a matrix
                own = torch.from_numpy(channels[:, 0])
                alive = own[deviation[own] >= self.dead * peak] if peak else own[:0]
                values = _eigenvalues(covariance[alive][:, alive])
                found.append(WriterSpectrum(tensor, group, values, len(own), len(alive)))
        return tuple(found)


def written_axes(graph: Graph) -> Iterator[Axis]:
    """The axis of every weight of a convolution, matrix or recurrent layer along which its outputs lie.

    Weights that read nothing across channels (depthwise, tables of embeddings) have none.
    """
    reading = {axis.tensor for axis in graph.axes if axis.role == "reader"}
    for name, module in graph.model.named_modules():  # of a single input channel
        if isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and module.groups == 1):
            reading.add(f"{name}.weight" if name else "weight")
    yield from (axis for axis in output_axes(graph) if axis.tensor in reading)


def output_axes(graph: Graph) -> tuple[Axis, ...]:
    """The axis of every parameter of two axes or more along which its outputs lie."""
    tensors = named_tensors(graph.model)
    first: dict[str, Axis] = {}
    for axis in sorted(graph.axes, key=lambda axis: axis.axis):  # the extents of a kernel come behind
        if axis.role == "writer" and tensors[axis.tensor].ndim > 1:
            first.setdefault(axis.tensor, axis)
    return tuple(axis for axis in graph.axes if first.get(axis.tensor) is axis)


def _cells(graph: Graph, axis: Axis) -> Iterator[tuple[int, UnitArray]]:
    """For every cell of every group that the axis writes the channels [units, times] of its units."""
    if axis.units.ndim > 1:
        return  # heads and dims of attention
    for group in np.unique(graph.group_of[axis.units[axis.units >= 0]]).tolist():
        for cell in graph.groups[group].cells:
            mine = np.flatnonzero(np.isin(axis.units, cell))
            order = mine[np.argsort(axis.units[mine], kind="stable")]
            units, times = np.unique(axis.units[mine], return_counts=True)
            if len(units) and (times == times[0]).all():
                yield group, order.reshape(len(units), -1)


def _squared_singular(rows: Tensor, scale: Tensor, units: Tensor) -> Tensor:
    """Of the matrix with a row for each unit [n, times]: its channels, scaled, one behind another."""
    matrix, factors = rows[units.to(rows.device)], scale[units].unsqueeze(2)  # [n, times, K], [n, times, 1]
    if not len(units):
        return torch.zeros(0, dtype=torch.float64)
    # Added up over parts of the longer side, so that only parts are held in float64.
    is_wide = len(units) <= matrix[0].numel()
    step = max(1, _AT_ONCE // (matrix[..., 0].numel() if is_wide else matrix[0].numel()))
    gram = torch.zeros((), dtype=torch.float64)
    for start in range(0, matrix.shape[2] if is_wide else len(matrix), step):
        part = slice(start, start + step)
        if is_wide:
            wide = (matrix[..., part].to("cpu", torch.float64) * factors).flatten(1)
            gram = gram + wide @ wide.T
        else:
            tall = (matrix[part].to("cpu", torch.float64) * factors[part]).flatten(1)
            gram = gram + tall.T @ tall
    return _eigenvalues(gram)


def _options(own: object, usual: object) -> str:
    """The options that are not as usual; batches are not shown."""
    found = {name: value for name, value in vars(own).items() if name != "batches"}
    return ", ".join(f"{name}={value!r}" for name, value in found.items() if value != vars(usual)[name])


def _eigenvalues(symmetric: Tensor) -> Tensor:
    """Descending; what is rounding below the largest is 0."""
    if not len(symmetric):
        return torch.zeros(0, dtype=torch.float64)
    values = torch.linalg.eigvalsh(symmetric).flip(0).clamp(min=0)
    floor = len(values) * torch.finfo(torch.float64).eps * values[0]
    return torch.where(values > floor, values, torch.zeros_like(values))
