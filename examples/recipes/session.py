"""One run in one process or under torchrun: device, precision, and what all processes agree on."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed, nn

from compressor.core.plan import Plan

__all__ = ["Session", "add_arguments", "session"]


@dataclass(frozen=True)
class Session:
    """Where this process computes, and whether it is the one that writes and speaks."""

    device: torch.device
    rank: int
    world: int
    autocast: torch.dtype | None
    out: Path

    def say(self, text: object) -> None:
        """Print in the first process only."""
        if self.rank == 0:
            print(text, flush=True)

    def plan(self, name: str, make: Callable[[], Plan]) -> Plan:
        """The plan of `out/name`, or a new one that is written there; the same in all processes."""
        path = self.out / name
        found = [path.is_file()]
        if self.world > 1:
            distributed.broadcast_object_list(found, device=self._transport)
        if found[0]:
            self.say(f"taking the plan of {path}")
            return Plan.load(path)
        texts = [make().to_json()]
        if self.world > 1:  # rounding may differ between GPUs: one of them decides
            distributed.broadcast_object_list(texts, device=self._transport)
        plan = Plan.from_json(texts[0])
        if self.rank == 0:
            plan.save(path)
        return plan

    def same_(self, model: nn.Module) -> None:
        """Give the model of every process the weights of the first one's."""
        if self.world > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                distributed.broadcast(tensor.data, src=0)

    @property
    def _transport(self) -> torch.device:
        return self.device if distributed.get_backend() == "nccl" else torch.device("cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every recipe has."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; start again to go on")
    parser.add_argument("--device", help="cuda, cpu, mps (default: a GPU where there is one)")
    parser.add_argument("--amp", choices=("off", "bf16", "fp16"), help="default: bf16 on GPUs that have it")
    parser.add_argument("--workers", type=int, default=4, help="processes that load data, for each GPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="weights of the trained original; else it is trained")
    parser.add_argument(
        "--quick", action="store_true", help="a small synthetic run: does everything work here?"
    )


@contextmanager
def session(options: argparse.Namespace) -> Iterator[Session]:
    """The process group that torchrun asks for, for the time of the run."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    kind = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(kind)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.ERROR, format="%(message)s")
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        yield Session(device, rank, world, _autocast(options.amp, device), options.out)
    finally:
        if world > 1:
            distributed.destroy_process_group()


def _autocast(asked: str | None, device: torch.device) -> torch.dtype | None:
    if asked is None:
        usable = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if usable else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]
