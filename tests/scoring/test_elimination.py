"""Backward elimination against refits from scratch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from compressor.scoring.elimination import Reader, eliminate

Floats = npt.NDArray[np.float64]


def data(inputs: int, outputs: int, seed: int) -> tuple[Floats, Floats]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(200, inputs)) @ draw.normal(size=(inputs, inputs))
    return x, x @ draw.normal(size=(inputs, outputs)) + draw.normal(size=(200, outputs))


def reader(x: Floats, y: Floats, columns: dict[int, list[int]]) -> Reader:
    inverse = torch.linalg.inv(torch.tensor(x.T @ x))
    tensors = {unit: torch.tensor(places) for unit, places in columns.items()}
    return Reader(inverse, inverse @ torch.tensor(x.T @ y), tensors)


def left(x: Floats, y: Floats, columns: list[int]) -> float:
    """The squared error of the best weights of these columns, from scratch."""
    if not columns:
        return float((y**2).sum())
    weights, *_ = np.linalg.lstsq(x[:, columns], y, rcond=None)
    return float(((y - x[:, columns] @ weights) ** 2).sum())


def test_every_step_is_the_best_refit_of_two_readers() -> None:
    """Units of several inputs, inputs that cannot go, and a reader that some units do not reach."""
    one, two = data(9, 3, 0), data(5, 2, 1)
    columns_one = {0: [0, 1], 1: [2, 3], 2: [4], 3: [5, 6, 7]}  # input 8 is nobody's
    columns_two = {1: [0], 3: [1, 2], 2: [4]}  # input 3 is nobody's
    order, growth = eliminate([reader(*one, columns_one), reader(*two, columns_two)], [[0, 1, 2, 3]])

    def error(gone: list[int]) -> float:
        total = 0.0
        for (x, y), columns in ((one, columns_one), (two, columns_two)):
            away = {place for unit in gone for place in columns.get(unit, [])}
            total += left(x, y, [place for place in range(x.shape[1]) if place not in away])
        return total

    gone: list[int] = []
    for unit, grown in zip(order, growth, strict=True):
        trials = {other: error([*gone, other]) for other in {0, 1, 2, 3} - set(gone)}
        assert unit == min(trials, key=lambda other: trials[other])
        np.testing.assert_allclose(grown, trials[unit] - error(gone), rtol=1e-7)
        gone.append(unit)
    assert sorted(gone) == [0, 1, 2, 3]


def test_cells_lose_equally_many() -> None:
    x, y = data(6, 2, 2)
    y = y + 100 * x[:, :3] @ np.ones((3, 2))  # the first cell matters more
    order, _ = eliminate([reader(x, y, {unit: [unit] for unit in range(6)})], [[0, 1, 2], [3, 4, 5]])
    for step in (2, 4):
        assert sum(unit < 3 for unit in order[:step]) == step // 2


def test_a_copy_goes_first_and_costs_nothing() -> None:
    x, y = data(4, 2, 3)
    x = np.concatenate([x, x[:, 1:2]], axis=1)
    inverse = torch.linalg.inv(torch.tensor(x.T @ x) + 1e-7 * torch.eye(5))
    copy = Reader(inverse, inverse @ torch.tensor(x.T @ y), {unit: torch.tensor([unit]) for unit in range(5)})
    order, growth = eliminate([copy], [list(range(5))])
    assert order[0] in (1, 4)
    assert growth[0] < 1e-5 * growth[1]
