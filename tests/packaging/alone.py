"""Each extra alone in an environment of its own: what it is for works, and the others say what to install.

    python tests/packaging/alone.py dist/compressor-0.1.0-py3-none-any.whl [extra ...]

needs a package index. One environment holds what the wheel needs anyway; the others see it and add one extra.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import tomllib

HERE = Path(__file__).resolve().parent
TOO_LARGE = {"executorch"}
NO_LIBRARY = {"demo", "dev", "docs"}  # other extras together, and tools


def extras() -> list[str]:
    """The extras of the project, but those of more than a gigabyte and those made of others."""

    project = tomllib.loads((HERE.parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [name for name in project["optional-dependencies"] if name not in TOO_LARGE | NO_LIBRARY]


def environment(folder: Path, *, over: Path | None = None) -> Path:
    """A new environment that sees the packages of another; its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    if over is not None:
        site(python).joinpath("over.pth").write_text(f"{site(over)}\n", encoding="utf-8")
    return python


def site(python: Path) -> Path:
    """Where an interpreter keeps its packages."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(
        subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    )


def install(python: Path, *what: str) -> None:
    """Install by pip."""
    subprocess.run([python, "-m", "pip", "install", "--quiet", *what], check=True)


def probe(python: Path, *installed: str) -> bool:
    """Whether all probes end as they should."""
    command = [python, HERE / "probes.py", *installed]
    return subprocess.run(command, cwd=tempfile.gettempdir(), check=False).returncode == 0


def main(wheel: str, *chosen: str) -> int:
    """The number of environments in which something ended otherwise."""
    wheel, faults = str(Path(wheel).resolve()), 0
    with tempfile.TemporaryDirectory() as name:
        base = environment(Path(name) / "base")
        install(base, wheel)
        for extra in ("", *(chosen or extras())):
            sys.stdout.write(f"== {extra or 'without any'}\n")
            sys.stdout.flush()
            python = base
            if extra:
                python = environment(Path(name) / extra, over=base)
                install(python, f"{wheel}[{extra}]")
            faults += not probe(python, *filter(None, [extra]))
    return faults


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
