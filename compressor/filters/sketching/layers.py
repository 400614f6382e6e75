"""Where the kernels of many layers are read from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import FilterBank
from compressor.filters.store.layer import Layer

__all__ = ["BankPart", "Banks", "Part", "Source", "key_of", "require_distinct"]


class Part(Protocol):
    """One layer of a source: picklable, so that another process can read it."""

    @property
    def layer(self) -> Layer:
        """The layer that is read."""

    @property
    def peak(self) -> Tensor | None:
        """Its largest |weight| [] where that is known already, in the chunks' type; it saves a pass."""

    def chunks(self) -> Iterator[Tensor]:
        """Its kernels [n, K] in order, in pieces that fit in memory; may be called again."""


@runtime_checkable
class Source(Protocol):
    """Layers in an order that stays."""

    @property
    def identity(self) -> str:
        """A text that is another one when the kernels are other ones: a resumed run compares it."""

    @property
    def parts(self) -> Sequence[Part]:
        """The layers."""


def key_of(layer: Layer) -> tuple[str, str, int | None]:
    """What tells layers apart: model, name and rank in the model (one weight may serve several layers).

    >>> key_of(Layer(0, "resnet20", "conv1", 48))
    ('resnet20', 'conv1', None)
    """
    return layer.model, layer.layer_name, layer.layer_id


def require_distinct(layers: Iterable[Layer]) -> None:
    """Nothing where each layer has its key alone; raises InputError, before hours of work.

    >>> require_distinct([Layer(0, "net", "conv1", 48), Layer(1, "net", "conv2", 48)])
    """
    seen = set()
    for layer in layers:
        if key_of(layer) in seen:
            raise InputError(
                f"{layer} (layer_id {layer.layer_id}) is in twice, and a layer counts once: give each "
                "model a name of its own, or the layers of one name different ranks"
            )
        seen.add(key_of(layer))


@dataclass(frozen=True)
class Banks:
    """A source of banks in memory.

    >>> import torch
    >>> Banks.of([FilterBank(torch.randn(8, 4, 3, 3), "conv1", model="small")]).parts[0].layer
    Layer(0, small: conv1, 32 kernels)
    """

    banks: tuple[FilterBank, ...]

    @classmethod
    def of(cls, banks: Iterable[FilterBank]) -> Banks:
        """A source of these banks."""
        found = tuple(banks)
        for bank in found:
            if not isinstance(bank, FilterBank):
                raise InputError(
                    f"expected banks of filters, a store or another source, got {type(bank).__name__}: "
                    "banks(model) makes banks of a module, FilterBank(weight, name) one of a weight"
                )
        return cls(found)

    @property
    def identity(self) -> str:
        """A digest of layers and weights."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(repr((key_of(part.layer), part.layer.kernel_size)).encode())
            weight = part.bank.weight.cpu()
            exact = weight if weight.element_size() == 8 else weight.float()  # NumPy has no bfloat16
            digest.update(exact.contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def parts(self) -> tuple[BankPart, ...]:
        """One part for each bank."""
        return tuple(BankPart(bank, place) for place, bank in enumerate(self.banks))


@dataclass(frozen=True)
class BankPart:
    """A bank in memory as a part of a source."""

    bank: FilterBank
    place: int = 0

    @property
    def layer(self) -> Layer:
        """The bank's layer."""
        bank = self.bank
        return Layer(
            key=self.place,
            model=bank.model,
            layer_name=bank.name,
            count=bank.count,
            layer_id=bank.layer_id,
            conv_depth=bank.conv_depth,
            conv_depth_norm=bank.conv_depth_norm,
            out_channels=bank.weight.shape[0],
            in_channels=bank.weight.shape[1],
            groups=bank.groups,
            kernel_size=bank.kernel_size,
            transposed=bank.transposed,
            folded=bank.folded,
        )

    @property
    def peak(self) -> None:
        """Not known before the kernels are read."""

    def chunks(self) -> Iterator[Tensor]:
        """All its kernels at once."""
        yield self.bank.kernels
