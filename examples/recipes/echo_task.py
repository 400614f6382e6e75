"""What the clutter filter is trained and tested on: video panels of six vendors, or phantoms."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from session import Session
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from compressor.data.echo import (
    PUBLISHED,
    CleanWindows,
    Phantom,
    Sequences,
    Windowing,
    add_clutter,
    draw_clutter,
    load_echo_clutter_npz,
    phantoms,
    sector_mask,
    vendor_folds,
)

__all__ = ["FrameByFrame", "Task", "cpu_seconds", "filtered", "from_file", "from_phantoms"]

STEPS = 50  # an epoch, after which a checkpoint is written


@dataclass(frozen=True, eq=False)
class Task:
    """One vendor held out: batches of the others, its own sequence, cluttered and clean, [N, 1, H, W, T].

    `panels` are sequences to score beside ours, `example` is one window, `scoring` a few batches.
    """

    name: str
    batches: DataLoader[tuple[Tensor, Tensor]]
    scoring: list[Any]
    cluttered: Tensor
    clean: Tensor
    panels: dict[str, Tensor]
    in_vivo: Sequences | None = None
    in_vivo_theirs: Sequences | None = None

    @property
    def example(self) -> Tensor:
        """One cluttered window [1, 1, H, W, frames]."""
        return self.cluttered[:1, ..., : self.scoring[0][0].shape[-1]]


class FrameByFrame(nn.Module):
    """A network for images [N, 1, H, W] on sequences [N, 1, H, W, T]."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width, frames = x.shape
        images = x.movedim(4, 1).reshape(n * frames, channels, height, width)
        return self.net(images).reshape(n, frames, channels, height, width).movedim(1, 4)


def from_file(run: Session, path: Path, held_out: str, *, pixels: int, frames: int, batch: int) -> list[Task]:
    """The tasks of one vendor, or of all of them."""
    panels = load_echo_clutter_npz(path)

    def sized(sequences: Sequences) -> Sequences:
        return sequences.halved() if pixels == 64 else sequences

    clean = sized(panels.clean)
    known = ", ".join(dict.fromkeys(clean.vendors))
    if held_out != "all" and held_out not in clean.vendors:
        sys.exit(f"--held-out {held_out}: {path} has {known}; or say all")
    tasks = []
    for fold in vendor_folds(clean):
        if held_out not in ("all", fold.vendor):
            continue
        cluttered, target, theirs, theirs_2d = (
            sized(one).of(fold.vendor).unit()
            for one in (panels.cluttered, panels.clean, panels.filtered_3d, panels.filtered_2d)
        )
        tasks.append(
            Task(
                fold.vendor,
                *_batches(run, clean.pick(fold.train), frames, batch),
                cluttered,
                target,
                {"cluttered": cluttered, "authors' 3-D": theirs, "authors' 2-D": theirs_2d},
                sized(panels.in_vivo),
                sized(panels.in_vivo_filtered_3d),
            )
        )
    return tasks


def from_phantoms(run: Session, frames: int, batch: int, *, seed: int) -> Task:
    """Four small phantoms; the last one is held out."""
    clean = phantoms(4, Phantom(size=32, frames=8), seed=seed)
    target = clean.pick([3]).unit()
    drawn = draw_clutter(1, PUBLISHED, generator=torch.Generator().manual_seed(seed))
    cluttered = add_clutter(target, drawn, sector_mask(target))
    parts = _batches(run, clean.pick([0, 1, 2]), frames, batch, steps=10)
    return Task("phantom", *parts, cluttered, target, {"cluttered": cluttered})


def _batches(
    run: Session, clean: Sequences, frames: int, batch: int, *, steps: int = STEPS
) -> tuple[DataLoader[tuple[Tensor, Tensor]], list[Any]]:
    """Batches of this process to train on, and eight that stay the same in all of them."""
    samples = CleanWindows(clean, samples=steps * batch * run.world, windowing=Windowing(frames=frames))
    state = torch.get_rng_state()
    torch.manual_seed(0)
    scoring = [item for item, _ in zip(DataLoader(samples, batch), range(8), strict=False)]
    torch.set_rng_state(state)
    if run.world == 1:
        return DataLoader(samples, batch, shuffle=True), scoring
    return DataLoader(samples, batch, sampler=DistributedSampler(samples, run.world, run.rank)), scoring


@torch.no_grad()
def filtered(net: nn.Module, cluttered: Tensor, *, mirrored: int = 8) -> Tensor:
    """Sequences [N, 1, H, W, T] filtered whole, one by one, on the net's device; the result is on the CPU.

    Each is continued by up to `mirrored` frames at both ends, those inside in reverse, which are cut off
    afterwards: the net would see black frames there, and leave more clutter. The source does not (0).
    """
    net.eval()
    total = cluttered.shape[-1]
    margin = min(mirrored, total - 1)
    order = torch.arange(-margin, total + margin).abs()
    order = order.where(order < total, 2 * (total - 1) - order)
    device = next(net.parameters()).device
    outputs = [net(one[None, ..., order].to(device)).cpu() for one in cluttered]
    return torch.cat(outputs)[..., margin : margin + total]


@contextmanager
def cpu_seconds(path: Path) -> Iterator[Callable[[], float]]:
    """The CPU time of this process in the block, and of earlier sittings that the file knows of."""
    before = float(path.read_text()) if path.is_file() else 0.0
    start = time.process_time()
    total = before

    def spent() -> float:
        return total or before + time.process_time() - start

    try:
        yield spent
    finally:
        total = spent()
        path.write_text(f"{total}\n")
