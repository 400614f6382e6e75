"""Imports go down only: the table is the architecture, the checker under it fits any table."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "compressor"
ROOT = Path(__file__).resolve().parent.parent

# From the top. A row may import the rows under it; entries of one row know nothing of each other.
# `name` is one module, `name.*` a module or package with all that is in it, "" the package's own
# __init__.py.
STACK: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli.*",),
    ("testing.*",),
    ("",),
    ("api",),
    ("reporting.*",),
    ("training.accelerate", "training.lightning", "training.transformers"),
    ("evaluation.*", "export.*", "training.*"),
    ("search.*",),
    ("recovery.*", "design.*"),
    ("persistence.*",),
    ("budget.*",),
    ("scoring.*", "profiling.*"),
    ("filters.*",),
    ("runtimes.*",),
    ("observing.*",),
    ("core",),
    ("core.verify",),
    ("core.divergence", "core.layerwise"),
    ("core.doubles",),
    ("core.reference",),
    ("core.capture",),
    ("core.rehearsal",),
    ("core.remedies",),
    ("core.trial",),
    ("core.findings",),
    ("core.removals", "core.stand_in"),
    ("core.surgery",),
    ("core.patch_rules", "core.patching"),
    ("core.patch_mode", "core.patch_sizes"),
    ("core.sizes",),
    ("core.pick_rules",),
    ("core.attention", "core.attributes", "core.computed", "core.copying"),
    ("core.recurrent_sizes", "core.units"),
    ("core.graph",),
    ("core.coupling",),
    ("core.factors",),
    ("core.rules.*",),
    ("core.labels", "core.picks", "core.pieces", "core.specialised", "core.subject"),
    ("core.batch_norms",),
    ("core.tape",),
    ("core.aside", "core.calls", "core.nested", "core.recurrent", "core.restoring"),
    ("core.alone", "core.modes"),
    ("core.channels", "core.plan"),  # the value everyone passes around: any layer may import it
    ("core.plan_json",),
    ("core.plan_parts",),
    ("extras", "tables", "unpacking", "whole_files"),
    ("errors", "version"),
)

# Packages beside the stack: what they may import of it, and who may import them.
BESIDE: dict[str, tuple[str, ...]] = {
    "models.*": ("errors", "unpacking"),
    "data.*": ("errors", "extras", "unpacking"),
}
MAY_IMPORT_BESIDE = ("cli.*", "testing.*", "", "api")

# Third-party modules: free for all, or only for the named entries or modules (none: nowhere).
FREE = {"torch", "numpy", "safetensors", "tqdm"}
LIMITED: dict[str, tuple[str, ...]] = {
    "matplotlib": ("reporting.*", "filters.figures.*"),
    "onnx": ("export.*", "runtimes.*", "filters.*"),
    "onnxruntime": ("export.*", "runtimes.*"),
    "onnxscript": ("export.*", "runtimes.*"),
    "onnxslim": ("export.*", "runtimes.*"),
    "executorch": ("export.*",),
    "torchao": ("export.*",),
    "typer": ("cli.*",),
    "rich": ("cli.*",),
    "accelerate": ("training.accelerate",),
    "lightning": ("training.lightning",),
    "pytorch_lightning": ("training.lightning",),
    "transformers": ("training.transformers",),
    "cloudpickle": ("extras",),
    "optuna": ("search.find", "search.studies", "search.trials"),
    "scipy": ("data.*", "evaluation.*"),
    "torchmetrics": ("evaluation.*",),
    "PIL": ("data.*", "reporting.*"),
    "imageio": ("data.*",),
    "wfdb": ("data.*",),
    "sklearn": ("evaluation.*", "design.*"),
    "pyarrow": ("filters.*",),
    "duckdb": ("filters.*",),
    "h5py": ("filters.*",),
    "filelock": ("filters.*",),
    "dask": ("filters.*",),
    "distributed": ("filters.*",),
    "torch_pruning": ("scoring.torch_pruning",),  # the one file that knows it
}

ENTRIES = tuple(entry for row in STACK for entry in row) + tuple(BESIDE)
RANK = {entry: rank for rank, row in enumerate(STACK) for entry in row}


def home(module: str) -> str | None:
    """The entry of the table that `module` (dotted, without the package's name) belongs to."""
    if module in ENTRIES:
        return module
    return next((entry for entry in packages(module) if entry in ENTRIES), None)


def packages(module: str) -> list[str]:
    """The packages that a module is in, as `name.*`, the innermost (its own) first."""
    parts = module.split(".")
    return [".".join(parts[:n]) + ".*" for n in range(len(parts), 0, -1)]


def imports(source: str, module: str, *, is_package: bool) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute dotted name and whether it may be an attribute rather than a module.

    Imports inside functions and under TYPE_CHECKING count like any other.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package=is_package)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}", True
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            argument = node.args[0] if node.args else None
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield node.lineno, argument.value, False


