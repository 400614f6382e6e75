"""Predicted latency as a cost of a graph: a sum of looked-up numbers for any removal, thousands a second."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.core.channels import Mask
from compressor.core.graph import Graph
from compressor.errors import InputError
from compressor.profiling.contractions import contraction_macs
from compressor.profiling.counting import Counts, Polynomial, RemovalOrder, Term, flags, products
from compressor.profiling.latency_table.layers import Placed, layers_of
from compressor.profiling.latency_table.rows import Row
from compressor.profiling.latency_table.surface import Blends, Shape, Surface, surface

__all__ = ["COLUMNS", "LatencyCost", "Parts", "parts_of"]

Floats = npt.NDArray[np.float64]

# What the time of a whole model is made of: ms of its layers' rows; then per million of weights (in a model
# they come from farther than the caches that a row runs in alone), of weights beyond what a cache holds, of
# elements written by other operators, of MACs of products without rows; and what every call costs.
COLUMNS = ("layers", "weights", "beyond", "elements", "macs", "call")
_FUSED = (
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "batch_norm",
    "cudnn_batch_norm",
    "relu",
    "relu_",
    "hardtanh",
    "hardtanh_",
    "clamp",
    "clamp_",
    "leaky_relu",
    "leaky_relu_",
    "empty",
)
_MILLION = 1e-6
_STREAMED = 1.5  # millions of weights; with more, no cache near a core holds them between two calls of a row


@dataclass(frozen=True, eq=False)
class Parts:
    """What the latency of a graph is made of, for any removal: lookups and polynomials."""

    n_units: int
    placed: tuple[Placed, ...]
    surfaces: tuple[Surface, ...]
    lengths: Polynomial
    starts: tuple[int, ...]
    elements: Polynomial
    element_modules: tuple[str, ...]
    products: Polynomial
    product_modules: tuple[str, ...]

    def widths(self, terms: npt.NDArray[np.int64]) -> tuple[Counts, Counts]:
        """Channels read and written by every layer [..., n_layers], from the terms of `lengths`."""
        both = np.add.reduceat(terms, self.starts, axis=-1) if self.starts else terms[..., :0]
        return both[..., 0::2], both[..., 1::2]

    def layer_times(self, entering: Counts, leaving: Counts) -> Floats:
        """The time in ms of each layer's row [..., n_layers]."""
        times = [s.at(entering[..., i], leaving[..., i]) for i, s in enumerate(self.surfaces)]
        return np.stack(times, axis=-1) if times else np.zeros((*entering.shape[:-1], 0))

    def layer_weights(self, entering: Counts, leaving: Counts) -> Floats:
        """Millions of weights of each layer [..., n_layers]; of those that stream them when alone, a part."""
        kernels = np.array([math.prod(p.layer.kernel) for p in self.placed])
        groups = np.array([p.layer.groups for p in self.placed])
        read = np.where(groups == 0, 1, entering / np.maximum(groups, 1))
        return np.asarray(np.minimum(kernels * read * leaving * _MILLION, _STREAMED))


def parts_of(graph: Graph, rows: Mapping[Row, float], blend: Blends) -> Parts:
    """The parts of a graph; raises InputError where the rows have not all its layers."""
    placed = layers_of(graph)
    known: dict[Shape, Surface] = {}
    surfaces = []
    for layer in placed:
        shape = Shape(layer.layer, *layer.widths)
        if shape not in known:
            try:
                known[shape] = surface(shape, rows, blend)
            except KeyError as missing:
                raise InputError(
                    f"the latency table has no row {missing.args[0]} for {layer.module or 'the model'}; "
                    f"build it for this model: latency_table(graph, path=...)"
                ) from None
        surfaces.append(known[shape])
    terms, starts = _lengths(placed)
    elements = _elements(graph, placed)
    macs = _products(graph, placed)
    return Parts(
        graph.n_units,
        placed,
        tuple(surfaces),
        Polynomial.of(terms),
        starts,
        Polynomial.of(elements),
        tuple(term.module for term in elements),
        Polynomial.of(macs),
        tuple(term.module for term in macs),
    )


def _lengths(placed: Sequence[Placed]) -> tuple[list[Term], tuple[int, ...]]:
    """Terms that sum up to the widths of each layer, read and written in turn, and where each starts."""
    terms: list[Term] = []
    starts = []
    for layer in placed:
        for width in (layer.entering, layer.leaving):
            starts.append(len(terms))
            if isinstance(width, int):
                terms.append(Term(layer.module, "width", width, ()))
            else:
                terms += products(layer.module, "width", 1, (width,))
    return terms, tuple(starts)


