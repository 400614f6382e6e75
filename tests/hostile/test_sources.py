"""No call in the source runs what is in a file: pickles, eval, YAML with objects, shells."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Where a pickle is read that this library wrote itself for another process of its own.
OWN = {"runtimes/peak_script.py", "search/measuring.py"}
OWN |= {f"filters/sketching/{name}.py" for name in ("cluster", "running", "tasks")}
NEVER = {"eval", "exec", "compile", "os.system", "os.popen", "marshal.loads", "yaml.load", "joblib.load"}
PICKLES = {"pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads"}
PICKLES |= {"pd.read_pickle", "shelve.open", "torch.jit.load", "torch.hub.load"}
# Evaluated is what the library composed: a doctest's or a restricted unpickler's class.
RESTRICTED = {"filters/store/plain_pickles.py"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def option(call: ast.Call, name: str) -> object:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value.value if isinstance(keyword.value, ast.Constant) else "?"
    return None


def faults(source: str, file: str) -> Iterator[str]:
    """The calls of a file that would run what they read."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            where = f"{file}:{node.lineno}: {name}"
            if name in NEVER:
                yield where
            if name == "torch.load" and option(node, "weights_only") is not True and file not in OWN:
                yield f"{where} without weights_only=True"
            if name in ("np.load", "numpy.load") and option(node, "allow_pickle") not in (False, None):
                yield f"{where} with allow_pickle"
            if name in PICKLES and file not in OWN:
                yield where
            if name.startswith("subprocess.") and option(node, "shell") not in (None, False):
                yield f"{where} with a shell"
        if isinstance(node, ast.ClassDef) and file not in RESTRICTED:
            yield from (
                f"{file}:{node.lineno}: an unpickler"
                for base in node.bases
                if dotted(base).endswith("Unpickler")
            )


def sources() -> list[Path]:
    return sorted((ROOT / "compressor").rglob("*.py"))


def test_no_source_runs_a_file() -> None:
    found = [
        fault
        for path in sources()
        for fault in faults(path.read_text(), path.relative_to(ROOT / "compressor").as_posix())
    ]
    assert not found, "\n".join(found)


def test_the_files_that_may_are_there() -> None:
    there = {path.relative_to(ROOT / "compressor").as_posix() for path in sources()}
    assert there >= OWN | RESTRICTED


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "pickle.loads(data)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "class Reader(pickle.Unpickler): pass",
    ],
)
def test_the_reader_of_sources_sees_them(line: str) -> None:
    assert list(faults(line, "some.py"))
