"""Contract suites that a user's own strategies can inherit in their tests."""

from compressor.testing.scorer_contract import ScorerContract

__all__ = ["ScorerContract"]
