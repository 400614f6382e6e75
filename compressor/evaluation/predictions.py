"""What a classifier names every sample, next to what it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressor.core.restoring import undisturbed
from compressor.errors import EvaluationError, InputError
from compressor.observing.batches import device_of, loaded, output_of

__all__ = ["Labels", "Predictions", "classify", "collected", "pooled"]

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The true and the predicted label of every sample, int64 [N] each, read-only.

    `classes[label]` is the name of a label; all classes count, also those without a sample. Raises
    InputError for arrays that are empty, of two lengths, or hold anything but labels 0..n_classes − 1.

    >>> Predictions(np.array([0, 1, 1]), np.array([0, 1, 0]), ("nv", "mel"))
    Predictions(3 samples of 2 classes, 2 right)
    """

    true: Labels
    predicted: Labels
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", _names(self.classes))
        for name in ("true", "predicted"):
            object.__setattr__(self, name, _checked(name, getattr(self, name), len(self.classes)))
        if len(self.true) != len(self.predicted):
            raise InputError(
                f"Predictions: expected one prediction for each sample, got {len(self.predicted)} for "
                f"{len(self.true)} samples"
            )

    def __len__(self) -> int:
        return len(self.true)

    def __repr__(self) -> str:
        right = int((self.true == self.predicted).sum())
        return f"Predictions({len(self)} samples of {len(self.classes)} classes, {right} right)"


