"""The scorer that is used where none is named."""

from __future__ import annotations

from typing import Final

from compressor.scoring.base import Scorer
from compressor.scoring.norm import Norm

__all__ = ["DEFAULT"]

# Of those that need no data the best right after a cut, and tied with all others after a fine-tuning: see
# benchmarks/results/one_shot.md and imbalanced-default.md.
DEFAULT: Final[Scorer] = Norm(power=2)