def _elements(graph: Graph, placed: Sequence[Placed]) -> list[Term]:
    """Elements that operators write which are neither layers nor folded into them."""
    layers = {layer.op for layer in placed}
    return [
        term
        for made in graph.activations
        if made.op not in layers and made.operator.removeprefix("aten.").partition(".")[0] not in _FUSED
        for term in products(made.module, made.operator, made.coefficient, made.dims)
    ]


def _products(graph: Graph, placed: Sequence[Placed]) -> list[Term]:
    """Multiply-accumulates of contractions that have no rows."""
    layers = {layer.op for layer in placed}
    stated = {work.op for work in graph.works}
    terms = [
        term
        for work in graph.works
        if work.op not in layers
        for term in products(work.module, work.operator, work.coefficient, work.dims, work.divisor)
    ]
    for op in graph.tape.ops:
        count = None if op.index in stated | layers else contraction_macs(graph.tape, op)
        if count is not None:
            terms.append(Term(op.module, op.target, count, ()))
    return terms


@dataclass(frozen=True, eq=False)
class LatencyCost:
    """The predicted latency of one graph in ms, for any removal of units; a `Priced` cost.

    It may rise when units go: a width that fits no block of the runtime is slower than a whole block.
    `cached` are the millions of weights that a cache holds.
    """

    parts: Parts
    coefficients: Floats
    cached: float = math.inf
    name: str = "ms of latency"

    def columns(self, removed: Mask | None = None) -> Floats:
        """What the prediction is a sum of, for each of `COLUMNS`, before coefficients."""
        gone = flags(removed, self.parts.n_units)
        p = self.parts
        lengths, elements, macs = (
            poly.terms(poly.dims.kept(gone)) for poly in (p.lengths, p.elements, p.products)
        )
        return self._columns(lengths, elements, macs)

    def _columns(self, lengths: Counts, elements: Counts, macs: Counts) -> Floats:
        widths = self.parts.widths(lengths)
        times = self.parts.layer_times(*widths).sum(-1)
        weights = self.parts.layer_weights(*widths).sum(-1)
        rest = [np.asarray(part.sum(-1), dtype=np.float64) * _MILLION for part in (elements, macs)]
        beyond = np.maximum(weights - self.cached, 0.0)
        return np.stack([times, weights, beyond, *rest, np.ones_like(times)], axis=-1)

    def total(self, removed: Mask | None = None) -> float:
        """The latency in ms when the `removed` [n_units] units go (None: nothing goes)."""
        return float(self.columns(removed) @ self.coefficients)

    def by_module(self, removed: Mask | None = None) -> dict[str, float]:
        """The share in ms of each module path; what every call costs is the model's own ("")."""
        gone = flags(removed, self.parts.n_units)
        p = self.parts
        layers, weights, beyond, elements, macs, call = self.coefficients.tolist()
        widths = p.widths(p.lengths.terms(p.lengths.dims.kept(gone)))
        shares: dict[str, float] = {}
        held = p.layer_weights(*widths)
        total = float(held.sum())
        each_weight = weights + beyond * max(total - self.cached, 0.0) / max(total, _MILLION)
        mine = layers * p.layer_times(*widths) + each_weight * held
        for placed, value in zip(p.placed, mine.tolist(), strict=True):
            shares[placed.module] = shares.get(placed.module, 0.0) + value
        for poly, modules, each in (
            (p.elements, p.element_modules, elements),
            (p.products, p.product_modules, macs),
        ):
            for module, value in zip(modules, poly.terms(poly.dims.kept(gone)).tolist(), strict=True):
                shares[module] = shares.get(module, 0.0) + each * value * _MILLION
        shares[""] = shares.get("", 0.0) + call
        return shares

    def along(self, order: RemovalOrder) -> Callable[[Counts], Floats]:
        """The latency in ms [...] as a function of the ranks lost [..., n_groups], see `Cost.along`."""
        polynomials = (self.parts.lengths, self.parts.elements, self.parts.products)
        tracks = [polynomial.dims.along(order) for polynomial in polynomials]

        def at(lost: Counts) -> Floats:
            terms = [poly.terms(t.kept(lost)) for poly, t in zip(polynomials, tracks, strict=True)]
            return np.asarray(self._columns(*terms) @ self.coefficients)

        return at
