"""What the build of the site checks: names that no page shows, pages that fetch, docstrings as meant."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import compressor as cp
from tests.conftest import ROOT

pytest.importorskip("sphinx", reason="the site is built with the extra `docs`: make docs")


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "docs" / "docs_site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def documented(names: list[str]) -> SimpleNamespace:
    return SimpleNamespace(domains={"py": SimpleNamespace(objects=dict.fromkeys(names))})


def test_every_export_of_cp_is_public(site: ModuleType) -> None:
    names = site.public_names()
    for name in cp.__all__:
        value = getattr(cp, name)
        expected = (
            [f"{value.__name__}.{x}" for x in value.__all__]
            if isinstance(value, ModuleType)
            else [f"compressor.{name}"]
        )
        # A module that is exported in turn is not a name but its names are.
        assert [x for x in expected if x not in names and x != "compressor.training.sparsity"] == []
    assert "compressor.training.sparsity.MaskSparsity" in names


def test_a_name_on_no_page_stops_the_build(site: ModuleType) -> None:
    names = list(site.public_names())
    site._check_names(None, documented(names))
    missing = "compressor.budget.Macs"
    with pytest.raises(
        Exception, match=r"1 public names are on no page of docs/api: compressor\.budget\.Macs"
    ):
        site._check_names(None, documented([name for name in names if name != missing]))


def test_one_of_two_names_of_a_thing_is_enough(site: ModuleType) -> None:
    assert cp.Scorer is cp.scoring.Scorer
    site._check_names(None, documented([name for name in site.public_names() if name != "compressor.Scorer"]))


@pytest.mark.parametrize(
    ("html", "fetches"),
    [
        ('<script src="_static/a.js"></script><a href="https://example.org">out</a>', False),
        ('<link rel="stylesheet" href="//fonts.example.org/x.css">', True),
        ('<img src="https://example.org/x.png">', True),
    ],
)
def test_a_page_that_fetches_stops_the_build(
    site: ModuleType, tmp_path: Path, html: str, fetches: bool
) -> None:
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    app = SimpleNamespace(builder=SimpleNamespace(format="html"), outdir=str(tmp_path))
    if fetches:
        with pytest.raises(Exception, match="has to work without a network"):
            site._check_pages(app, None)
    else:
        site._check_pages(app, None)


@pytest.mark.parametrize(
    ("markdown", "rst"),
    [
        ("The `mean` of x.", "The ``mean`` of x."),
        ("Two `x`s, a*b, |y|, z_ .", "Two ``x``\\ s, a\\*b, \\|y\\|, z\\_ ."),
        ("*Source: A. Author, 2020.* Departure: none.", "*Source: A. Author, 2020.* Departure: none."),
        ("*Source: see `drift`.*", "Source: see ``drift``."),
        (">>> 2 * 3\n6", ">>> 2 * 3\n6"),
        ("A:\n\n    code `x`", "A:\n\n::\n\n    code `x`"),
    ],
)
def test_docstrings_are_turned_as_they_are_meant(site: ModuleType, markdown: str, rst: str) -> None:
    assert site.rst(markdown) == rst
