"""Objects of the user's own code, named on the command line as `package.module:attribute`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import typer

from compressor.errors import InputError

__all__ = ["close_to", "find_object", "meant_object"]


def find_object(spec: str, *, option: str) -> object:
    """The object that `package.module:attribute` names; the current directory is importable.

    Raises typer.BadParameter, which speaks of `option`, where there is no such thing, and
    InputError where the module exists and its import fails.

    >>> find_object("math:pi", option="MODEL")
    3.141592653589793
    """
    module_name, _, path = spec.partition(":")
    if not module_name or not path or "/" in module_name or module_name.endswith(".py"):
        raise typer.BadParameter(
            f"{spec!r} is not of the form package.module:attribute, such as my_pkg.net:build"
            f"{_hint(module_name, path)}",
            param_hint=option,
        )
    found: object = _imported(module_name, option)
    for name in path.split("."):
        if not hasattr(found, name):
            public = [n for n in dir(found) if not n.startswith("_")]
            raise typer.BadParameter(
                f"{module_name!r} has no attribute {path!r}{close_to(name, public)}",
                param_hint=option,
            )
        found = getattr(found, name)
    return found


def meant_object(text: str) -> str:
    """'; did you mean ...?' for a module, or an attribute of one, that lacks its colon; else nothing.

    >>> meant_object("math.pi"), meant_object("math.py"), meant_object("no such thing")
    ("; did you mean 'math:pi'?", "; did you mean 'math:build'?", '')
    """
    plain = ".".join(Path(text.removesuffix(".py")).parts)
    module, _, attribute = plain.rpartition(".")
    if _is_there(plain):
        return f"; did you mean '{plain}:build'?"
    return f"; did you mean '{module}:{attribute}'?" if module and _is_there(module) else ""


def _is_there(module: str) -> bool:
    """Whether there is such a module; it is not imported, packages that it lies in are."""
    _make_importable_here()
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def close_to(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' with the names of `known` that are close to `name`, or nothing.

    >>> close_to("buidl", ["build", "train"])
    "; did you mean 'build'?"
    """
    close = difflib.get_close_matches(name, list(known), n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _hint(module_name: str, path: str) -> str:
    if not module_name.endswith(".py") and "/" not in module_name:
        return ""
    dotted = ".".join(Path(module_name).with_suffix("").parts).lstrip("./")
    return f"; did you mean {dotted}:{path or 'build'}?"


def _imported(name: str, option: str) -> ModuleType:
    here = _make_importable_here()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise typer.BadParameter(
                f"there is no module {missing!r} in {here} or on the Python path"
                f"{close_to(missing, _siblings(missing))}",
                param_hint=option,
            ) from error
        raise InputError(
            f"{option} {name!r} cannot be imported: it needs the module {missing!r}, which is not installed"
        ) from error
    except Exception as error:
        raise InputError(f"{option} {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def _make_importable_here() -> str:
    """The current directory, from which modules can be imported now, as `python -m` has it."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # first: what is written here is what is meant
    importlib.invalidate_caches()
    return here


def _siblings(name: str) -> list[str]:
    """The modules that could have been meant: those of the same package, by full name."""
    package, _, _ = name.rpartition(".")
    if not package:
        return [found.name for found in pkgutil.iter_modules()]
    path = getattr(sys.modules.get(package), "__path__", [])
    return [found.name for found in pkgutil.iter_modules(path, f"{package}.")]
