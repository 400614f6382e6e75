"""What a worker is given and gives back: some layers, and their sketches, as bytes."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from compressor.errors import CompressorError, MeasurementError
from compressor.filters.sketching.layers import Part
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.sketching.sketching import sketch_part

__all__ = ["in_tasks", "pickled", "sketch_or_error", "sketch_parts", "sketch_pickled"]

_TASK_KERNELS = 1 << 19  # small layers go together, so that a task takes longer than its way to a worker
_WHOLE_IN_NUMPY = (torch.float32, torch.float64, torch.float16, torch.int64)


def in_tasks(parts: Sequence[Part], places: Iterable[int]) -> Iterator[list[int]]:
    """These places in groups, of small layers many to a group."""
    task: list[int] = []
    held = 0
    for place in places:
        task.append(place)
        held += parts[place].layer.count
        if held >= _TASK_KERNELS:
            yield task
            task, held = [], 0
    if task:
        yield task


def sketch_pickled(task: bytes) -> bytes:
    """`sketch_parts` of pickled arguments, pickled."""
    return pickled(sketch_parts(*pickle.loads(task)))


def pickled(*values: object) -> bytes:
    """One value, or several as a tuple, as bytes."""
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(values[0] if len(values) == 1 else values)
    return buffer.getvalue()


class _Pickler(pickle.Pickler):
    """By hand, for two reasons.

    torch has taught the pickler of process pools to move a tensor's storage into shared memory, under the
    feet of the user's weights and of the arrays that look at them. And its own way into bytes takes as long
    for one small tensor as a sketch of a thousand kernels.
    """

    def reducer_override(self, value: object) -> Any:
        if type(value) is Tensor and value.device.type == "cpu" and value.dtype in _WHOLE_IN_NUMPY:
            return torch.from_numpy, (value.detach().numpy(),)
        return NotImplemented


def sketch_parts(parts: Sequence[Part], setting: SketchSetting) -> list[Sketch | Exception]:
    """The sketch of each part, or its error, which does not take the others with it."""
    return [sketch_or_error(part, setting) for part in parts]


def sketch_or_error(part: Part, setting: SketchSetting) -> Sketch | Exception:
    """The sketch of a part, or what went wrong, with the name of its layer."""
    try:
        return sketch_part(part, setting)
    except CompressorError as error:
        return error if str(part.layer) in str(error) else type(error)(f"{part.layer}: {error}")
    except Exception as error:
        return MeasurementError(f"{part.layer} could not be sketched ({type(error).__name__}: {error})")
