"""Measuring many cuts of one model: in turn, in fresh processes, or by an executor of the user's."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from compressor.core.plan import Plan
from compressor.errors import InputError, MeasurementError
from compressor.extras import pickler
from compressor.search.evaluating import Evaluate, measure, random_state_kept

__all__ = ["Task", "measured", "plan_digest"]


@dataclass(frozen=True)
class Task:
    """One cut to be measured: its key in a journal, and the words for it."""

    key: str
    what: str
    plan: Plan


def plan_digest(plan: Plan) -> str:
    """A digest of what a plan does, whatever its note."""
    return hashlib.sha256(replace(plan, note="").to_json().encode()).hexdigest()[:32]


def measured(
    model: nn.Module, tasks: Sequence[Task], evaluate: Evaluate, *, seed: int, workers: int | Executor
) -> Iterator[tuple[Task, float]]:
    """Each task with its quality, as they are done; see `sensitivity` for `workers`.

    On Ctrl-C nothing more is handed out; what other processes or threads have is finished and given first.
    Raises EvaluationError from `evaluate`, InputError for what other processes cannot be sent,
    MeasurementError where one of them dies.
    """
    if workers == 1:
        for task in tasks:
            yield task, measure(model, task.plan, evaluate, where=task.what, seed=seed)
        return
    if isinstance(workers, Executor):
        with random_state_kept(model):  # threads put back what others of them found
            pending = {
                workers.submit(measure, model, task.plan, evaluate, where=task.what, seed=seed): task
                for task in tasks
            }
            yield from _results(pending)
        return
    sent = _pickled((model, evaluate, seed))
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)) or 1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(sent, max(1, torch.get_num_threads() // workers)),
    )
    try:
        yield from _results({pool.submit(_in_process, task.plan, task.what): task for task in tasks})
    except BrokenProcessPool as error:
        raise MeasurementError(
            "a process that evaluates ended before its time: it was killed (memory?), or could not start. "
            "In a script, what starts processes has to stand under `if __name__ == '__main__':`; workers=1 "
            "needs none"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _results(pending: dict[Future[float], Task]) -> Iterator[tuple[Task, float]]:
    given: set[Future[float]] = set()
    try:
        for future in as_completed(pending):
            given.add(future)
            yield pending[future], future.result()
    except KeyboardInterrupt:
        for future in pending:
            future.cancel()
        for future in pending:
            if future not in given and not future.cancelled() and future.exception() is None:
                yield pending[future], future.result()
        raise
    finally:
        for future in pending:
            future.cancel()


def _pickled(value: object) -> bytes:
    """`value` as cloudpickle writes it where it is installed: pickle takes functions by name only."""
    try:
        content: bytes = pickler().dumps(value)
    except Exception as error:  # whatever a __reduce__ of the user's raises
        raise InputError(
            f"the model and evaluate cannot be sent to other processes: {type(error).__name__}: {error}. "
            "Define them at the top of a module that can be imported, or pip install 'compressor[search]' "
            "(cloudpickle), which takes others along; what holds open files, locks or generators "
            "cannot be sent at all. "
            "workers=1, or an executor of threads, sends nothing"
        ) from error
    return content


# -- in the other process ------------------------------------------------------------------------

_SENT: list[Any] = []


def _begin(sent: bytes, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; what is under way is finished
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _SENT[:] = pickle.loads(sent)


def _end_with_parent() -> None:
    """A parent that was killed closes no queue; its children would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_process(plan: Plan, what: str) -> float:
    model, evaluate, seed = _SENT
    return measure(model, plan, evaluate, where=what, seed=seed)
