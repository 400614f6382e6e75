"""What is written for a bench page, and what is left where it cannot be written."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from compressor.errors import ExportError, InputError
from compressor.export.bench import bench_page, page
from compressor.export.bench.site import _WEB
from compressor.export.bench.web_runtime import NAME, SCRIPT, VERSION, WASM, WebRuntime, program

from .nets import write_net

Array = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def _small_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small files in the place of onnxruntime-web, so that it need not be fetched."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    (folder / SCRIPT).write_text("export const script = '</script>';")
    (folder / WASM).write_bytes(b"\0asm")
    monkeypatch.setattr(page, "web_runtime", lambda: WebRuntime(folder))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [write_net(tmp_path / "nets/base.onnx"), write_net(tmp_path / "nets/small.int8.onnx", channels=4)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "pages").mkdir()
    return tmp_path / "pages/bench"


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def unpacked(html: str) -> dict[str, bytes]:
    scripts = re.findall(r'<script type="text/plain" id="file:(.*?)">(.*?)</script>', html)
    return {name: gzip.decompress(base64.b64decode(packed)) for name, packed in scripts}


def test_the_folder_holds_models_inputs_runtime_and_its_licence(
    out: Path, paths: list[Path], images: Array
) -> None:
    report = bench_page(out, paths, inputs=images, rounds=7, title="Nets")
    found = content(out)
    manifest: dict[str, Any] = json.loads(found["manifest.json"])
    assert (manifest["title"], manifest["rounds"]) == ("Nets", 7)
    assert [m["name"] for m in manifest["models"]] == ["base", "small.int8"]
    for entry, path in zip(manifest["models"], paths, strict=True):
        model = path.read_bytes()
        assert found[entry["file"]] == model
        assert (entry["bytes"], entry["sha256"]) == (len(model), hashlib.sha256(model).hexdigest())
        assert entry["inputs"] == ["x"]
    assert manifest["inputs"]["samples"] == len(images)
    (tensor,) = manifest["inputs"]["tensors"]
    assert (tensor["type"], tensor["dims"]) == ("float32", [1, 3, 8, 8])
    np.testing.assert_array_equal(
        np.frombuffer(found[tensor["file"]], np.float32).reshape(images.shape), images
    )
    assert found[WASM] == b"\0asm"
    assert manifest["runtime"] == {
        "name": NAME,
        "version": VERSION,
        "licence": "MIT",
        "files": {"script": SCRIPT, "wasm": WASM},
    }
    assert b"Copyright (c) Microsoft Corporation" in found["LICENSE-onnxruntime-web.txt"]
    assert report.path == out / "index.html"
    assert report.page_bytes == sum(map(len, found.values()))
    assert report.models == {path.name.removesuffix(".onnx"): path.stat().st_size for path in paths}
    assert (report.samples, report.random) == (6, False)


def test_every_file_of_the_page_is_written_and_names_nothing_of_this_machine(
    out: Path, paths: list[Path], tmp_path: Path
) -> None:
    bench_page(out, paths)
    found = content(out)
    assert {p.name for p in _WEB.iterdir()} - {"node.mjs"} <= set(found)
    assert not [name for name, data in found.items() if str(tmp_path).encode() in data]


def test_one_file_holds_all_that_the_folder_holds(out: Path, paths: list[Path]) -> None:
    bench_page(out, paths)
    report = bench_page(out.with_suffix(".html"), paths, single_file=True)
    html = report.path.read_text()
    inside, folder = unpacked(html), content(out)
    assert {name: folder[name] for name in inside} == inside
    apart = set(folder) - set(inside)
    assert {name.rpartition(".")[2] for name in apart} == {"html", "css", "txt", "mjs"}
    assert report.page_bytes == report.path.stat().st_size
    assert "Copyright (c) Microsoft Corporation" in html
    assert not re.findall(r'(?:src|href)="(?!data:,)', html), "it refers to no other file"
    assert "python -m http.server" not in html


@pytest.mark.skipif(program("node") is None, reason="there is no node on this machine")
def test_the_modules_of_one_file_are_one_module(out: Path, paths: list[Path], tmp_path: Path) -> None:
    """A name that two modules define would be a SyntaxError."""
    html = bench_page(out.with_suffix(".html"), paths, single_file=True).path.read_text()
    ((script),) = re.findall(r'<script type="module">(.*?)</script>', html, flags=re.DOTALL)
    joined = tmp_path / "joined.mjs"
    joined.write_text(script)
    checked = subprocess.run(
        [str(program("node")), "--check", str(joined)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert "import {" not in script


def test_the_same_arguments_give_the_same_bytes(out: Path, paths: list[Path], tmp_path: Path) -> None:
    bench_page(out, paths)
    bench_page(tmp_path / "again", paths)
    assert content(out) == content(tmp_path / "again")
    pages = [
        bench_page(tmp_path / name, paths, single_file=True).path.read_bytes()
        for name in ("a.html", "b.html")
    ]
    assert pages[0] == pages[1]


def test_an_earlier_page_is_replaced_whole(out: Path, paths: list[Path]) -> None:
    bench_page(out, paths)
    bench_page(out, paths[:1])
    assert sorted(name for name in content(out) if name.startswith("models/")) == ["models/0-base.onnx"]
    assert os.listdir(out.parent) == ["bench"]


def test_an_empty_folder_is_filled(out: Path, paths: list[Path]) -> None:
    out.mkdir()
    assert bench_page(out, paths).path.is_file()


@pytest.mark.parametrize("name", ["manifest.json", "notes.txt"])
def test_a_folder_of_other_things_is_left_alone(out: Path, paths: list[Path], name: str) -> None:
    out.mkdir()
    (out / name).write_text("[1]")
    with pytest.raises(ExportError, match="holds other things than a bench page, so it is left as it is"):
        bench_page(out, paths)
    assert content(out) == {name: b"[1]"}


def test_a_file_that_someone_put_beside_a_page_is_not_lost(out: Path, paths: list[Path]) -> None:
    bench_page(out, paths)
    (out / "models/notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="holds other things"):
        bench_page(out, paths)
    assert (out / "models/notes.txt").read_text() == "mine"


def test_a_page_that_cannot_take_its_place_leaves_the_earlier_one(
    out: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench_page(out, paths)
    before = content(out)
    replace = os.replace

    def fail_for_the_new(source: Path, target: Path) -> None:
        if Path(source).name == "whole":
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_for_the_new)
    with pytest.raises(ExportError, match="disk full"):
        bench_page(out, paths[:1])
    assert content(out) == before
    assert os.listdir(out.parent) == ["bench"]


@pytest.mark.parametrize("single", [False, True])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, paths: list[Path], single: bool) -> None:
    (tmp_path / "file").write_text("a file in the place of the folder")
    out = tmp_path / "file" / ("bench.html" if single else "bench")
    with pytest.raises(ExportError, match=r"cannot write the bench page .*bench"):
        bench_page(out, paths, single_file=single)


def test_the_form_of_the_name_must_fit_what_is_written(out: Path, paths: list[Path]) -> None:
    with pytest.raises(InputError, match=r"needs a name such as .*bench\.html"):
        bench_page(out, paths, single_file=True)
    with pytest.raises(InputError, match="names one file, but a folder is written"):
        bench_page(out.with_suffix(".html"), paths)
    out.with_suffix(".html").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        bench_page(out.with_suffix(".html"), paths, single_file=True)


@pytest.mark.parametrize(
    ("models", "text"),
    [(["gone.onnx"], "cannot read the model"), ([], "at least the baseline"), (["notes.txt"], "is no model")],
)
def test_models_that_cannot_run_leave_nothing(
    out: Path, tmp_path: Path, models: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no network")
    with pytest.raises(InputError, match=text):
        bench_page(out, models)
    assert os.listdir(out.parent) == []


def test_names_of_any_letters_become_plain_file_names(out: Path, paths: list[Path]) -> None:
    bench_page(out, {"größer & <b>": paths[0], "a/b": paths[1]})
    manifest = json.loads((out / "manifest.json").read_text())
    assert [m["name"] for m in manifest["models"]] == ["größer & <b>", "a/b"]
    assert sorted(os.listdir(out / "models")) == ["0-gr-er-b-.onnx", "1-a-b.onnx"]


def test_the_report_says_how_to_open_it(out: Path, paths: list[Path]) -> None:
    text = str(bench_page(out, paths))
    assert f"python -m http.server 8000 --directory {out}" in text
    assert re.search(r"base +[\d,]+ bytes", text)
    single = str(bench_page(out.with_suffix(".html"), paths, single_file=True))
    assert "32 random inputs" in single
    assert "Copy the file to the phone" in single
