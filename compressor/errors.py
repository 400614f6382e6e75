"""Every exception a user can meet, in one tree.

A message says what failed, where (the object's path), what was expected, what was found, and the
likely fix. Catch `CompressorError` to catch them all.
"""

from __future__ import annotations

__all__ = [
    "AbsentClassWarning",
    "BudgetError",
    "CaptureError",
    "CompressorError",
    "EvaluationError",
    "ExportError",
    "ExporterWarning",
    "FileError",
    "InputError",
    "LatencyWarning",
    "MeasurementError",
    "MissingExtraError",
    "ModelError",
    "NothingToPruneError",
    "NothingToPruneWarning",
    "PlanError",
    "PlanMismatchError",
    "QuantisationWarning",
    "RecoveryError",
    "ScoreError",
    "SpecializationWarning",
    "TrainingError",
    "UnreachableBudgetError",
    "VerifyError",
]


class CompressorError(Exception):
    """Base of every error this library raises on purpose."""


class InputError(CompressorError):
    """An argument is not what the function expects (type, range, shape, count)."""


class ModelError(CompressorError):
    """The model is of a kind that cannot be pruned as it is (quantised, inference tensors, ...)."""


class CaptureError(CompressorError):
    """The model could not be run on the example inputs."""


class ScoreError(CompressorError):
    """A scorer returned scores of the wrong kind or length, or not finite."""


class BudgetError(CompressorError):
    """A budget is not a sensible number, or contradicts its own limits."""


class UnreachableBudgetError(BudgetError):
    """The target cannot be met; the message says how far one gets and what pins the rest."""


class NothingToPruneError(BudgetError):
    """No channel of the model may be removed; the message gives the reasons."""


class PlanError(CompressorError):
    """A plan is malformed, or two plans do not fit together."""


class PlanMismatchError(PlanError):
    """A plan was made for another model; the message names the first tensor that differs."""


class VerifyError(CompressorError):
    """The pruned model does not compute what the plan says; names the first diverging module."""


class TrainingError(CompressorError):
    """A training cannot go on; the message names the epoch and batch, and what to change."""


class RecoveryError(CompressorError):
    """What a pruned model lost could not be measured or made up for; the model is as it was."""


class FileError(CompressorError):
    """A file is missing, truncated, changed, or of another format version."""


class EvaluationError(CompressorError):
    """A model's outputs are no class scores or not finite, or an evaluation of the user's gives no number."""


class ExportError(CompressorError):
    """The exported file does not compute what the model computes, or could not be written."""


class MeasurementError(CompressorError):
    """What a model takes could not be measured: the system lacks what it needs, or the model failed."""


class MissingExtraError(CompressorError, ImportError):
    """An optional dependency is not installed; the message holds the install command."""


class AbsentClassWarning(UserWarning):
    """A class has no sample, so that means over the classes leave it out; names it."""


class ExporterWarning(UserWarning):
    """A file was written otherwise than hoped: by another exporter, or in slow pieces; says why."""


class LatencyWarning(UserWarning):
    """A predicted or promised latency was not met where it was measured; gives both numbers."""


class NothingToPruneWarning(UserWarning):
    """A request was valid but removed nothing; the message says why."""


class QuantisationWarning(UserWarning):
    """A quantised file is slower than before, or most of its weights are float32 still; says by how much."""


class SpecializationWarning(UserWarning):
    """The capture followed a branch that depends on data or mode; the message says which."""
