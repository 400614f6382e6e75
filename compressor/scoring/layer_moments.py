"""What the layers of a model read and write, as moments that grow batch by batch.

Of each layer are kept, for each class, the moments over samples of every output position and of every
pixel of its input. Each takes 16 bytes, so that is about what the activations of four samples take.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from compressor.errors import ScoreError
from compressor.observing import LayerCall, gathered, merged
from compressor.observing.moments import Moments, Scratch, moments_of, moments_of_classes
from compressor.scoring.base import AxisKey
from compressor.scoring.receptive_fields import Field, field_moments, pixel_values

__all__ = ["ClassMoments", "LayerMoments", "MomentsRecorder", "merged_over_processes"]

ClassMoments = dict[int, Moments]


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """The moments of what a layer writes and reads, by class; without classes, all are class 0.

    `written` is [O, *P]. `read` is [G, *S] of pixels; of pooled positions [G], see `MomentsRecorder`.
    `magnitudes` [O] are the mean |W| of the filters, `width` the last size of the input.
    """

    geometry: Field
    width: int
    magnitudes: Tensor
    written: ClassMoments = field(default_factory=dict)
    read: ClassMoments = field(default_factory=dict)


class MomentsRecorder:
    """Adds up the moments of the layers in `keys` (weight, writing axis) while a model runs.

    A layer that is called several times in a forward pass has as many samples more. With `pool` moments
    are over positions too, those of what is read over its receptive fields, so that sizes may vary. With
    `published` only 2-d convolutions are seen, and pixels are those of the published code, [C, H].
    """

    def __init__(self, keys: Collection[AxisKey], *, pool: bool = False, published: bool = False) -> None:
        self.layers: dict[AxisKey, LayerMoments] = {}
        self._keys = frozenset(keys)
        self._pool = pool
        self._published = published
        self._labels: Tensor | None = None
        self._scratch = Scratch()
        # Layers side by side read one tensor: its moments are taken once.
        self._known: dict[tuple[int, int, int], tuple[weakref.ref[Tensor], int, ClassMoments]] = {}

    def start_batch(self, labels_N: Tensor | None) -> None:
        """Forget the last batch; with labels the moments of classes are kept apart."""
        self._labels = labels_N
        self._known.clear()

    def see(self, call: LayerCall) -> None:
        """Add what a call read and wrote."""
        key = call.weight, call.writer_axis
        if key not in self._keys or call.output.is_complex() or not call.output.numel():
            return
        if self._published and not (call.kind == "conv" and call.filters.ndim == 4):
            return
        if call.output.ndim == 1:  # a matrix times one vector
            call = replace(call, input=call.input[None], output=call.output[None])
        layer = LayerMoments(Field.of(call), call.input.shape[-1], _magnitudes(call))
        written, read = self._written(call), self._read(call)
        if key in self.layers:
            layer = self.layers[key]
            _check_alike(call, layer, written, read, pool=self._pool)
        _add(layer.written, written)
        _add(layer.read, read)
        self.layers[key] = layer

    def _written(self, call: LayerCall) -> ClassMoments:
        found = self._by_class(call, call.output.movedim(call.channel_dim, 1), (0,))
        return {c: self._pooled(moments) for c, moments in found.items()}

    def _read(self, call: LayerCall) -> ClassMoments:
        key = id(call.input), call.channel_dim, call.groups
        known, version, found = self._known.get(key, (None, 0, {}))
        if known is None or known() is not call.input or version != call.input._version:
            if self._published:
                found = self._by_class(call, call.input, (0, 3))
            else:
                found = self._by_class(call, pixel_values(call), (0, 2))
            self._known[key] = weakref.ref(call.input), call.input._version, found
        if not self._pool:
            return found
        return {c: self._pooled(field_moments(moments, Field.of(call))) for c, moments in found.items()}

    def _by_class(self, call: LayerCall, values: Tensor, dims: tuple[int, ...]) -> ClassMoments:
        if self._labels is None:
            return {0: moments_of(values, dims, self._scratch)}
        if len(values) != len(self._labels):
            raise ScoreError(
                f"{call.weight!r} has {len(values)} samples in a batch with {len(self._labels)} labels, "
                "expected as many: where a layer sees samples in another order than the labels, classes "
                "cannot be told apart; score with balanced=False"
            )
        return moments_of_classes(values, self._labels, dims, self._scratch)

    def _pooled(self, moments: Moments) -> Moments:
        return moments.pooled(range(1, moments.mean.ndim)) if self._pool else moments


def _magnitudes(call: LayerCall) -> Tensor:
    """The mean |W| of each filter [O]."""
    sizes = call.filters.detach().abs()
    if call.kind != "conv_transpose":
        return sizes.flatten(1).mean(1)
    by_filter: Tensor = sizes.unflatten(0, (call.groups, -1)).transpose(1, 2).flatten(0, 1)
    return by_filter.flatten(1).mean(1)


def _add(total: ClassMoments, new: ClassMoments) -> None:
    for label, moments in new.items():
        if label in total:
            total[label] = total[label].merge_(moments)
        else:  # cloned: layers that read one tensor start from the same moments
            total[label] = Moments(moments.count, moments.mean.clone(), moments.m2.clone())


def _check_alike(
    call: LayerCall, layer: LayerMoments, written: ClassMoments, read: ClassMoments, *, pool: bool
) -> None:
    """Raise ScoreError where positions do not correspond to those seen before."""
    before, now = ([_shape(w), _shape(r)] for w, r in ((layer.written, layer.read), (written, read)))
    if before != now or (not pool and Field.of(call) != layer.geometry):
        raise ScoreError(
            f"{call.weight!r} read {now[1][1:]} pixels and wrote {now[0][1:]} positions, before it were "
            f"{before[1][1:]} and {before[0][1:]}; expected inputs of one size: make them so, or score with "
            "positions='pool'"
        )


def _shape(classes: ClassMoments) -> list[int]:
    return list(next(iter(classes.values())).mean.shape)


# -- several processes -----------------------------------------------------------------------------


def merged_over_processes(
    layers: Mapping[AxisKey, LayerMoments], keys: Sequence[AxisKey]
) -> dict[AxisKey, LayerMoments]:
    """The moments of the batches of all processes that take part, for those of `keys` that were seen.

    Every process must call it with the same keys. Raises ScoreError, in all of them, where a layer ran
    in some processes only, or on inputs of another size.
    """
    seen = [_description(layers.get(key)) for key in keys]
    everywhere = gathered(torch.tensor(seen, dtype=torch.int64).reshape(len(keys), _WIDTH))
    if len(everywhere) == 1:
        return {key: layers[key] for key in keys if key in layers}
    n_classes = int(torch.stack(everywhere)[:, :, 0].max()) if keys else 0
    for position, key in enumerate(keys):
        rows = {tuple(process[position, 1:].tolist()) for process in everywhere}
        if len(rows) > 1:
            raise ScoreError(
                f"{key[0]!r} was not run in all processes, or on inputs of other sizes, expected the same; "
                "let all processes score batches of one size, or score in one with processes='this'"
            )
    return {
        key: replace(
            layers[key],
            written=_summed(layers[key].written, n_classes),
            read=_summed(layers[key].read, n_classes),
        )
        for key in keys
        if key in layers
    }


_WIDTH = 1 + 2 * 6


def _description(layer: LayerMoments | None) -> list[int]:
    """The number of classes of a layer, and its shapes; zeros for one that was not seen."""
    if layer is None:
        return [0] * _WIDTH
    shapes = [_shape(classes) for classes in (layer.written, layer.read)]
    sizes = [number for shape in shapes for number in (len(shape), *shape, *[0] * (5 - len(shape)))]
    return [max(layer.written) + 1, *sizes]


def _summed(classes: ClassMoments, n_classes: int) -> ClassMoments:
    """The moments of all processes, from sums over processes."""
    found: ClassMoments = {}
    like = next(iter(classes.values())).mean
    for label in range(n_classes):
        own = classes.get(label, Moments(0, torch.zeros_like(like), torch.zeros_like(like)))
        count = int(merged(torch.tensor(own.count)))
        if count:
            mean = merged(own.mean * (own.count / count))
            m2 = merged(own.m2 + own.count * (own.mean - mean).square())
            found[label] = Moments(count, mean, m2)
    return found
