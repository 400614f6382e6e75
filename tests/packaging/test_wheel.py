"""The wheel holds the package and nothing else, says the truth about it, and works where it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import compressor as cp
from tests.conftest import ROOT
from tests.packaging.alone import NO_LIBRARY, environment, install, site
from tests.packaging.probes import PROBES

tomllib = pytest.importorskip("tomllib", reason="reads pyproject.toml, from Python 3.11 on")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_extra_has_a_probe() -> None:
    assert set(PROBES) == set(PROJECT["optional-dependencies"]) - NO_LIBRARY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the source as it is; built elsewhere, as `build/` may hold modules that are gone."""
    folder, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source") / "compressor"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "out", "site", "dist"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.mark.slow
def test_the_wheel_holds_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        rest = {name.partition(".dist-info/")[2] for name in archive.namelist() if ".dist-info/" in name}
    tracked = subprocess.run(
        ["git", "ls-files", "compressor"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert inside == set(tracked.stdout.split())
    assert {"licenses/LICENSE", "entry_points.txt", "METADATA", "RECORD", "WHEEL"} <= rest


@pytest.mark.slow
def test_the_wheel_says_what_the_project_says(metadata: Message) -> None:
    assert metadata["Version"] == cp.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata.get_all("Provides-Extra") == list(PROJECT["optional-dependencies"])
    plain = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert plain == PROJECT["dependencies"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_installed_wheel_does_what_it_is_for(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env")
    install(python, "--no-deps", str(wheel))
    # The libraries of this environment, without the source that may be installed in it.
    (site(python) / "over.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    code = "import compressor, sys; print(compressor.__file__)"
    ran = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(ran.stdout.strip()).is_relative_to(tmp_path)
    subprocess.run([python, ROOT / "tests" / "packaging" / "probes.py"], cwd=tmp_path, check=True)
    command = [tmp_path / "env" / "bin" / "compressor", "--help"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "prune" in ran.stdout