def classify(
    model: nn.Module,
    batches: Iterable[object],
    *,
    classes: Sequence[str] | None = None,
    max_batches: int | None = None,
    autocast: torch.dtype | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    labels: Callable[[Any], Tensor] | None = None,
) -> Predictions:
    """The largest logit of every sample of all batches, in the loader's order, next to its label.

    A batch is `(inputs, labels)` or what `Taylor` reads else, labels integers [N] (or [N, 1]) in
    0..n_classes − 1; the model's output is logits [N, n_classes]. Where they are something else,
    `logits(output)` and `labels(target)` take them out: `logits=lambda out: out.logits` and
    `labels=lambda batch: batch["labels"]` for the models of transformers. `classes` names the
    classes; without it they are numbered.

    The model runs in eval mode and without gradients; mode, buffers and random state are as before
    at the end, also after an error. Raises InputError for an empty loader, labels of another kind or out
    of range, EvaluationError for logits of another shape or not finite; both name the batch.

    >>> net = nn.Linear(1, 2, bias=False)
    >>> _ = net.weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    >>> x, y = torch.tensor([[2.0], [-3.0], [1.0]]), torch.tensor([0, 1, 1])
    >>> classify(net, [(x[:2], y[:2]), (x[2:], y[2:])], classes=("nv", "mel")).predicted
    array([0, 1, 0])
    """
    named, true, n_classes = collected(
        model,
        batches,
        lambda found: found.argmax(dim=1),
        n_classes=None if classes is None else len(classes),
        max_batches=max_batches,
        autocast=autocast,
        logits=logits,
        labels=labels,
    )
    names = tuple(map(str, range(n_classes))) if classes is None else tuple(classes)
    return Predictions(true.numpy(), named.numpy(), names)


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of several sets as those of one: of the folds of a cross-validation, each sample once.

    A rate of all samples at once is not the mean of the folds' rates, which is undefined where a fold has no
    sample of a class. Raises InputError for no part, or parts with other classes.

    >>> one, other = (Predictions(np.array([0, 1]), np.array([0, n]), ("nv", "mel")) for n in (0, 1))
    >>> pooled([one, other])
    Predictions(4 samples of 2 classes, 3 right)
    """
    if not parts or any(part.classes != parts[0].classes for part in parts):
        raise InputError(
            f"pooled: expected one part or more, all with the same classes, got "
            f"{[part.classes for part in parts]}"
        )
    true, predicted = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("true", "predicted")
    )
    return Predictions(true, predicted, parts[0].classes)


def collected(
    model: nn.Module,
    batches: Iterable[object],
    keep: Callable[[Tensor], Tensor],
    *,
    n_classes: int | None,
    max_batches: int | None = None,
    autocast: torch.dtype | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    labels: Callable[[Any], Tensor] | None = None,
) -> tuple[Tensor, Tensor, int]:
    """`keep(logits)` of all samples and their labels int64 [N], on the CPU, and n_classes; see `classify`."""
    kept: list[Tensor] = []
    true: list[Tensor] = []
    device = device_of(model)
    with undisturbed(model, training=False), torch.no_grad():
        for number, batch in enumerate(loaded(batches, device, max_batches=max_batches)):
            with torch.autocast(device.type, autocast, enabled=autocast is not None):
                output = output_of(model, batch)
            found = _logits(output if logits is None else logits(output), n_classes, number)
            n_classes = found.shape[1]
            own = _labels(batch.target if labels is None else labels(batch.target), found, number)
            true.append(own.cpu())
            kept.append(keep(found).cpu())
    return torch.cat(kept), torch.cat(true), n_classes or 0


def _logits(found: object, n_classes: int | None, number: int) -> Tensor:
    expected = f"[N, {'n_classes' if n_classes is None else n_classes}]"
    if not isinstance(found, Tensor) or found.ndim != 2:
        got = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise EvaluationError(
            f"classify: the output of batch {number} is {got}, expected logits {expected}; take them out "
            "with logits=lambda output: ..."
        )
    if found.shape[1] < 2:
        raise EvaluationError(
            f"classify: the output of batch {number} has {found.shape[1]} column, expected logits {expected} "
            "of two classes or more; of one logit z for two classes make two: "
            "logits=lambda z: torch.cat([-z, z], dim=1)"
        )
    if n_classes is not None and found.shape[1] != n_classes:
        raise EvaluationError(
            f"classify: the output of batch {number} has {found.shape[1]} columns, expected logits {expected}"
        )
    bad = int((~torch.isfinite(found)).any(dim=1).sum())
    if bad:
        raise EvaluationError(
            f"classify: {bad} of {len(found)} samples of batch {number} have logits that are not finite, so "
            "the largest one says nothing; look for NaN in the batch, the weights or the statistics of norms"
        )
    return found


def _labels(found: object, logits: Tensor, number: int) -> Tensor:
    count, n_classes = logits.shape
    where = f"classify: the labels of batch {number}"
    if not isinstance(found, Tensor):
        raise InputError(
            f"{where} are {type(found).__name__}, expected integers [{count}] as a tensor; take them out "
            "with labels=lambda target: ..."
        )
    found = found.squeeze(1) if found.ndim == 2 and found.shape[1] == 1 else found
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool or found.ndim != 1:
        raise InputError(
            f"{where} are {found.dtype} {list(found.shape)}, expected integers [{count}]; of one-hot labels "
            "take labels=lambda target: target.argmax(dim=1)"
        )
    if len(found) != count:
        raise InputError(f"{where} are {len(found)}, expected one for each of {count} rows of logits")
    if count and not 0 <= int(found.min()) <= int(found.max()) < n_classes:
        raise InputError(
            f"{where} reach from {int(found.min())} to {int(found.max())}, expected 0..{n_classes - 1} for "
            f"{n_classes} logits; samples to be ignored must be left out of the batches"
        )
    return found.to(torch.int64)


def _names(classes: Sequence[str]) -> tuple[str, ...]:
    names = tuple(str(name) for name in classes)
    if isinstance(classes, str) or len(names) < 2 or len(set(names)) != len(names):
        raise InputError(f"Predictions: classes must be two or more different names, got {classes!r}")
    return names


def _checked(name: str, values: Labels, n_classes: int) -> Labels:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iu":
        raise InputError(
            f"Predictions: {name} must be integers [N], N at least 1, got {array.dtype} {list(array.shape)}"
        )
    if not 0 <= int(array.min()) <= int(array.max()) < n_classes:
        raise InputError(
            f"Predictions: {name} must lie in 0..{n_classes - 1} ({n_classes} classes), "
            f"got {array.min()}..{array.max()}"
        )
    labels: Labels = np.array(array, dtype=np.int64)  # a copy: whoever made it may write to it again
    labels.flags.writeable = False
    return labels
