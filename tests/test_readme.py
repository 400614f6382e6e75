"""Every Python block of the README runs, in its order, on a model of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.export.bench.web_runtime import cached
from tests.conftest import ROOT
from tests.own_model import names_of_a_reader, python_blocks

BLOCKS = python_blocks(ROOT / "README.md")


@pytest.mark.filterwarnings("ignore")
def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    fetched = cached()
    if fetched is not None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / fetched.folder.name).symlink_to(fetched.folder)
    monkeypatch.setenv("COMPRESSOR_CACHE", str(tmp_path / "cache"))  # what is measured here stays here
    assert len(BLOCKS) >= 5
    names = names_of_a_reader()
    with_page = [block for block in BLOCKS if "export.mobile(" in block]
    assert len(with_page) == 1
    for block in BLOCKS:
        if block not in with_page or fetched is not None:
            exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "small.onnx").is_file()
    if fetched is None:
        pytest.skip("all but the block that writes a bench page: onnxruntime-web is not fetched (make env)")
    assert (tmp_path / "out/manifest.json").is_file()
