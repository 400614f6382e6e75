"""Where things are that the repository does not hold: the shared folder, torchvision."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["ROOT", "Missing", "add_shared_option", "import_torchvision", "shared_folder"]

ROOT = Path(__file__).resolve().parent.parent.parent


class Missing(Exception):
    """Something a benchmark needs is not on this machine; the text says what."""


def add_shared_option(parser: argparse.ArgumentParser) -> None:
    """Add `--shared`, the folder with data, checkpoints and torchvision's stand-in operators."""
    parser.add_argument(
        "--shared",
        default=os.environ.get("COMPRESSOR_SHARED"),
        help="folder of shared data (default: $COMPRESSOR_SHARED, else ../shared)",
    )


def shared_folder(named: str | None) -> Path | None:
    """The shared folder, or None where the default one is absent; a named one must exist."""
    folder = Path(named) if named else ROOT.parent / "shared"
    if folder.is_dir():
        return folder
    if named:
        raise SystemExit(f"the shared data folder {folder} does not exist")
    return None


def import_torchvision(shared: str | None) -> ModuleType:
    """The module torchvision.models; raises Missing where torchvision cannot be imported.

    torchvision has no build for every CPU-only torch. Where the shared folder holds declarations of
    its compiled operators, they are loaded first: no classifier runs any of them.
    """
    folder = shared_folder(shared)
    file = None if folder is None else folder / "zoo" / "torchvision_on_cpu_torch.py"
    try:
        if file is not None and file.is_file():
            _run_once("torchvision_on_cpu_torch", file)
        return importlib.import_module("torchvision.models")
    except (ImportError, RuntimeError) as error:
        raise Missing(
            f"torchvision cannot be imported ({type(error).__name__}: {error}); install it, or "
            "name a folder with zoo/torchvision_on_cpu_torch.py by --shared"
        ) from error


def _run_once(name: str, file: Path) -> None:
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module  # only now: a failed run is to fail again
