"""The one table of rules, and the decorator that fills it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressor.core.rules.call import Call, Layers

__all__ = ["RULES", "Rule", "rule"]

Rule = Callable[["Call"], "list[Layers]"]
RULES: dict[str, Rule] = {}


def rule(*targets: str) -> Callable[[Rule], Rule]:
    """Decorator: the function is the rule of these operators ("aten.cat.default", …).

    The function takes a `Call` and returns the layers of each output.
    """

    def register(function: Rule) -> Rule:
        for target in targets:
            RULES[target] = function
        return function

    return register
