"""Schedules of Trio that a seed decides: the order of tasks, the clock, the ids, the calendar.

Trio runs the tasks that are ready in batches, in an order that nobody may rely on. Under a switch of its own it sorts
each batch and has a `random.Random` shuffle it; here that one is ours. It is a private interface: `tests/stack` holds
what we rely on.
"""

import gc
import itertools
import logging
import math
import random
import sys
import warnings
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import structlog
import trio
import trio._core._run as trio_run
import trio.testing

from engine import clock as engine_clock
from engine.records import ids as engine_ids
from tests.doubles.task_order import ordered_by

ids: Any = engine_ids  # whose `uuid` is another one while everything is decided
CALENDAR_US = 1_700_000_000_000_000  # what the calendar says when a schedule begins
MOST_PASSES = 30_000  # of the scheduler, in one schedule; more is a loop that never ends


class EndlessLoop(BaseException):
    """The schedule goes round and round. Comes out of `trio.run` inside a `TrioInternalError`."""


class TaskOrder(random.Random):
    """The order of each batch of tasks, drawn from a seed. Batches in `straight` keep the order in which their tasks
    were made; what is drawn for the others stays the same."""

    def __init__(self, seed: int, straight: frozenset[int] = frozenset()) -> None:
        super().__init__(seed)
        self._straight = straight
        self.passes = 0
        self.shuffled = 0  # batches with more than one task

    def shuffle(self, batch: MutableSequence[Any]) -> None:
        """Put a batch in order. Trio takes it from the end."""
        self.passes += 1
        if self.passes > MOST_PASSES:
            raise EndlessLoop(f"more than {MOST_PASSES} passes of the scheduler")
        size = len(batch)
        if size < 2:
            return
        drawn = self.getrandbits(64)
        number, self.shuffled = self.shuffled, self.shuffled + 1
        if number in self._straight:
            batch.reverse()
            return
        for last in range(size - 1, 0, -1):
            drawn, other = divmod(drawn, last + 1)
            batch[last], batch[other] = batch[other], batch[last]


def schedule_clock() -> trio.testing.MockClock:
    """A MockClock that jumps as soon as nothing can run, and does not look at the real time for it: that, and the
    statistics that it asks for, would be a tenth of the cost of a schedule."""
    clock = trio.testing.MockClock(autojump_threshold=0)

    def jump() -> None:
        deadline = trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if deadline < math.inf:
            clock._virtual_base = max(clock._virtual_base, deadline)

    clock.current_time = partial(getattr, clock, "_virtual_base")  # type: ignore[method-assign]
    clock._autojump = jump  # type: ignore[method-assign]
    return clock


@contextmanager
def decided() -> Iterator[None]:
    """Everything that differs from one run of a program to the next is decided: ids are counted, the calendar stands,
    nothing is logged. Nothing else may run in this process meanwhile."""
    scopes: Any = trio.CancelScope
    usual = ids.uuid, engine_clock.calendar_us, scopes._might_change_registered_deadline
    logs = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    engine_clock.calendar_us = lambda: CALENDAR_US
    ids.uuid = CountedIds()
    scopes._might_change_registered_deadline = lambda scope: DeadlineChange(scope)
    try:
        with ordered_by(random.Random(0)):  # until a schedule begins, and has its own
            yield
    finally:
        ids.uuid, engine_clock.calendar_us, scopes._might_change_registered_deadline = usual
        structlog.configure(**logs)


class CountedIds:
    """Stands in for `uuid`: ids that are counted from the beginning of the schedule."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def uuid4(self) -> str:
        """The next id."""
        return f"id-{next(self._numbers)}"

    def rewind(self) -> None:
        """Count from the beginning."""
        self._numbers = itertools.count(1)


class NoDevices:
    """Stands in for Trio's I/O: there is none in a schedule, so that nobody has to ask the system in each pass."""

    # Called in each pass; these return nothing, as they do for what is not in an empty dictionary, at the cost of C.
    get_events = {}.get  # type: ignore[var-annotated]
    process_events = {}.get  # type: ignore[var-annotated]

    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)


class DeadlineChange:
    """Does what `CancelScope._might_change_registered_deadline` does, and is no generator: it surrounds the beginning
    and the end of each scope, and there are fifty scopes in a schedule."""

    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        scope = self._scope
        old = scope._registered_deadline
        new = math.inf if scope._cancel_status is None or scope._cancel_called else scope._deadline
        if old != new:
            scope._registered_deadline = new
            deadlines = trio_run.GLOBAL_RUN_CONTEXT.runner.deadlines
            if old != math.inf:
                deadlines.remove(old, scope)
            if new != math.inf:
                deadlines.add(new, scope)


@contextmanager
def quickened() -> Iterator[None]:
    """Leave out what Trio does in each pass and no schedule needs: I/O and instruments. Once in each `trio.run`."""
    runner = trio_run.GLOBAL_RUN_CONTEXT.runner
    usual = runner.io_manager
    runner.io_manager = NoDevices(usual)  # type: ignore[assignment]
    runner.instruments = {}  # type: ignore[assignment]
    try:
        yield
    finally:
        runner.io_manager = usual


def begin(order: TaskOrder) -> None:
    """Begin a schedule: from the beginning of time, with Trio's batches in this order. For use inside `decided`, when
    nothing is left of the schedule before."""
    clock = trio_run.GLOBAL_RUN_CONTEXT.runner.clock
    assert isinstance(clock, trio.testing.MockClock)
    assert isinstance(ids.uuid, CountedIds)
    clock._virtual_base = 0.0
    ids.uuid.rewind()
    trio_run._r = order


def quietly_collect() -> None:
    """Collect what is left of a `trio.run` that was broken off, coroutines that can neither go on nor end, and say
    nothing of it."""
    usual = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        trio_run._r = random.Random(0)
        with warnings.catch_warnings(action="ignore"):
            gc.collect()
    finally:
        sys.unraisablehook = usual
