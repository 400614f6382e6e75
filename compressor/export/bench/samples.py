"""What the models of a bench run on: the same samples for all, random or given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from compressor.errors import InputError
from compressor.export.bench.candidates import Array, Candidate, Port

__all__ = ["Given", "Samples", "samples_of"]

# One array [samples * rows, ...] for each input: alone, in order, or by name.
Given = Array | Tensor | Sequence[Array | Tensor] | Mapping[str, Array | Tensor]

_MOST_BYTES = 4 * 2**20  # of random samples: they travel with the page
_MOST_SAMPLES = 32


@dataclass(frozen=True, eq=False)
class Samples:
    """`count` samples: an array [count, rows, ...] for each input; `seed` is None for given ones."""

    count: int
    arrays: tuple[Array, ...]
    seed: int | None

    def feeds(self, candidate: Candidate, number: int) -> dict[str, Array]:
        """What `candidate` is fed with for one sample."""
        return {port.name: a[number] for port, a in zip(candidate.inputs, self.arrays, strict=True)}


def samples_of(
    candidates: Sequence[Candidate], given: Given | None, *, count: int | None, seed: int
) -> Samples:
    """Samples that every candidate runs on: a free first axis, the batch, has size 1.

    Without `given` they are standard normal. Checked by running each candidate on the first one.
    Raises InputError where the candidates' inputs or outputs differ, a size is missing, or what is
    given does not fit.
    """
    ports = candidates[0].inputs
    for other in candidates[1:]:
        _check_alike(candidates[0], other)
    if given is None:
        samples = _random(candidates, count, seed)
    else:
        arrays = _arrays(given, ports)
        samples = _split(candidates, arrays, count)
    _rehearse(candidates, samples)
    return samples


def _check_alike(base: Candidate, other: Candidate) -> None:
    same = len(base.inputs) == len(other.inputs) and all(
        a.type == b.type
        and len(a.dims) == len(b.dims)
        and all(
            x == y or isinstance(x, str) or isinstance(y, str) for x, y in zip(a.dims, b.dims, strict=True)
        )
        for a, b in zip(base.inputs, other.inputs, strict=True)
    )
    if not same:
        raise InputError(
            f"{other.path} takes {_listing(other.inputs)}, but the baseline {base.path} takes "
            f"{_listing(base.inputs)}; export both for the same inputs (half precision with float32 inputs)"
        )


def _listing(ports: Sequence[Port]) -> str:
    return ", ".join(map(str, ports))


# -- random --------------------------------------------------------------------------------------


def _random(candidates: Sequence[Candidate], count: int | None, seed: int) -> Samples:
    ports = candidates[0].inputs
    shapes = [_shape(candidates, position) for position in range(len(ports))]
    for port in ports:
        if not port.type.startswith("float"):
            raise InputError(
                f"the input {port} holds no real numbers, and random ones may mean nothing to the model; "
                f"give inputs=, an array [samples, ...] of {port.type}"
            )
    sample_bytes = sum(
        int(np.prod(shape)) * np.dtype(port.type).itemsize for port, shape in zip(ports, shapes, strict=True)
    )
    number = max(1, min(_MOST_SAMPLES, _MOST_BYTES // sample_bytes)) if count is None else count
    if number < 1:
        raise InputError(f"samples={number}: at least 1 is expected")
    generator = np.random.default_rng(seed)
    arrays = [
        generator.standard_normal((number, *shape), dtype=np.float32).astype(port.type)
        for port, shape in zip(ports, shapes, strict=True)
    ]
    return Samples(number, tuple(arrays), seed)


def _shape(candidates: Sequence[Candidate], position: int) -> tuple[int, ...]:
    """The shape of one sample: sizes that any candidate fixes, 1 for a batch that none fixes."""
    shape = []
    for axis, dims in enumerate(zip(*(c.inputs[position].dims for c in candidates), strict=True)):
        sizes = [size for size in dims if isinstance(size, int)]
        if not sizes and axis > 0:
            port = candidates[0].inputs[position]
            raise InputError(
                f"the input {port} leaves its axis {axis} free ({dims[0]}), and a bench needs its size: "
                f"give inputs=, an array of that size (on the command line --input 1x..., or --input-file)"
            )
        shape.append(sizes[0] if sizes else 1)
    return tuple(shape)


# -- given ---------------------------------------------------------------------------------------


def _arrays(given: Given, ports: Sequence[Port]) -> tuple[Array, ...]:
    if isinstance(given, (np.ndarray, Tensor)):
        given = [given]
    if isinstance(given, Mapping):
        if set(given) != {port.name for port in ports}:
            raise InputError(f"inputs names {sorted(given)}, but the model takes {_listing(ports)}")
        given = [given[port.name] for port in ports]
    if len(given) != len(ports):
        raise InputError(f"inputs holds {len(given)} arrays, but the model takes {_listing(ports)}")
    arrays = tuple(
        value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value) for value in given
    )
    for port, array in zip(ports, arrays, strict=True):
        _check_array(port, array)
    return arrays


def _check_array(port: Port, array: Array) -> None:
    if array.dtype.name != port.type:
        raise InputError(f"inputs for {port} are {array.dtype.name}; convert them by astype({port.type!r})")
    if not port.dims or array.ndim != len(port.dims):
        raise InputError(
            f"inputs for {port} have shape {list(array.shape)}: expected as many axes as the model's input, "
            "samples along the first"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"inputs for {port} hold NaN or infinity, which no prediction can be compared on")


def _split(candidates: Sequence[Candidate], arrays: Sequence[Array], count: int | None) -> Samples:
    """Samples of as many rows as the models' fixed batch, or one."""
    parts = []
    for position, array in enumerate(arrays):
        port = candidates[0].inputs[position]
        sizes = [c.inputs[position].dims[0] for c in candidates]
        rows = next((size for size in sizes if isinstance(size, int)), 1)
        if len(array) == 0 or len(array) % rows:
            raise InputError(
                f"inputs for {port} have {len(array)} rows; the model takes {rows} at a time, so a multiple "
                "of that is expected"
            )
        for candidate in candidates:
            fixed = candidate.inputs[position].dims[1:]
            if any(isinstance(d, int) and d != s for d, s in zip(fixed, array.shape[1:], strict=True)):
                raise InputError(
                    f"inputs for {port} have shape {list(array.shape)}, but {candidate.path} takes "
                    f"{candidate.inputs[position]}"
                )
        parts.append(np.ascontiguousarray(array.reshape(-1, rows, *array.shape[1:])))
    numbers = {len(part) for part in parts}
    if len(numbers) > 1:
        raise InputError(f"inputs hold {sorted(numbers)} samples; every input needs as many")
    (number,) = numbers
    if count is not None and not 1 <= count <= number:
        raise InputError(f"samples={count}, but inputs hold {number}")
    return Samples(count or number, tuple(part[: count or number] for part in parts), None)


def _rehearse(candidates: Sequence[Candidate], samples: Samples) -> None:
    """Run each candidate once, and compare the shapes of their outputs."""
    shapes = [candidate.run(samples.feeds(candidate, 0)).shape for candidate in candidates]
    for candidate, shape in zip(candidates, shapes, strict=True):
        if shape != shapes[0]:
            raise InputError(
                f"{candidate.path} gives an output of {list(shape)}, the baseline {candidates[0].path} of "
                f"{list(shapes[0])}; they cannot be compared"
            )
