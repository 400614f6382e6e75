"""Where the command line starts, as `compressor` and as `python -m compressor`."""

from __future__ import annotations

import os
import signal

__all__ = ["main"]

_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT


def main() -> None:
    """Run the command line; Ctrl-C ends it with exit code 130 and no traceback, from the first moment on."""
    # Loading takes a second, much of it outside of Python: libraries that are half loaded would show an
    # interrupt as an error of their own. There is nothing to tidy up yet.
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from compressor.cli import main as run

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()


if __name__ == "__main__":
    main()
