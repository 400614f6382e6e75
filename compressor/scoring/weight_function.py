"""A scorer from a plain function of one weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from compressor.core.graph import Axis, Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike
from compressor.scoring.weights import BOTH, RolesLike, roles_of, unblocked, weight_axes, weights_of

__all__ = ["WeightFunction", "WeightScore"]

WeightScore = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, repr=False)
class WeightFunction(Scorer):
    """Scores by `function(weight, axis)`, one number for each channel along that axis.

    It is called for every filter and matrix that writes or reads channels, with a copy. The weight
    of a grouped convolution comes as [O/g, I, …] on its reading side (axis 1), so that its length
    along `axis` is always the number of channels.

    >>> WeightFunction(lambda weight, axis: weight.square().sum(1 - axis), roles="writer")
    WeightFunction(function=<lambda>, roles=('writer',))
    """

    function: WeightScore
    _: KW_ONLY
    roles: RolesLike = BOTH
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.MEAN

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise InputError(
                f"a scorer is a Scorer or a function of (weight, axis), got {type(self.function).__name__}"
            )
        object.__setattr__(self, "roles", roles_of(self.roles))
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """The function's answers for every filter and matrix with one of the roles."""
        weights = weights_of(graph)
        return {
            (axis.tensor, axis.axis): self._asked(unblocked(weights[axis.tensor], axis), axis)
            for axis in weight_axes(graph, self.roles)
        }

    def _asked(self, weight: Tensor, axis: Axis) -> Tensor:
        """What the function says of one weight; ScoreError where it raises."""
        try:
            # Cloned, so that a function that works in place cannot harm the model.
            return self.function(weight.clone(), axis.axis)
        except Exception as error:  # whatever a function of the user's raises
            raise ScoreError(
                f"{self!r} raised {type(error).__name__} for {axis.tensor!r} {list(weight.shape)}, axis "
                f"{axis.axis}: {error}. It is called with a weight and an axis of it, and returns a score "
                "for each position along that axis"
            ) from error
