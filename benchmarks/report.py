"""The page `docs/results.md`: every claim with its figures, tables and command, from the kept results.

python -m benchmarks.report            # writes the page and its figures
python -m benchmarks.report --check    # exit code 1 where they are not what the results say
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks import readme, results, zoo
from benchmarks.claims import CLAIMS, Claim
from benchmarks.figures.canvas import Content, write
from benchmarks.results import Table

__all__ = ["FIGURES", "PAGE", "RECIPES", "drawn", "page", "stale", "write_all"]

PAGE = zoo.ROOT / "docs" / "results.md"
FIGURES = PAGE.parent / "figures"
RECIPES = zoo.ROOT / "examples" / "recipes" / "results"
_LONG = 9  # rows; longer tables are folded


def page() -> str:
    """The text of the page, from the JSON files of `benchmarks/results/` and of the recipes."""
    left, quick = _kept()
    sections = [[_README, readme.table()], *(_section(claim, _taken(claim, left)) for claim in CLAIMS)]
    if left:
        sections.append(["## Other runs\n\nBenchmarks whose numbers are no claim of the README."])
        for name, content in left.items():
            tables = map(_table, content.get("tables", ()))
            sections[-1] += [f"### {name}", _repeated(name, content), *tables]
    sections += [
        [_SYSTEMS, _recipes()],
        [_SMALL, _folded("The runs", "\n".join(f"- {_repeated(name, quick[name])}" for name in quick))],
    ]
    parts = [_HEAD, _contents(sections), *(part for section in sections for part in section)]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def drawn(folder: Path) -> list[Path]:
    """The page's figures, drawn into a folder."""
    kept, _ = _kept()
    found = []
    for claim in CLAIMS:
        contents = [kept[name] for name in _files(claim, kept)]
        found += [write(draw, contents, folder, name) for name, draw in claim.pictures.items()]
    return found


def write_all() -> list[Path]:
    """The page and its figures, written; figures that no claim shows any more are deleted."""
    PAGE.write_text(page(), encoding="utf-8")
    figures = drawn(FIGURES)
    for file in {*FIGURES.glob("*.svg")} - {*figures}:
        file.unlink()
    return [PAGE, *figures]


def stale() -> list[str]:
    """What of the page and its figures is not what the results say, by name.

    Figures are held against figures of the same matplotlib only: another version draws other bytes.
    """
    found = [] if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page() else [PAGE.name]
    with tempfile.TemporaryDirectory() as folder:
        for fresh in drawn(Path(folder)):
            file = FIGURES / fresh.name
            if not file.is_file() or (same_matplotlib(file) and file.read_bytes() != fresh.read_bytes()):
                found.append(file.name)
    return found


def same_matplotlib(figure: Path) -> bool:
    """Whether the installed matplotlib drew this figure."""
    return f"Matplotlib v{matplotlib.__version__}," in figure.read_text(encoding="utf-8")


_HEAD = """# Results

Written by `python -m benchmarks.report` from the JSON files of `benchmarks/results` and
`examples/recipes/results`, not by hand.

Wins and losses alike. Every number was measured on shared x86 machines with two cores and no GPU, by the
versions beside it. Times are CPU time of one thread unless they say otherwise, and contenders take turns
in one process. *Command* is how to repeat all of it, *last run* the command that the file was last
written by: runs are resumed, and then it names only what was added. What the columns mean, and what came
out, in words: [benchmarks](../benchmarks/README.md)."""

_README = """## The README

Every number in it, the command that measures it anew, and where it is kept. A test holds the README against
these results."""

_SYSTEMS = """## Four systems

ECG rhythms, a clutter filter, super-resolution and the restoration of faces, pruned and trained on. What
these numbers are and are not: [four systems](systems.md)."""

_SMALL = """## Small modes

Runs on a few samples that show that a benchmark works. Their numbers mean nothing."""


