"""Attention over a grid of tokens: which tokens each token looks at.

A `Reach` is a value: everything, a neighbourhood, a window. It holds no parameter and no head count, so it
serves queries, keys and values of any width, before and after pruning. They are B x heads x (h w) x dims,
token after token along the rows of a grid of h x w. Scores are not scaled: cosine attention has done so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.errors import InputError
from compressor.models.options import require_positive

__all__ = ["Everywhere", "Grid", "Neighborhood", "Reach", "ShiftedWindow"]


class Grid(NamedTuple):
    """Rows and columns of tokens."""

    rows: int
    columns: int


class Reach(ABC):
    """Which tokens a token attends to."""

    @property
    def least(self) -> int:
        """The fewest rows, and columns, of a grid."""
        return 1

    @property
    def multiple(self) -> int:
        """Rows and columns of a grid are a multiple of this."""
        return 1

    def of_layer(self, index: int) -> Reach:
        """The reach of the index-th layer of a level, counted down the hourglass and up again."""
        return self

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        """softmax(q k^T) v over the tokens within reach, B x heads x (h w) x dims of v."""


@dataclass(frozen=True)
class Everywhere(Reach):
    """Global attention: every token attends to all of them.

    >>> q = torch.randn(1, 2, 12, 8)
    >>> Everywhere().attend(q, q, q, Grid(3, 4)).shape
    torch.Size([1, 2, 12, 8])
    """

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)


@dataclass(frozen=True)
class Neighborhood(Reach):
    """The `window` x `window` tokens around each token; near a border the window is moved inside.

    Source: Hassani, Walton, Li, Li, Shi 2023, "Neighborhood Attention Transformer", arXiv 2204.07143, section
    3.1: each token has window^2 keys wherever it lies.

    Written in plain PyTorch: the queries of a tile of `tile` x `tile` tokens meet the (tile + window - 1)^2
    keys that any of them reaches, and a mask leaves each query its own. `tile=1` gathers window^2 keys for
    each query, which are the MACs of the paper and the most memory. With 4, scores and values cost 2.04 times
    these MACs, and took a fifth to an eighth of the time on a CPU (window 7, grids of 16x16 to 64x64).

    >>> q = torch.randn(1, 2, 9 * 10, 8)
    >>> tiled, gathered = (Neighborhood(7, tile=tile).attend(q, q, q, Grid(9, 10)) for tile in (4, 1))
    >>> torch.allclose(tiled, gathered, atol=1e-5)
    True
    """

    window: int = 7
    tile: int = 4

    def __post_init__(self) -> None:
        require_positive("Neighborhood", window=self.window, tile=self.tile)
        if self.window % 2 == 0:
            raise InputError(
                f"Neighborhood: window must be odd, so that a token is in the middle, got {self.window}"
            )

    @property
    def least(self) -> int:
        return self.window

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        rows, columns = (_tiled(size, self.window, self.tile, q.device) for size in grid)
        asking = _numbers(rows.queries, columns.queries, grid)
        asked = _numbers(rows.keys, columns.keys, grid)
        reached = rows.reached[:, None, :, None, :, None] & columns.reached[None, :, None, :, None, :]
        mask = None if self.tile == 1 else reached.flatten(4, 5).flatten(2, 3).flatten(0, 1)
        found = _attended(_taken(q, asking), _taken(k, asked), _taken(v, asked), mask)
        tile = rows.tile_of[:, None] * len(columns.queries) + columns.tile_of
        within = rows.place[:, None] * columns.queries.shape[1] + columns.place
        return found.flatten(2, 3).index_select(2, (tile * asking.shape[1] + within).flatten())


class _Tiles(NamedTuple):
    """The tiles along one axis of a grid; the last one is moved inside and repeats queries of another."""

    queries: Tensor  # tiles x tile: positions of the queries of each tile
    keys: Tensor  # tiles x region: positions of the keys that they share
    reached: Tensor  # tiles x tile x region: which of them a query reaches
    tile_of: Tensor  # size: the tile that answers for a position
    place: Tensor  # size: the position within that tile


def _tiled(size: int, window: int, tile: int, device: torch.device) -> _Tiles:
    """The tiles of an axis of `size` >= `window`; made anew in each call, so that nothing can be stale."""
    tile, region = min(tile, size), min(tile + window - 1, size)
    first = (torch.arange(-(-size // tile), device=device) * tile).clamp(max=size - tile)
    queries = first[:, None] + torch.arange(tile, device=device)
    keys = (first - window // 2).clamp(0, size - region)[:, None] + torch.arange(region, device=device)
    start = (queries - window // 2).clamp(0, size - window)[:, :, None]
    at = torch.arange(size, device=device)
    return _Tiles(
        queries,
        keys,
        (keys[:, None] >= start) & (keys[:, None] < start + window),
        at // tile,
        at - first[at // tile],
    )


def _numbers(rows: Tensor, columns: Tensor, grid: Grid) -> Tensor:
    """The numbers of the tokens of each tile: (tiles of rows x tiles of columns) x tokens of a tile."""
    numbers = rows[:, None, :, None] * grid.columns + columns[None, :, None, :]
    return numbers.flatten(2).flatten(0, 1)


def _taken(x: Tensor, numbers: Tensor) -> Tensor:
    """The tokens of each tile: B x heads x tiles x tokens x dims."""
    taken: Tensor = x.index_select(2, numbers.flatten()).unflatten(2, numbers.shape)
    return taken


def _attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attention within each tile, B x heads x tiles x queries x dims; mask tiles x queries x keys.

    Heads are folded into the batch, as fused kernels and ONNX take four axes.
    """
    heads = q.shape[1]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    found: Tensor = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    unfolded: Tensor = found.unflatten(0, (-1, heads))
    return unfolded


