"""Running a check on random examples, and what became of them in the closing lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

QUICK, LONG = 12, 300
COUNTS = pytest.StashKey[dict[str, Counter[str]]]()

Fuzz = Callable[..., None]


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Run `check(data)` on random examples; what it returns is counted.

    As many as `--fuzz-examples` says, from other random numbers each time (`--fuzz-seed` repeats a run).
    Without it, a dozen that are the same ones always, and hundreds of new ones in tests marked slow.
    """
    slow = request.node.get_closest_marker("slow") is not None
    wanted = request.config.getoption("--fuzz-examples")
    chosen = request.config.getoption("--fuzz-seed")
    counts = request.config.stash.setdefault(COUNTS, {}).setdefault(request.node.name, Counter())

    def run(check: Callable[[st.DataObject], str]) -> None:
        def once(data: st.DataObject) -> None:
            counts[check(data)] += 1

        found: Any = given(data=st.data())(once)
        if chosen is not None and (wanted is not None or slow):
            found = seed(chosen)(found)
        settings(
            max_examples=wanted or (LONG if slow else QUICK),
            derandomize=wanted is None and not slow,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )(found)()

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for name, counts in config.stash.get(COUNTS, {}).items():
        said = ", ".join(f"{count} {what}" for what, count in counts.most_common())
        terminalreporter.write_line(f"{name}: {counts.total()} examples: {said}")
