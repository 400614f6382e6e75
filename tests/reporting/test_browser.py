"""The page in a real browser: on phones and on a desk, light and dark, with names that are markup."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.reporting import Report
from tests.chromium import Page, chromium, executable

pytestmark = pytest.mark.skipif(executable() is None, reason="there is no Chromium on this machine")

NASTY = '<img src=x onerror="ran=1"></title><script>ran=1</script>'
# Of all texts of pictures, pairs that share a pixel.
OVERLAPS = """
[...document.querySelectorAll('section > figure')].flatMap(figure => {
  const boxes = [...figure.querySelectorAll('svg text')].map(t => [t.textContent, t.getBoundingClientRect()]);
  return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
    .filter(([b, q]) => p.left < q.right - 1 && q.left < p.right - 1)
    .filter(([b, q]) => p.top < q.bottom - 4 && q.top < p.bottom - 4)
    .map(([b]) => a + ' / ' + b));
})
"""
# Whatever sticks out of the page, but for what lies in a box that scrolls by itself.
STICKING_OUT = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.wide'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 80))
"""
# The least contrast of a text to what is behind it.
CONTRAST = """
(() => {
  const light = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4 };
  const luminance = text => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number);
    return 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b) };
  const behind = e => { for (; e; e = e.parentElement) {
    const found = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(found)) return found } };
  const texts = 'h1,h2,h3,p,a,dt,dd,th,td,li,strong,summary,figcaption,text';
  return Math.min(...[...document.querySelectorAll(texts)].map(e => {
    const own = getComputedStyle(e), colours = [e.matches('text') ? own.fill : own.color, behind(e)];
    const [a, b] = colours.map(luminance).sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05) }));
})()
"""


class Tokens(nn.Module):
    """Patches, attention and a head, with names that are markup."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.encoder = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True)
        self.heads = nn.ModuleDict({NASTY: nn.Linear(12, 5)})

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.encoder(self.patch(x).flatten(2).transpose(1, 2))
        out: Tensor = self.heads[NASTY](tokens.mean(1))
        return out


def nasty() -> Report:
    model, x = Tokens().eval(), torch.rand(1, 3, 8, 8)
    graph = cp.capture(model, x)
    scores = cp.score(graph, cp.scoring.Norm())
    small = cp.apply(model, cp.plan(scores, cp.budget.Macs(0.6)))
    points = [
        cp.search.Point(f"{NASTY} {n}", q, {NASTY: float(n)}) for n, q in ((1, 0.5), (2, 0.7), (3, 0.6))
    ]
    frontier = cp.search.Frontier(tuple(points), NASTY, (NASTY,))
    return cp.report(model, small, x, scores=scores, frontier=frontier, title=NASTY)


def wide() -> Report:
    """Large numbers, long names, one channel and thousands."""
    names = [f"backbone.stages.{n}.blocks.{n}.attention_projection" for n in range(3)]
    net = nn.Sequential()
    for name, (i, o) in zip(names, ((1, 1024), (1024, 16), (16, 1000)), strict=True):
        net.add_module(name.replace(".", "/"), nn.Linear(i, o))
    x = torch.rand(900, 1)
    graph = cp.capture(net, x)
    removed = np.arange(graph.n_units) % 3 == 0
    small = cp.apply(net, graph.plan(removed))
    scores = cp.score(graph, cp.scoring.Random(0))
    return cp.report(net, small, x, scores=scores, latency=cp.profiling.latency(net, small, x, rounds=1))


def nothing() -> Report:
    net, x = nn.Linear(4, 2), torch.rand(1, 4)
    graph = cp.capture(net, x)
    return cp.report(net, cp.apply(net, graph.plan([False] * graph.n_units)), x)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture(scope="module")
def pages(full: Report, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    reports = {"full": full, "nasty": nasty(), "wide": wide(), "nothing": nothing()}
    return {name: report.write(folder / f"{name}.html") for name, report in reports.items()}


@pytest.mark.parametrize(("width", "dark"), [(320, False), (390, True), (1200, False)])
@pytest.mark.parametrize("name", ["full", "nasty", "wide", "nothing"])
def test_the_page_fits_and_is_readable(
    browser: Page, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    url = pages[name].as_uri()
    browser.open(url, dark=dark, width=width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    found: dict[str, Any] = {
        "width": browser.evaluate("document.documentElement.scrollWidth"),
        "sticking out": browser.evaluate(STICKING_OUT),
        "overlapping": browser.evaluate(OVERLAPS),
        "complaints": browser.complaints,
        "requests": browser.requests,
        "ran": browser.evaluate("window.ran === undefined"),
    }
    expected = {
        "width": width,
        "sticking out": [],
        "overlapping": [],
        "complaints": [],
        "requests": [url],
        "ran": True,
    }
    assert found == expected
    assert browser.evaluate(CONTRAST) >= 4.5  # WCAG 2.2, 1.4.3


def test_the_checks_find_what_is_planted(browser: Page, pages: dict[str, Path]) -> None:
    browser.open(pages["full"].as_uri(), width=390)
    assert browser.evaluate(CONTRAST) >= 4.5
    browser.evaluate("document.querySelector('h2').style.color = '#aaaaaa'")
    assert browser.evaluate(CONTRAST) < 4.5
    browser.evaluate("document.querySelector('h1').style.width = '500px'")
    assert browser.evaluate(STICKING_OUT)
    browser.evaluate(
        "document.querySelectorAll('.rows > svg').forEach(row => { row.style.marginTop = '-30px' })"
    )
    assert browser.evaluate(OVERLAPS)


def test_names_that_are_markup_are_read_as_they_are(browser: Page, pages: dict[str, Path]) -> None:
    browser.open(pages["nasty"].as_uri(), width=390)
    assert browser.evaluate("document.title") == NASTY
    assert browser.evaluate("document.querySelector('h1').textContent") == NASTY
    assert browser.evaluate("document.querySelectorAll('img, script').length") == 0
    assert browser.evaluate(f"document.querySelector('#plan').textContent.includes({NASTY!r})")
