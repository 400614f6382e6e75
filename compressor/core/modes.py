"""The dispatch mode that all of ours are: torch's compiler is not imported for it."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DispatchMode"]


class DispatchMode(TorchDispatchMode):
    """A mode that sees operators below autograd, and whose handler runs as it is written.

    torch would turn its compiler off around every call of the handler, and import it for that: most of a
    second before the first operator. Models run uncompiled under our modes (`core.restoring`).
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False
