"""A process that kills itself at a given moment, as a power cut would."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def killed(run: Callable[[Callable[[], None]], object], at: int) -> bool:
    """Run in a process that kills itself in the n-th call of what `run` is given; False where it ended."""
    child = os.fork()
    if child == 0:
        seen = [0]

        def tick() -> None:
            seen[0] += 1
            if seen[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            run(tick)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        return False
    assert os.WTERMSIG(status) == signal.SIGKILL
    return True