def _kept() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """All results by name: those of full runs, those of small modes."""
    found = {file.stem: _read(file) for file in sorted(results.FOLDER.glob("*.json"))}
    quick = {name: found.pop(name) for name in list(found) if name.endswith("-quick")}
    return found, quick


def _files(claim: Claim, kept: Mapping[str, Content]) -> list[str]:
    """The names of the results that belong to a claim; KeyError where a pattern has none."""
    found = []
    for pattern in claim.files:
        names = sorted(fnmatch.filter(kept, pattern))
        if not names:
            raise KeyError(f"{claim.title!r} names results that are not there: {pattern}")
        found += names
    return found


def _taken(claim: Claim, left: dict[str, dict[str, Any]]) -> list[tuple[str, Content]]:
    return [(name, left.pop(name)) for name in _files(claim, left)]


def _contents(sections: Sequence[Sequence[str]]) -> str:
    titles = [section[0].splitlines()[0].removeprefix("## ") for section in sections]
    return "\n".join(f"- [{title}](#{_anchor(title)})" for title in titles)


def _anchor(title: str) -> str:
    """The place of a heading on its page, as GitHub and MyST name it.

    >>> _anchor("Widths, and a basis")
    'widths-and-a-basis'
    """
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def _section(claim: Claim, kept: Sequence[tuple[str, Content]]) -> list[str]:
    parts = [f"## {claim.title}", claim.text, f"Command: `{claim.command}`"]
    if claim.said is not None:
        parts.append(claim.said([content for _, content in kept]))
    parts += _pictures(claim)
    for name, content in kept:
        tables = content.get("tables", ())
        shown = [t for t in tables if not claim.tables or t["title"].startswith(claim.tables)]
        parts += [_repeated(name, content), *map(_table, shown)]
    return parts


def _pictures(claim: Claim) -> Iterator[str]:
    for name, draw in claim.pictures.items():
        assert draw.__doc__ is not None, name
        yield f"![{draw.__doc__.splitlines()[0]}]({FIGURES.name}/{name}.svg)"


def _table(content: Content) -> str:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    return _shown(Table(**{**fields, "rows": tuple(map(tuple, content["rows"]))}))


def _shown(table: Table) -> str:
    if len(table.rows) <= _LONG:
        return table.markdown()
    _, body = table.markdown().split("\n\n", 1)
    return _folded(f"{table.title}: {len(table.rows)} rows", body)


def _folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body.rstrip()}\n\n</details>"


def _repeated(name: str, content: Content) -> str:
    facts = content["context"]
    versions = ", ".join(f"{k} {v}" for k, v in facts["versions"].items() if v is not None)
    seeds = f", seeds {', '.join(map(str, facts['seeds']))}" if facts["seeds"] else ""
    page = f"[{name}](../benchmarks/results/{name}.md)" if (results.FOLDER / f"{name}.md").is_file() else name
    return (
        f"{page}: last run `{facts['command']}`, {facts['date']}; Python {facts['python']}, {versions}; "
        f"{facts['system']}, {facts['threads']} thread(s){seeds}."
    )


def _recipes() -> str:
    lines = []
    for file in sorted(RECIPES.glob("*.json")):
        content = _read(file)
        lines.append(
            (
                f"[{file.stem}](../examples/recipes/results/{file.stem}.md)",
                content["title"],
                f"`{content['command']}`",
                content["date"],
            )
        )
    columns = ("table", "what", "command", "date")
    return _shown(Table("Recipes", columns, tuple(lines), words=(0, 1, 2, 3)))


def _read(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict), file
    return content


def main() -> int:
    """The exit code: 1 if the page is checked and differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether page and figures are fresh")
    if parser.parse_args().check:
        old = stale()
        if old:
            print(f"not what the results say: {', '.join(old)}; python -m benchmarks.report")
        else:
            print("up to date")
        return 1 if old else 0
    for file in write_all():
        print(f"wrote {file.relative_to(zoo.ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
