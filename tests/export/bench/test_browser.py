"""The page in a real browser with the screen of a phone: served as to a phone, and opened as a file."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from compressor.export.bench import bench_page
from compressor.export.bench.web_runtime import WebRuntime
from tests.chromium import WIDTH, Page, chromium, executable

from .nets import write_net

pytestmark = pytest.mark.skipif(executable() is None, reason="there is no Chromium on this machine")

Array = npt.NDArray[np.float32]
DONE = "document.body.dataset.state === 'ready'"
LOADED = "!document.getElementById('run').disabled"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder as `python -m http.server` serves it, no secure context for a browser."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://phone.test:{server.server_port}/index.html"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(runtime: WebRuntime) -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("nets")
    return [
        write_net(folder / "base.onnx", channels=32),
        write_net(folder / "a-network-with-a-rather-long-name.int8.onnx", channels=4, seed=1),
    ]


def run(page: Page, url: str, downloads: Path, *, dark: bool = False) -> dict[str, Any]:
    """The results that the page saves after a run."""
    page.open(url, dark=dark)
    page.wait_for(LOADED)
    page.evaluate("document.getElementById('run').click()")
    page.wait_for(DONE)
    downloads.mkdir(exist_ok=True)
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
    page.evaluate("document.getElementById('save').click()")
    end = time.monotonic() + 20
    while not (saved := list(downloads.glob("*.json"))) and time.monotonic() < end:
        time.sleep(0.05)
    results: dict[str, Any] = json.loads(saved[0].read_text())
    return results


def same_classes(paths: list[Path], images: Array) -> list[int]:
    """How many images each network gives the class of the first."""
    scores = [
        onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]
        for p in paths
    ]
    return [int((s.argmax(1) == scores[0].argmax(1)).sum()) for s in scores]


@pytest.mark.parametrize("single", [False, True])
def test_the_page_measures_and_saves(
    browser: Page, paths: list[Path], images: Array, tmp_path: Path, single: bool
) -> None:
    out = tmp_path / ("bench.html" if single else "bench")
    written = bench_page(out, paths, inputs=images, rounds=3, single_file=single, title="Nets")
    with contextlib.ExitStack() as stack:
        url = written.path.as_uri() if single else stack.enter_context(served(out))
        found = run(browser, url, tmp_path / "saved", dark=single)
        assert browser.evaluate("self.crossOriginIsolated") is False
        assert browser.evaluate("self.isSecureContext") is single, (
            "a phone on the network has no secure context"
        )
    base, small = found["models"]
    assert [m["error"] for m in found["models"]] == [None, None]
    assert [m["name"] for m in found["models"]] == [p.name.removesuffix(".onnx") for p in paths]
    assert [m["file_bytes"] for m in found["models"]] == [p.stat().st_size for p in paths]
    assert [m["top1_same"] for m in found["models"]] == same_classes(paths, images)
    assert [m["top1_rows"] for m in found["models"]] == [6, 6]
    assert [m["rounds"] for m in found["models"]] == [3, 3]
    assert (base["speedup"], base["identical"], small["identical"]) == (1, True, False)
    assert small["ms"] > 0
    assert base["heap_bytes"] == small["heap_bytes"] == 16 * 2**20
    assert (found["title"], found["runtime"]) == ("Nets", "onnxruntime-web 1.30.0")
    text = browser.evaluate("document.body.innerText")
    for word in ("Speed-up", f"{base['ms']:.2f} ms", "16.0 MiB", "6 of 6", "6 given inputs"):
        assert word in text
    assert browser.evaluate("document.documentElement.scrollWidth") == WIDTH, "nothing runs over the edge"
    assert browser.evaluate("document.querySelectorAll('#bars li').length") == 2 * 5
    assert not browser.complaints
    browser.screenshot(tmp_path / "page.png")  # for people: pytest keeps the folder for a while


def test_it_asks_nobody_but_its_own_server(browser: Page, paths: list[Path], tmp_path: Path) -> None:
    bench_page(tmp_path / "bench", paths, samples=2, rounds=1)
    with served(tmp_path / "bench") as url:
        run(browser, url, tmp_path / "saved")
    here = (url.removesuffix("/index.html"), "blob:" + url.removesuffix("/index.html"), "data:,")
    assert len(browser.requests) > 10
    assert [request for request in browser.requests if not request.startswith(here)] == []


def test_a_model_that_fails_is_named_and_the_others_go_on(
    browser: Page, paths: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bench"
    models = {"base": paths[0], "damaged": paths[1], "gone": paths[1], "small": paths[1]}
    bench_page(folder, models, samples=2, rounds=2)
    (folder / "models/1-damaged.onnx").write_bytes(b"nothing")
    (folder / "models/2-gone.onnx").unlink()
    with served(folder) as url:
        found = {m["name"]: m for m in run(browser, url, tmp_path / "saved")["models"]}
    assert "onnxruntime-web cannot load it" in found["damaged"]["error"]
    assert "HTTP 404" in found["gone"]["error"]
    assert found["damaged"]["ms"] is None
    assert (found["base"]["rounds"], found["small"]["rounds"]) == (2, 2)
    assert found["small"]["speedup"] > 0
    notes = browser.evaluate("document.getElementById('notes').innerText")
    assert "damaged failed: onnxruntime-web cannot load it" in notes
    assert "gone failed: models/2-gone.onnx cannot be fetched: HTTP 404" in notes


def test_without_its_baseline_there_are_times_but_no_ratios(
    browser: Page, paths: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "bench"
    bench_page(folder, paths, samples=2, rounds=2)
    (folder / "models/0-base.onnx").write_bytes(b"nothing")
    with served(folder) as url:
        base, small = run(browser, url, tmp_path / "saved")["models"]
    assert base["error"] and not small["error"]
    assert small["ms"] > 0
    assert small["speedup"] is None and small["top1_same"] is None
    assert "1.00×" not in browser.evaluate("document.getElementById('table').innerText")


def test_a_slower_model_is_called_slower(browser: Page, tmp_path: Path) -> None:
    """64 times the arithmetic, milliseconds of it: far more than noise makes up for."""
    dims = ("batch", 3, 96, 96)
    nets = [write_net(tmp_path / f"{n}.onnx", channels=n, dims=dims) for n in (1, 64)]
    bench_page(tmp_path / "bench", nets, samples=1, rounds=3)
    with served(tmp_path / "bench") as url:
        _, slow = run(browser, url, tmp_path / "saved")["models"]
    assert slow["speedup"] < 1
    assert f"{slow['speedup']:.2f}×, slower" in browser.evaluate("document.querySelector('.slow').innerText")


def test_a_run_can_be_stopped(browser: Page, paths: list[Path], tmp_path: Path) -> None:
    bench_page(tmp_path / "bench", paths, samples=2, rounds=100_000)
    with served(tmp_path / "bench") as url:
        browser.open(url)
        browser.wait_for(LOADED)
        browser.evaluate("document.getElementById('run').click()")
        browser.wait_for("document.getElementById('status').textContent.startsWith('Round')")
        browser.evaluate("document.getElementById('stop').click()")
        browser.wait_for(DONE)
    assert browser.evaluate("document.getElementById('status').textContent").startswith("Done: ")


def test_a_folder_opened_as_a_file_says_what_to_do(browser: Page, paths: list[Path], tmp_path: Path) -> None:
    browser.open(bench_page(tmp_path / "bench", paths, samples=2).path.as_uri())
    assert "python -m http.server" in browser.evaluate("document.body.innerText")


def test_a_page_that_is_not_whole_says_so(browser: Page, paths: list[Path], tmp_path: Path) -> None:
    bench_page(tmp_path / "bench", paths, samples=2)
    (tmp_path / "bench/manifest.json").unlink()
    with served(tmp_path / "bench") as url:
        browser.open(url)
        browser.wait_for("document.getElementById('status').textContent")
    text = browser.evaluate("document.getElementById('status').textContent")
    assert text.startswith("This page is not whole: manifest.json cannot be fetched: HTTP 404")
