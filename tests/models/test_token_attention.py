from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.models.token_attention import Everywhere, Grid, Neighborhood, Reach, ShiftedWindow

HEADS, DIMS, VALUES = 2, 4, 3


def by_hand(reached: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax over the keys that a boolean matrix names, one query at a time."""
    found = q.new_zeros(*q.shape[:3], v.shape[-1])
    for token, keys in enumerate(reached):
        scores = (q[:, :, token, None] * k[:, :, keys]).sum(-1)
        found[:, :, token] = (scores.softmax(-1)[..., None] * v[:, :, keys]).sum(-2)
    return found


def neighbours(grid: Grid, window: int) -> Tensor:
    """Tokens x tokens, from the definition: the window around a token, pushed inside the grid."""
    reached = torch.zeros(grid.rows * grid.columns, grid.rows * grid.columns, dtype=torch.bool)
    for row in range(grid.rows):
        for column in range(grid.columns):
            top = min(max(row - window // 2, 0), grid.rows - window)
            left = min(max(column - window // 2, 0), grid.columns - window)
            for y in range(top, top + window):
                for x in range(left, left + window):
                    reached[row * grid.columns + column, y * grid.columns + x] = True
    return reached


def sharing_a_window(grid: Grid, window: int, shift: int) -> Tensor:
    """Tokens x tokens: windows begin at multiples of `window` less `shift`, cut off at the border."""
    at = [(row, column) for row in range(grid.rows) for column in range(grid.columns)]
    cells = [((row + shift) // window, (column + shift) // window) for row, column in at]
    return torch.tensor([[a == b for b in cells] for a in cells])


def drawn(grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(grid.rows)
    sizes = (DIMS, DIMS, VALUES)
    q, k, v = (torch.randn(2, HEADS, grid.rows * grid.columns, n, dtype=torch.float64) for n in sizes)
    return q, k, v


@pytest.mark.parametrize("tile", [1, 2, 3, 4, 8, 20])
@pytest.mark.parametrize(
    ("rows", "columns", "window"), [(7, 7, 7), (8, 9, 7), (10, 16, 7), (13, 5, 5), (5, 6, 3), (4, 4, 1)]
)
def test_a_neighbourhood_is_what_a_loop_over_the_tokens_gives(
    rows: int, columns: int, window: int, tile: int
) -> None:
    grid = Grid(rows, columns)
    q, k, v = drawn(grid)
    expected = by_hand(neighbours(grid, window), q, k, v)
    torch.testing.assert_close(Neighborhood(window, tile=tile).attend(q, k, v, grid), expected)


@pytest.mark.parametrize(("rows", "columns", "window"), [(8, 8, 4), (4, 12, 4), (6, 3, 3), (8, 8, 8)])
@pytest.mark.parametrize("index", [0, 1])
def test_a_shifted_window_is_what_a_loop_over_the_tokens_gives(
    rows: int, columns: int, window: int, index: int
) -> None:
    grid = Grid(rows, columns)
    q, k, v = drawn(grid)
    shift = window // 2 if index else 0
    # a grid rolled forward by `shift` has windows that begin `shift` earlier
    expected = by_hand(sharing_a_window(grid, window, shift), q, k, v)
    found = ShiftedWindow(window).of_layer(index).attend(q, k, v, grid)
    torch.testing.assert_close(found, expected)


def test_global_attention_reaches_everything() -> None:
    grid = Grid(3, 4)
    q, k, v = drawn(grid)
    expected = by_hand(torch.ones(12, 12, dtype=torch.bool), q, k, v)
    torch.testing.assert_close(Everywhere().attend(q, k, v, grid), expected)


@pytest.mark.parametrize("reach", [Neighborhood(3), Neighborhood(3, tile=1), ShiftedWindow(4, shift=2)])
def test_gradients_are_those_of_finite_differences(reach: Reach) -> None:
    q, k, v = (x[:1, :1, :, :2].clone().requires_grad_() for x in drawn(Grid(4, 4)))
    assert torch.autograd.gradcheck(lambda *x: reach.attend(*x, Grid(4, 4)), (q, k, v))


def test_every_layer_of_a_level_has_its_shift() -> None:
    shifts = [ShiftedWindow(8).of_layer(index).shift for index in range(4)]
    assert shifts == [0, 4, 0, 4]
    assert Neighborhood(7).of_layer(3) == Neighborhood(7)


def test_windows_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="window must be odd, so that a token is in the middle, got 8"):
        Neighborhood(8)
    with pytest.raises(InputError, match="Neighborhood: tile must be an integer of at least 1, got 0"):
        Neighborhood(7, tile=0)
    with pytest.raises(InputError, match=r"shift must be in 0\.\.3, within the window, got 4"):
        ShiftedWindow(4, shift=4)
