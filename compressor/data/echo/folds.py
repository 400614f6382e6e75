"""Leave-one-vendor-out: every vendor's sequences are tested once by what the others' trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compressor.data.echo.sequences import Sequences
from compressor.errors import InputError

__all__ = ["VendorFold", "vendor_folds"]


@dataclass(frozen=True)
class VendorFold:
    """The vendor that is held out, and the places of the sequences on both sides.

    >>> VendorFold("GE", (1, 2), (0,)).test
    (0,)
    """

    vendor: str
    train: tuple[int, ...]
    test: tuple[int, ...]


def vendor_folds(sequences: Sequences) -> Iterator[VendorFold]:
    """One fold for each vendor, in the order in which vendors first appear.

    A machine's look is then never seen in training. The paper leaves motion patterns out instead
    (`PublishedTree.motion_folds`). Raises InputError for a sequence without a vendor, or a single vendor.

    >>> import torch
    >>> three = Sequences(torch.zeros(3, 1, 4, 4, 2), ("a", "b", "c"), ("GE", "Philips", "GE"))
    >>> [(fold.vendor, fold.train, fold.test) for fold in vendor_folds(three)]
    [('GE', (1,), (0, 2)), ('Philips', (0, 2), (1,))]
    """
    vendors = sequences.vendors
    if "" in vendors:
        raise InputError(f"vendor_folds: the vendor of {sequences.names[vendors.index('')]!r} is not known")
    if len(set(vendors)) < 2:
        raise InputError(f"vendor_folds: two vendors are needed, there is {vendors[0]!r} only")
    for held in dict.fromkeys(vendors):
        test = tuple(index for index, vendor in enumerate(vendors) if vendor == held)
        yield VendorFold(held, tuple(sorted(set(range(len(vendors))) - set(test))), test)
