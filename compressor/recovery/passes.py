"""Forward passes of two models, batch by batch, up to one layer after the other.

Two ways with the same result: passes that start anew for every layer, of which one batch is held at a
time, and passes of all batches that wait at a layer until it has been fitted.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from compressor.observing import Batch, Followed, followed
from compressor.observing.batches import device_of, output_of
from compressor.recovery.survey import Target, calls_of

__all__ = ["Held", "Passes", "Repeated"]

Calls = dict[str, list[Followed]]


class Passes(ABC):
    """What the layers of a step read and write in the original and in the pruned model."""

    @abstractmethod
    def calls(self, step: tuple[Target, ...]) -> Iterator[tuple[Calls, Calls]]:
        """For every batch the calls of the original and of the pruned model, by weight."""

    @abstractmethod
    def fitted(self) -> None:
        """Called when the layers of the step have their new weights."""


class Repeated(Passes):
    """Every step runs both models on every batch from the start."""

    def __init__(self, original: nn.Module, small: nn.Module, batches: Callable[[], Iterator[Batch]]) -> None:
        self._models = original, small
        self._batches = batches

    def calls(self, step: tuple[Target, ...]) -> Iterator[tuple[Calls, Calls]]:
        """For every batch the calls of the two models, by weight."""
        original, small = self._models
        for batch in self._batches():
            yield calls_of(original, batch, step), calls_of(small, batch, step)

    def fitted(self) -> None:
        """The next passes see the new weights anyway."""


class Held(Passes):
    """One pass for each model and batch, each in a thread of its own; only one of them ever runs.

    What a layer wrote before it was fitted is computed once more before its pass goes on. Use it as a
    context: at its end passes that still wait are given up.
    """

    def __init__(self, original: nn.Module, small: nn.Module, batches: Iterable[Batch]) -> None:
        self._lanes = [(_Lane(original, batch), _Lane(small, batch)) for batch in batches]
        self._waiting: list[Followed] = []

    @contextmanager
    def open(self) -> Iterator[Held]:
        """Within, passes can be asked for."""
        try:
            yield self
        finally:
            for pair in self._lanes:
                for lane in pair:
                    lane.give_up()

    def calls(self, step: tuple[Target, ...]) -> Iterator[tuple[Calls, Calls]]:
        """For every batch the calls of the two models, by weight."""
        for original, small in self._lanes:
            theirs, ours = original.go_on(step), small.go_on(step)
            self._waiting += [one for calls in ours.values() for one in calls]
            yield theirs, ours

    def fitted(self) -> None:
        """Have the layers write with their new weights."""
        for one in sorted(self._waiting, key=lambda one: one.number):
            one.repeat()
        self._waiting.clear()


class _GivenUp(BaseException):
    """Ends a pass that nobody waits for any more; no forward is to catch it."""


class _Lane:
    """A forward pass in a thread that stops where its targets have been seen."""

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self._model, self._batch = model, batch
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._may_run, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._wanted: set[str] = set()
        self._found: Calls = {}
        self._error: BaseException | None = None
        self._is_over = self._is_given_up = False

    def go_on(self, step: tuple[Target, ...]) -> Calls:
        """Run until every target of the step was called, or the pass is over."""
        self._found = {target.weight: [] for target in step}
        self._wanted = set(self._found)
        if not self._is_over:
            self._resume()
        if self._error is not None:
            raise self._error
        return self._found

    def give_up(self) -> None:
        """End the pass where it is."""
        self._is_given_up = True
        if self._thread.is_alive():
            self._resume()
        self._found = {}

    def _resume(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        self._may_run.release()
        self._has_stopped.acquire()

    def _run(self) -> None:
        self._may_run.acquire()
        try:
            with ExitStack() as stack:
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())
                device = device_of(self._model)
                if device.type == "cuda":
                    stack.enter_context(torch.cuda.device(device))
                stack.enter_context(followed(self._model, self._see))
                output_of(self._model, self._batch)
        except _GivenUp:
            pass
        except BaseException as error:  # raised where the pass was asked for
            self._error = error
        self._is_over = True
        self._has_stopped.release()

    def _see(self, one: Followed) -> None:
        if self._is_given_up or one.call.weight not in self._wanted:
            return
        self._found[one.call.weight].append(one)
        self._wanted.discard(one.call.weight)
        if self._wanted:
            return
        del one
        self._has_stopped.release()
        self._may_run.acquire()
        if self._is_given_up:
            raise _GivenUp
