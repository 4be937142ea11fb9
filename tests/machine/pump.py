"""Trio, driven step by step by code that is not async: the rules of hypothesis' state machine.

Trio runs as the guest of a host loop that turns only while somebody waits for it, in the same thread. Between two steps
everything stands still. The clock jumps as soon as nothing can run (`schedule_clock`), so that Trio never waits, and
no thread is ever needed to wait for it.
"""

import gc
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import outcome
import trio

from tests.explorer.schedule import TaskOrder, begin, decided, quickened, quietly_collect, schedule_clock

T = TypeVar("T")

MOST_TICKS = 100_000  # of one step; more is a step that never ends


class Pump:
    """One `trio.run`, from its making to `close`. `seed` decides the order of its tasks; 0 is the order in which they
    were made."""

    def __init__(self, seed: int) -> None:
        self._ticks: deque[Callable[[], object]] = deque()
        self._work: Callable[[], Awaitable[Any]] | None = None
        self._result: outcome.Outcome[Any] | None = None
        self._end: outcome.Outcome[Any] | None = None
        self._is_over = False
        self.nursery: trio.Nursery
        self._held = ExitStack()
        self._held.enter_context(unswept())
        self._held.enter_context(decided())
        trio.lowlevel.start_guest_run(
            self._main, seed, run_sync_soon_threadsafe=self._ticks.append, done_callback=self._done,
            host_uses_signal_set_wakeup_fd=True, clock=schedule_clock(),
        )  # fmt: skip

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do this in Trio's main task, beside all that goes on, and stop everything as soon as it is done."""
        self._work, self._result = work, None
        self._turn(lambda: self._result is not None)
        if self._result is None:
            assert self._end is not None
            self._end.unwrap()
            raise AssertionError("the run of Trio has ended")
        result: T = self._result.unwrap()
        return result

    def close(self) -> None:
        """Cancel everything that is left, and end."""
        self._is_over = True
        with ExitStack() as stack:
            stack.callback(self._held.close)
            self._turn(lambda: False)
            assert self._end is not None
            if isinstance(self._end, outcome.Error):
                self._ticks.clear()
                self._result = None
                quietly_collect()

    def _turn(self, is_enough: Callable[[], bool]) -> None:
        for _ in range(MOST_TICKS):
            if self._end is not None or is_enough():
                return
            self._ticks.popleft()()
        raise AssertionError(f"more than {MOST_TICKS} turns of the loop in one step: it never ends (R22)")

    def _done(self, end: outcome.Outcome[Any]) -> None:
        self._end = end

    async def _main(self, seed: int) -> None:
        begin(TaskOrder(seed, straight=Everything() if seed == 0 else frozenset()))
        with quickened():
            async with trio.open_nursery() as self.nursery:
                while not self._is_over:
                    await trio.lowlevel.checkpoint()
                    if self._work is not None:
                        work, self._work = self._work, None
                        self._result = await outcome.acapture(work)
                self.nursery.cancel_scope.cancel()


@contextmanager
def unswept() -> Iterator[None]:
    """Leave garbage where it is, so that nothing depends on when it is collected."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Everything(frozenset[int]):
    """A set that has every number."""

    def __contains__(self, _: object) -> bool:
        return True