@dataclass(frozen=True)
class ShiftedWindow(Reach):
    """The tokens of the window that a token lies in; every other layer moves the windows by half of one.

    Source: Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo 2021, "Swin Transformer", arXiv 2103.14030, section 3.2.
    As in the code of HDiT the grid is rolled forward by `shift`, and tokens that only the roll made
    neighbours do not see each other.

    >>> q = torch.randn(1, 2, 8 * 8, 8)
    >>> ShiftedWindow(4).of_layer(1)
    ShiftedWindow(window=4, shift=2)
    >>> ShiftedWindow(4, shift=2).attend(q, q, q, Grid(8, 8)).shape
    torch.Size([1, 2, 64, 8])
    """

    window: int = 8
    shift: int = 0

    def __post_init__(self) -> None:
        require_positive("ShiftedWindow", window=self.window)
        if not 0 <= self.shift < self.window:
            raise InputError(
                f"ShiftedWindow: shift must be in 0..{self.window - 1}, within the window, got {self.shift}"
            )

    @property
    def multiple(self) -> int:
        return self.window

    def of_layer(self, index: int) -> ShiftedWindow:
        return replace(self, shift=self.window // 2 if index % 2 == 1 else 0)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, grid: Grid) -> Tensor:
        rows, columns = (_rolled(size, self.window, self.shift, q.device) for size in grid)
        numbers = _numbers(rows, columns, grid)
        q, k, v = (_taken(x, numbers) for x in (q, k, v))
        mask = self._mask(rows, columns) if self.shift else None
        found = _attended(q, k, v, mask)
        return found.flatten(2, 3).index_select(2, numbers.flatten().argsort())

    def _mask(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Windows x queries x keys: whether both lie on the same side of the seam that the roll made."""
        same = [_side(axis)[:, :, None] == _side(axis)[:, None] for axis in (rows, columns)]
        both = same[0][:, None, :, None, :, None] & same[1][None, :, None, :, None, :]
        return both.flatten(4, 5).flatten(2, 3).flatten(0, 1)


def _rolled(size: int, window: int, shift: int, device: torch.device) -> Tensor:
    """The positions along one axis that lie in each window, windows x window."""
    positions = (torch.arange(size, device=device) - shift) % size
    return positions.view(-1, window)


def _side(windows: Tensor) -> Tensor:
    """In the window that holds the seam, whether a position is behind it; elsewhere false for all."""
    return windows < windows[:, :1]
