"""A check on many random examples, by Hypothesis; failures shrink to the smallest network that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.drawing import Outcome

Check = Callable[[st.DataObject], Outcome]


def run(check: Check, count: int, start: int | None, note: Callable[[Outcome], None], *, same: bool) -> None:
    """Give `note` the outcome of each of `count` examples; what a check raises is raised, shrunk.

    `start` is the seed of their random numbers, None for new ones each time; `same` for the same ones always.
    """

    def once(data: st.DataObject) -> None:
        note(check(data))

    found: Any = given(data=st.data())(once)
    if start is not None:
        found = seed(start)(found)
    settings(
        max_examples=count,
        derandomize=same,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )(found)()
