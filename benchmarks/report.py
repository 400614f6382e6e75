"""The page `docs/results.md`: every claim with its table and command, from the results that are kept.

python -m benchmarks.report            # writes the page
python -m benchmarks.report --check    # exit code 1 where the page is not what the results say
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import results, zoo
from benchmarks.results import Table

__all__ = ["CLAIMS", "PAGE", "Claim", "page", "write"]

PAGE = zoo.ROOT / "docs" / "results.md"
RECIPES = zoo.ROOT / "examples" / "recipes" / "results"
Content = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """A section of the page: what is claimed, how to repeat it, and which files and tables show it.

    `files` are names of results without their ending, or patterns of them; `tables` are the beginnings of the
    titles that are shown, all of them where there is none. `said` makes sentences or a table of the files.
    """

    title: str
    text: str
    command: str
    files: tuple[str, ...]
    tables: tuple[str, ...] = ()
    said: Callable[[Sequence[Content]], str] | None = None


def covered(kept: Sequence[Content]) -> str:
    """How many networks of each source had each outcome."""
    names = ("exact", "exact, kept statistics", "refused", "wrong", "fails", "not run")
    lines = []
    for content in kept:
        counts = Counter(row["status"] for row in content["rows"])
        source = content["rows"][0]["source"]
        lines.append((source, str(len(content["rows"])), *(str(counts[name]) for name in names)))
    return Table("Networks", ("source", "networks", *names), tuple(lines)).markdown()


def beside_torch_pruning(kept: Sequence[Content]) -> str:
    """Who is faster where: medians of the ratio in each round, ours with a new network, theirs in place."""
    won, lost, unequal = [], [], []
    for row in kept[0]["rows"]["networks"]:
        both = [times for times in row["rounds"] if "ours" in times and "theirs_" in times]
        ratio = statistics.median(times["ours"]["cpu_s"] / times["theirs_"]["cpu_s"] for times in both)
        (won if ratio < 1 else lost).append(f"{row['network']} ({ratio:.2f})")
        if abs(row["params_left"]["ours"] - row["params_left"]["theirs_"]) > 0.01:
            unequal.append(row["network"])
    networks = len(won) + len(lost)
    text = (
        f"CPU time of ours over theirs. **Ours is faster** on {len(won)} of {networks}: {', '.join(won)}. "
        f"**Torch-Pruning is faster** on {len(lost)}: {', '.join(lost)}."
    )
    return f"{text} Not equal work, see the parameters left: {', '.join(unequal)}." if unequal else text


CLAIMS = (
    Claim(
        "Exact on what is covered",
        "Pruned networks of three libraries against the original without the removed channels, by two checks "
        "that share no code.",
        "python -m benchmarks.coverage",
        ("coverage-torchvision", "coverage-timm", "coverage-transformers"),
        said=covered,
    ),
    Claim(
        "Time and memory beside Torch-Pruning",
        "Half of the channels of every layer. Theirs cuts in place and does not verify; ours returns a new "
        "network, verification not counted.",
        "python -m benchmarks.speed --rounds 3",
        ("speed",),
        said=beside_torch_pruning,
    ),
    Claim(
        "Accuracy right after the cut",
        "ResNet-56 on CIFAR-10, no training: as cut, with norms measured anew, reconstructed.",
        "python -m benchmarks.one_shot",
        ("one_shot", "one_shot-1500-images"),
        ("50 %", "70 %"),
    ),
    Claim(
        "Imbalanced medical images",
        "Every criterion with one recipe on HAM10000 and PneumoniaMNIST.",
        "python -m benchmarks.imbalanced",
        ("imbalanced", "imbalanced-default", "imbalanced-tuning"),
        ("HAM10000: 58 %", "PneumoniaMNIST-1:9: 58 %", "Filters rescaled", "Fine-tuning rates"),
    ),
    Claim(
        "Half of the MACs as time on a device",
        "Files of five networks, pruned by a latency table and without one.",
        "python -m benchmarks.phone",
        ("phone",),
    ),
    Claim(
        "The claim of the Beta-Rank app",
        "79 % less memory and 72 % less time, by every definition of memory.",
        "python -m benchmarks.app_claim --seeds 0 1",
        ("app_claim",),
        ("The app's claim", "VGG-16, HAM10000: what its files name"),
    ),
    Claim(
        "Training channels to zero first",
        "MaskSparsity beside slimming and cutting first, ResNet-20.",
        "python -m benchmarks.sparse_training",
        ("sparse_training",),
    ),
    Claim(
        "Pruning and int8 together",
        "Bytes, accuracy and time of files in float32, int8 and half precision.",
        "python -m benchmarks.low_precision --network resnet56_cifar",
        ("low_precision-resnet20_cifar", "low_precision-resnet56_cifar"),
    ),
    Claim(
        "What scoring costs",
        "Beta-Rank beside the forward passes that it needs.",
        "python -m benchmarks.scoring_cost",
        ("scoring_cost",),
    ),
    Claim(
        "Filter quality as a criterion",
        "It loses to the plain norm; dead filters are free.",
        "python -m benchmarks.filter_quality",
        ("filter_quality",),
        ("resnet",),
    ),
    Claim(
        "Ratios that are searched for",
        "Sensitivity and Optuna beside what budgets choose, as cut and after recovery.",
        "python -m benchmarks.search",
        ("search-*",),
    ),
    Claim(
        "Widths by the spectra of filters, kernels that share a basis",
        "Beside uniform widths and norms, ResNet-20.",
        "python -m benchmarks.filter_widths",
        ("filter_widths",),
    ),
    Claim(
        "Initial filters from data and closed forms",
        "Beside He's, and degenerate filters of a pruned network drawn anew.",
        "python -m benchmarks.filter_init",
        ("filter_init",),
    ),
    Claim(
        "Sketches of very many filters",
        "Speed, exactness and memory.",
        "python -m benchmarks.filter_scale",
        ("filter_scale",),
    ),
)


def page() -> str:
    """The text of the page, from the JSON files of `benchmarks/results/` and of the recipes."""
    left = {file.stem: _read(file) for file in sorted(results.FOLDER.glob("*.json"))}
    quick = {name: left.pop(name) for name in list(left) if name.endswith("-quick")}
    parts = [_HEAD]
    for claim in CLAIMS:
        parts += _section(claim, [(name, left.pop(name)) for name in _files(claim, left)])
    if left:
        parts.append("## Other runs\n\nBenchmarks whose numbers are no claim of the README.")
    for name, content in left.items():
        parts += [f"### {name}", _repeated(name, content), *map(_table, content.get("tables", ()))]
    parts += [_SYSTEMS, _recipes()]
    parts += [
        "## Small modes",
        _SMALL,
        "\n".join(f"- {_repeated(name, content)}" for name, content in quick.items()),
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def write() -> Path:
    """The page, written."""
    PAGE.write_text(page(), encoding="utf-8")
    return PAGE


_HEAD = """# Results

