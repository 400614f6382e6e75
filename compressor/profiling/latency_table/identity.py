"""Whose times these are: machine, runtime and its options; and which network a refinement belongs to."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from compressor.core.graph import Graph
from compressor.runtimes import Runtime

__all__ = ["Identity", "identity_of", "network_of"]


@dataclass(frozen=True)
class Identity:
    """What must be the same for times to be the same."""

    processor: str
    cores: int
    system: str
    runtime: str
    version: str

    def difference(self, other: Identity) -> str | None:
        """The first way in which `other` differs from this, in words; None where it is the same."""
        for name, mine in asdict(self).items():
            theirs = asdict(other)[name]
            if mine != theirs:
                return f"its {name} is {theirs!r}, here it is {mine!r}"
        return None

    @property
    def digest(self) -> str:
        """A short name for files."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


def identity_of(runtime: Runtime) -> Identity:
    """The identity of times taken now, on this machine.

    >>> from compressor.runtimes import Eager
    >>> identity_of(Eager()).runtime, identity_of(Eager(threads=2)).runtime
    ('Eager()', 'Eager(threads=2)')
    """
    cores, system = os.cpu_count() or 1, f"{platform.system()} {platform.machine()}"
    return Identity(_processor(), cores, system, _shown(runtime), runtime.version)


def network_of(graph: Graph) -> str:
    """A short name for a network on its example inputs: its tensors, its operators and their shapes."""
    shapes = [(value.shape, str(value.dtype)) for value in graph.tape.values]
    operators = [op.target for op in graph.tape.ops]
    text = repr((graph.signature.model, graph.signature.tensors, operators, shapes))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _shown(runtime: Runtime) -> str:
    """The runtime with its options; defaults, some of which may be new, are left out."""
    options = [
        f"{option.name}={getattr(runtime, option.name)!r}"
        for option in fields(runtime)
        if option.name != "pin" and getattr(runtime, option.name) != option.default
    ]
    return f"{type(runtime).__name__}({', '.join(options)})"


def _processor() -> str:
    """The name of the processor; empty where the system does not say."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
