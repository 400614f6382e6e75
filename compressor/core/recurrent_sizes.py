"""The numbers recurrent layers remember about their channels, and how each follows a cut."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from compressor.core.channels import any_free
from compressor.core.graph import Axis, SizeRule
from compressor.core.recurrent import RECURRENT, cells_of
from compressor.core.tape import named_tensors

__all__ = ["recurrent_sizes"]


def recurrent_sizes(model: nn.Module, axes: tuple[Axis, ...]) -> tuple[SizeRule, ...]:
    """Size rules for every recurrent layer and cell of the model."""
    recurrent = [(path, module) for path, module in model.named_modules() if isinstance(module, RECURRENT)]
    if not recurrent:
        return ()
    known = {(axis.tensor, axis.axis): axis for axis in axes}
    canonical = {id(tensor): name for name, tensor in named_tensors(model).items()}
    rules: list[SizeRule] = []
    for path, module in recurrent:
        cells = cells_of(module)
        if cells:
            rules.extend(_Sizes(canonical, known, path, module).rules(*cells[0].places, cells[0].gates))
    return tuple(rule for rule in rules if any_free(rule.units))


class _Sizes:
    """One module's sizes, read off its first layer."""

    def __init__(
        self, canonical: dict[int, str], known: dict[tuple[str, int], Axis], path: str, module: nn.Module
    ) -> None:
        self._canonical, self._known, self._path, self._module = canonical, known, path, module

    def rules(self, entering: str, recurrent: str, projecting: str, gates: int) -> Iterator[SizeRule]:
        """The sizes that enter, stay inside and leave."""
        wanted = (
            ("input_size", entering, 1, 1),
            ("hidden_size", recurrent, 0, gates),
            ("proj_size", projecting, 0, 1),
        )
        for attribute, name, axis, divisor in wanted if projecting else wanted[:2]:
            found = self._axis(name, axis)
            if found is not None:
                yield SizeRule(self._path, attribute, None, found.units, divisor)

    def _axis(self, name: str, axis: int) -> Axis | None:
        """The axis of the weight, plain or parametrised (old and new style)."""
        holder = dict(self._module.named_parameters())
        for spelled in (name, f"{name}_v", f"{name}_orig", f"parametrizations.{name}.original"):
            for last in ("", "1"):
                tensor = holder.get(spelled + last)
                if tensor is not None:
                    return self._known.get((self._canonical.get(id(tensor), ""), axis))
        return None
