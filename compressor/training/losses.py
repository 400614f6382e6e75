"""Losses for data in which some classes are rare: formulas, and objects that hold their constants.

Legend: N samples, C classes; `logits` [N, C, …], `labels` [N, …].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.training.imbalance import class_weights
from compressor.training.labels import are_labels, check_labels
from compressor.training.precision import at_least_float32

__all__ = [
    "Focal",
    "LogitAdjusted",
    "WeightedCrossEntropy",
    "focal",
    "logit_adjusted",
    "weighted_cross_entropy",
]


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The mean [] of −w_y log p_y, divided by the mean weight of the batch as torch does it."""
    return F.cross_entropy(logits, labels, weight=weights.to(logits))


def logit_adjusted(logits: Tensor, labels: Tensor, prior: Tensor, tau: float = 1.0) -> Tensor:
    """The mean cross entropy [] of logits + τ log π, with π the frequency of each class [C].

    A network trained so gives, without the term, scores whose largest one is best for the balanced accuracy.
    τ = 1 is the balanced softmax. *Source: A. K. Menon et al., 2021, arXiv 2007.07314, equation 10; J. Ren et
    al., 2020, arXiv 2007.10740, equation 3.*

    >>> loss = logit_adjusted(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0.75, 0.25]))
    >>> round(float(loss), 4) == round(-math.log(0.75), 4)
    True
    """
    shift = tau * prior.double().log().to(logits)
    return F.cross_entropy(logits + shift.view(-1, *[1] * (logits.dim() - 2)), labels)


def focal(logits: Tensor, labels: Tensor, gamma: float = 2.0, weights: Tensor | None = None) -> Tensor:
    """The mean [] of −w_y (1 − p_y)^γ log p_y: samples that are right already count little.

    *Source: T.-Y. Lin et al., 2017, arXiv 1708.02002, equation 5.* Departures: the softmax over C classes
    instead of a sigmoid, and the mean over samples instead of the sum over anchors divided by the matched
    ones.

    >>> loss = focal(torch.zeros(1, 2), torch.tensor([0]))
    >>> round(float(loss), 4) == round(0.25 * math.log(2), 4)
    True
    """
    log_p = F.log_softmax(logits, 1).gather(1, labels.unsqueeze(1)).squeeze(1)
    # 1 − p without cancellation where p is near 1; a derivative of 0^γ would not be finite for γ < 1.
    miss = -torch.expm1(log_p)
    rate = torch.ones_like(miss) if gamma == 0 else miss.clamp_min(torch.finfo(miss.dtype).tiny) ** gamma
    values = -rate * log_p
    return (values if weights is None else values * weights.to(logits)[labels]).mean()


@dataclass(frozen=True)
class WeightedCrossEntropy:
    """Cross entropy in which every class has the weight of `class_weights(counts, beta=beta)`.

    Raises InputError for labels out of range, as the other losses here do.

    >>> loss = WeightedCrossEntropy((90, 10))
    >>> loss(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])).round(decimals=4)
    tensor(0.6931)
    """

    counts: Sequence[int]
    beta: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", _counts(self.counts))
        class_weights(self.counts, beta=self.beta)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        logits, labels = _checked(output, target, len(self.counts))
        return weighted_cross_entropy(logits, labels, class_weights(self.counts, beta=self.beta))


@dataclass(frozen=True)
class LogitAdjusted:
    """Cross entropy of logits adjusted by the class frequencies in training, see `logit_adjusted`.

    The balanced softmax is `LogitAdjusted(counts)`.

    >>> LogitAdjusted((3, 1))(torch.zeros(1, 2), torch.tensor([1])).round(decimals=4)
    tensor(1.3863)
    """

    counts: Sequence[int]
    tau: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", _counts(self.counts))
        class_weights(self.counts)
        if not math.isfinite(self.tau) or self.tau < 0:
            raise InputError(f"tau must be at least 0 and finite, got {self.tau!r}")

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        numbers = torch.tensor(self.counts, dtype=torch.float64)
        logits, labels = _checked(output, target, len(self.counts))
        return logit_adjusted(logits, labels, numbers / numbers.sum(), self.tau)


@dataclass(frozen=True)
class Focal:
    """The focal loss, see `focal`; with `counts` each class weighs `class_weights(counts, beta=beta)`.

    >>> Focal(gamma=0)(torch.zeros(1, 4), torch.tensor([1])).round(decimals=4)
    tensor(1.3863)
    """

    gamma: float = 2.0
    counts: Sequence[int] | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.gamma) or self.gamma < 0:
            raise InputError(f"gamma must be at least 0 and finite, got {self.gamma!r}")
        if self.counts is not None:
            object.__setattr__(self, "counts", _counts(self.counts))
            class_weights(self.counts, beta=self.beta)
        elif self.beta is not None:
            raise InputError("beta weighs classes by their counts: give counts=class_counts(labels) as well")

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        logits, labels = _checked(output, target, None if self.counts is None else len(self.counts))
        weights = None if self.counts is None else class_weights(self.counts, beta=self.beta)
        return focal(logits, labels, self.gamma, weights)


def _counts(counts: object) -> tuple[int, ...]:
    """A tuple, so that nobody can change it afterwards and losses compare as values."""
    values = counts.tolist() if isinstance(counts, Tensor) else counts
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"counts must be one number for each class, got {type(counts).__name__}")
    return tuple(values)


def _checked(output: Tensor, target: Tensor, classes: int | None) -> tuple[Tensor, Tensor]:
    """The logits, in float32 at least, and the labels as int64."""
    pair = isinstance(output, Tensor) and isinstance(target, Tensor)
    if not pair or output.dim() < 2 or not are_labels(output, target):
        got = [
            f"{one.dtype} {list(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            for one in (output, target)
        ]
        raise InputError(
            f"expected logits [N, C, ...] and class numbers [N, ...], got {got[0]} and {got[1]}; of one-hot "
            f"targets take target.argmax(1), of labels [N, 1] target[:, 0]"
        )
    if classes is not None and output.shape[1] != classes:
        raise InputError(
            f"the counts are of {classes} classes, and the model has {output.shape[1]} outputs; count the "
            f"labels with class_counts(labels, classes={output.shape[1]})"
        )
    check_labels(target, output.shape[1])
    return at_least_float32(output), target.long()