def _absolute(node: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    if node.level == 0:
        return node.module or ""
    package = [PACKAGE, *filter(None, module.split("."))]
    up = node.level - 1 if is_package else node.level
    return ".".join([*package[: len(package) - up], *filter(None, [node.module])])


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def faults(module: str, source: str, known: frozenset[str], *, is_package: bool = False) -> list[str]:
    """One line per import that the table forbids; `known` are the package's modules."""
    here = home(module)
    if here is None:
        return [f"{PACKAGE}.{module} belongs to no layer: add it to the table in tests/test_layers.py"]
    found: list[str] = []
    for line, name, may_be_attribute in imports(source, module, is_package=is_package):
        root, _, inner = name.partition(".")
        if root != PACKAGE:
            reason = _third_party_fault(module, root)
        else:
            if may_be_attribute and inner not in known:
                inner = inner.rpartition(".")[0]  # `from module import attribute`
            reason = _layer_fault(here, inner)
        fault = f"{PACKAGE}.{module}:{line}: {reason}"
        if reason and fault not in found:  # one line for `from x import a, b`
            found.append(fault)
    return found


def _third_party_fault(module: str, root: str) -> str | None:
    if root in sys.stdlib_module_names or root in FREE:
        return None
    if root not in LIMITED:
        return f"imports {root}, which is no dependency of the package"
    if not {module, *packages(module)} & set(LIMITED[root]):
        return f"imports {root}, which only {LIMITED[root] or 'nobody'} may"
    return None


def _layer_fault(here: str, target: str) -> str | None:
    there = home(target)
    if there is None:
        return f"imports {PACKAGE}.{target}, which belongs to no layer"
    if there == here:
        return None
    if here in BESIDE:
        allowed = there in BESIDE[here]
    elif there in BESIDE:
        allowed = here in MAY_IMPORT_BESIDE
    else:
        allowed = RANK[there] > RANK[here]
    return None if allowed else f"{here or PACKAGE!r} imports {there or PACKAGE!r}: not below it"


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name without the package's."""
    folder = ROOT / PACKAGE
    parts = {path: path.relative_to(folder).with_suffix("").parts for path in folder.rglob("*.py")}
    return {".".join(part for part in names if part != "__init__"): path for path, names in parts.items()}


MODULES = modules()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_down_only(module: str) -> None:
    path = MODULES[module]
    source = path.read_text(encoding="utf-8")
    found = faults(module, source, frozenset(MODULES), is_package=path.name == "__init__.py")
    if found:
        pytest.fail("\n".join(found), pytrace=False)


KNOWN = frozenset(
    {
        "",
        "api",
        "cli",
        "errors",
        "reporting",
        "budget",
        "core",
        "core.plan",
        "core.graph",
        "core.rules",
    }
    | {
        "core.rules.shape",
        "core.labels",
        "scoring",
        "scoring.norm",
        "profiling",
        "export",
        "training",
    }
    | {"training.lightning", "training.transformers"}
    | {"export.onnx", "training.loop", "models", "models.vgg", "data", "testing"}
)

FORBIDDEN = {
    "upwards": ("core.graph", "from compressor import budget"),
    "upwards from an inner file": ("scoring.norm", "from compressor.budget import Macs"),
    "upwards inside the core": ("core.labels", "from compressor.core.rules import rule"),
    "upwards, relative": ("core.labels", "from .graph import Graph"),
    "upwards, relative, a module by name": ("core.labels", "from . import graph"),
    "upwards, two dots": ("core.rules.shape", "from ..graph import Graph"),
    "upwards, relative to a package": ("core.rules", "from ..graph import Graph"),
    "upwards within a function": ("errors", "def f():\n    import compressor.core.plan"),
    "upwards for types only": ("core.plan", "if TYPE_CHECKING:\n    import compressor.core.graph"),
    "upwards in disguise": ("core.graph", "importlib.import_module('compressor.budget')"),
    "to the door": ("budget", "import compressor as cp"),
    "upwards, two names": ("core.labels", "from compressor.core.graph import Graph, Axis"),
    "to a name of the door": ("budget", "from compressor import prune"),
    "from the door to the command line": ("", "from compressor.cli import main"),
    "between neighbours": ("export.onnx", "from compressor.training.loop import fit"),
    "between neighbours, relative": ("profiling", "from compressor.scoring import norm"),
    "from a model to the stack": ("models.vgg", "from compressor.core.plan import Plan"),
    "from a model to data": ("models.vgg", "import compressor.data"),
    "from the stack to a model": ("core.graph", "from compressor.models import create"),
    "to a module that is in no layer": ("reporting", "import compressor.utils"),
    "matplotlib in the core": ("core.graph", "import matplotlib.pyplot as plt"),
    "matplotlib beside the filters' figures": ("filters.bank", "import matplotlib.pyplot as plt"),
    "onnx outside export": ("reporting", "import onnx"),
    "onnxruntime late": ("budget", "def f():\n    import onnxruntime"),
    "lightning in the loop": ("training.loop", "import pytorch_lightning"),
    "accelerate beside transformers": ("training.transformers", "from accelerate import Accelerator"),
    "rich outside the command line": ("reporting", "from rich.table import Table"),
    "sklearn outside evaluation": ("data", "from sklearn.datasets import load_digits"),
    "torch-pruning outside its adapter": ("scoring.norm", "import torch_pruning"),
    "a module nobody declared": ("data", "import pandas"),
}

ALLOWED = {
    "downwards": ("budget", "from compressor.core.plan import Plan"),
    "downwards, relative": ("core.graph", "from .labels import Labels"),
    "downwards to a package": ("core.graph", "from .rules import rule"),
    "within one entry": (
        "core.rules.shape",
        "from . import rule\nfrom compressor.core.rules import rule",
    ),
    "errors by its package": ("core.plan", "from compressor import errors"),
    "an error": ("models.vgg", "from compressor.errors import InputError"),
    "the door to a model": ("", "from compressor import models, data"),
    "the standard library and torch": ("core.plan", "import json\nimport torch.nn as nn"),
    "matplotlib in the report": ("reporting", "def f():\n    import matplotlib"),
    "matplotlib in the filters' figures": ("filters.figures.style", "import matplotlib.pyplot as plt"),
    "two names of one module": ("core.graph", "from .tape import Tape, record"),
    "onnx in export": ("export.onnx", "import onnx, onnxruntime"),
    "sklearn and scipy in evaluation": ("evaluation", "import sklearn.metrics, scipy.stats"),
    "torch-pruning in its adapter": ("scoring.torch_pruning", "def f():\n    import torch_pruning"),
    "lightning in its callbacks": ("training.lightning", "import pytorch_lightning"),
    "typer in the command line": ("cli", "import typer"),
}


@pytest.mark.parametrize("case", FORBIDDEN)
def test_a_planted_import_is_found(case: str) -> None:
    module, source = FORBIDDEN[case]
    assert len(faults(module, source, KNOWN, is_package=module in PACKAGES)) == 1


@pytest.mark.parametrize("case", ALLOWED)
def test_an_import_in_order_is_left_alone(case: str) -> None:
    module, source = ALLOWED[case]
    assert faults(module, source, KNOWN, is_package=module in PACKAGES) == []


PACKAGES = {"", "core.rules"}


@pytest.mark.parametrize("module", ["helpers", "core.misc", "core.capture.inner"])
def test_a_file_without_a_layer_is_found(module: str) -> None:
    (fault,) = faults(module, "", KNOWN)
    assert "belongs to no layer" in fault


def test_a_fault_names_the_line_and_both_ends() -> None:
    (fault,) = faults("core.graph", "import json\nfrom compressor import budget", KNOWN)
    assert fault == "compressor.core.graph:2: 'core.graph' imports 'budget.*': not below it"


def test_the_table_names_every_entry_once() -> None:
    assert len(set(ENTRIES)) == len(ENTRIES)
