"""Optuna's side of a search: storages, a study for one question, a sampler that can be repeated."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from compressor.errors import CompressorError, FileError, InputError
from compressor.extras import imported

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["give_up_dead", "mark", "open_study", "optuna_module"]

log = logging.getLogger(__name__)

_QUESTION = "compressor"
_OWNER = "compressor owner"
# Every so many trials the estimator; else about so many parameters, by so much of their range.
_PARZEN, _MOVED, _SPREAD = 3, 2, 0.15


def optuna_module() -> ModuleType:
    """Optuna; raises MissingExtraError with the command that installs it."""
    return imported("optuna", extra="search", needed_for="search.find")


def open_study(
    storage: str | os.PathLike[str] | BaseStorage | None,
    *,
    name: str,
    directions: Sequence[str],
    question: Mapping[str, Any],
    seed: int,
) -> Study:
    """The study of this name in the storage, made where there is none yet.

    A path is a journal file, a text with "://" an URL of a database (sqlite:///search.db). Raises FileError
    where the study there answers another `question`, or the storage cannot be used.
    """
    optuna = optuna_module()
    asked = json.dumps(dict(question), sort_keys=True)
    try:
        study: Study = optuna.create_study(
            storage=_storage(optuna, storage),
            study_name=name,
            directions=list(directions),
            sampler=_repeatable(seed),
            load_if_exists=True,
        )
        begun = bool(study.get_trials(deepcopy=False))
        known = study.user_attrs.get(_QUESTION)  # read last: whoever begins a study says what it asks first
        if known is None and not begun:
            study.set_user_attr(_QUESTION, asked)
    except CompressorError:
        raise
    except Exception as error:  # whatever the driver of a database raises
        raise FileError(
            f"the storage {storage!r} cannot be used for the study {name!r}: {type(error).__name__}: {error}"
        ) from error
    if known is None and begun:
        raise FileError(f"the study {name!r} in {storage!r} was not made by search.find; name another one")
    if known is not None and known != asked:
        raise FileError(
            f"the study {name!r} in {storage!r} answers another question: {_difference(known, question)}; "
            "give this search another name, or another storage"
        )
    return study


def _storage(optuna: ModuleType, storage: object) -> Any:
    if storage is None or (isinstance(storage, str) and "://" in storage):
        return storage
    if isinstance(storage, str | os.PathLike):
        journal = imported("optuna.storages.journal", extra="search", needed_for="search.find")
        file = Path(storage)
        if not file.absolute().parent.is_dir():
            raise FileError(f"storage = {str(file)!r}: expected a file in a folder that exists")
        return optuna.storages.JournalStorage(journal.JournalFileBackend(str(file)))
    if isinstance(storage, optuna.storages.BaseStorage):
        return storage
    raise InputError(
        f"storage = {storage!r}: a path, an URL such as sqlite:///search.db, or a storage of Optuna is "
        "expected"
    )


def _difference(known: str, question: Mapping[str, Any]) -> str:
    before = json.loads(known)
    for key, value in question.items():
        if before.get(key) != value:
            return f"its {key} is {before.get(key)!r}, now it is {value!r}"
    return "it was asked with more"


def mark(trial: Trial) -> None:
    """Say which process works on a trial, for those who find it unfinished."""
    trial.set_user_attr(_OWNER, [socket.gethostname(), os.getpid()])


def give_up_dead(study: Study) -> None:
    """Mark trials as failed that processes of this machine began which are no more."""
    optuna = optuna_module()
    running = optuna.trial.TrialState.RUNNING
    for trial in study.get_trials(deepcopy=False, states=(running,)):
        host, pid = trial.user_attrs.get(_OWNER, ("", 0))
        if host == socket.gethostname() and pid != os.getpid() and not _is_alive(pid):
            log.warning("trial %d was begun by a process that is no more; it is given up", trial.number)
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the question would be a signal
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user's
        return True
    return True


def _repeatable(seed: int) -> BaseSampler:
    """A sampler that draws from the seed and the number of the trial alone.

    So a search that was interrupted goes on as it would have, and processes that share a storage never draw
    the same. A third of the trials is drawn by a tree-structured Parzen estimator, the others vary a few
    parameters of the best trial so far (of one of the front, where there are several objectives).
    """
    optuna = optuna_module()

    class Repeatable(optuna.samplers.BaseSampler):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            self._begin(0)

        def _begin(self, number: int) -> None:
            self._draw = np.random.default_rng([seed, number])
            drawn = np.random.SeedSequence([seed, number]).generate_state(1)
            self._parzen = optuna.samplers.TPESampler(seed=int(drawn[0]), constant_liar=True)

        def before_trial(self, study: Any, trial: Any) -> None:
            self._begin(trial.number)
            self._parzen.before_trial(study, trial)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self._parzen.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            best = _best(study) if search_space and trial.number % _PARZEN else []
            if not best:
                return self._parzen.sample_relative(study, trial, search_space)
            chosen = best[int(self._draw.integers(len(best)))]
            return _varied(chosen.params, search_space, self._draw)

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return self._parzen.sample_independent(study, trial, name, distribution)

        def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
            self._parzen.after_trial(study, trial, state, values)

    return Repeatable()


def _best(study: Study) -> list[FrozenTrial]:
    """The best trial so far, or those of the front, among those that meet all requirements."""
    if len(study.directions) > 1:
        return study.best_trials
    complete = study.get_trials(deepcopy=False, states=(optuna_module().trial.TrialState.COMPLETE,))
    feasible = [t for t in complete if all(value <= 0 for value in t.constraints.values())]
    return [max(feasible, key=lambda trial: trial.value or 0.0)] if feasible else []


def _varied(
    params: Mapping[str, float], search_space: Mapping[str, Any], draw: np.random.Generator
) -> dict[str, float]:
    """The parameters with about two of them moved by about a seventh of their range."""
    varied = dict(params)
    names = list(search_space)
    moved = draw.random(len(names)) < _MOVED / len(names)
    moved[draw.integers(len(names))] = True
    for name in np.array(names)[moved].tolist():
        low, high = search_space[name].low, search_space[name].high
        shifted = varied[name] + draw.normal(0, _SPREAD * (high - low))
        varied[name] = float(np.clip(shifted, low, high))
    return varied