Written by `python -m benchmarks.report` from the JSON files of `benchmarks/results` and
`examples/recipes/results`, not by hand.

Wins and losses alike. Every number was measured on shared x86 machines with two cores and no GPU, by the
versions beside it. Times are CPU time of one thread unless they say otherwise, and contenders take turns
in one process. *Command* is how to repeat all of it, *last run* the command that the file was last
written by: runs are resumed, and then it names only what was added. What the columns mean:
[benchmarks](../benchmarks/README.md)."""

_SYSTEMS = """## Four systems

ECG rhythms, a clutter filter, super-resolution and the restoration of faces, pruned and trained on. What
these numbers are and are not: [four systems](systems.md)."""

_SMALL = "Runs on a few samples that show that a benchmark works. Their numbers mean nothing."


def _files(claim: Claim, kept: Mapping[str, Content]) -> list[str]:
    """The names of the results that belong to a claim; KeyError where a pattern has none."""
    found = []
    for pattern in claim.files:
        names = sorted(fnmatch.filter(kept, pattern))
        if not names:
            raise KeyError(f"{claim.title!r} names results that are not there: {pattern}")
        found += names
    return found


def _section(claim: Claim, kept: Sequence[tuple[str, Content]]) -> list[str]:
    parts = [f"## {claim.title}", claim.text, f"Command: `{claim.command}`"]
    if claim.said is not None:
        parts.append(claim.said([content for _, content in kept]))
    for name, content in kept:
        parts.append(_repeated(name, content))
        tables = content.get("tables", ())
        shown = [t for t in tables if not claim.tables or t["title"].startswith(claim.tables)]
        parts += map(_table, shown)
    return parts


def _table(content: Content) -> str:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}
    return Table(**{**fields, "rows": tuple(map(tuple, content["rows"]))}).markdown()


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
    return Table("Recipes", ("table", "what", "command", "date"), tuple(lines), words=(0, 1, 2, 3)).markdown()


def _read(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict), file
    return content


def main() -> int:
    """The exit code: 1 if the page is checked and differs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    if parser.parse_args().check:
        fresh = PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page()
        print(
            "up to date" if fresh else f"{PAGE.name} is not what the results say: python -m benchmarks.report"
        )
        return 0 if fresh else 1
    print(f"wrote {write().relative_to(zoo.ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
