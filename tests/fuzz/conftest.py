"""Running a check on random examples, and what became of them in the closing lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.fuzz import running
from tests.fuzz.drawing import Outcome
from tests.fuzz.running import Check

QUICK, LONG = 12, 300
COUNTS = pytest.StashKey[dict[str, Counter[str]]]()

Fuzz = Callable[[Check], None]


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Run a check on random examples; what becomes of each is counted.

    As many as `--fuzz-examples` says, from other random numbers each time (`--fuzz-seed` repeats a run).
    Without it, a dozen that are the same ones always, and hundreds of new ones in tests marked slow.
    """
    slow = request.node.get_closest_marker("slow") is not None
    wanted = request.config.getoption("--fuzz-examples")
    chosen = request.config.getoption("--fuzz-seed")
    counts = request.config.stash.setdefault(COUNTS, {}).setdefault(request.node.name, Counter())

    def note(outcome: Outcome) -> None:
        counts[outcome.what] += 1

    def run(check: Check) -> None:
        always = wanted is None and not slow
        count = wanted or (LONG if slow else QUICK)
        running.run(check, count, None if always else chosen, note, same=always)

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for name, counts in config.stash.get(COUNTS, {}).items():
        said = ", ".join(f"{count} {what}" for what, count in counts.most_common())
        terminalreporter.write_line(f"{name}: {counts.total()} examples: {said}")
