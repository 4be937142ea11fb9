"""Where SQL runs: on a thread that lives as long as the store, or, for tests, on the spot."""

from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol, TypeVar, final

import anyio
import anyio.to_thread
import outcome
import trio

from engine.errors import StoreUnavailable

T = TypeVar("T")

BATCH = 64  # jobs done between two wake-ups of the Trio side; bounds how long the first waits for the last


class Runner(Protocol):
    """Runs functions one after another, in the order they came."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` and give what it gives.

        Cancelling the caller abandons the answer: the work is done as a whole, or never starts.
        Raises `StoreUnavailable` when the runner is closed.
        """
        ...


class InlineRunner:
    """Runs the work on Trio's own thread. An autojump MockClock and worker threads do not mix: with this there are
    none, and a race test decides every order."""

    async def run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        result = work()
        # Done is done: a cancellation from here on finds the work finished and abandons the answer, as with a thread.
        await trio.lowlevel.checkpoint()
        return result


class _Job:
    """A piece of work. `task` waits for its answer; None once that was abandoned, by Trio's thread."""

    __slots__ = ("task", "work")

    def __init__(self, work: Callable[[], object], task: trio.lowlevel.Task) -> None:
        self.work = work
        self.task: trio.lowlevel.Task | None = task


_Answer = tuple[_Job, outcome.Value[object] | outcome.Error]


@final
class SqliteThread:
    """A thread that takes work from a queue, and answers a batch of it with one wake-up.

    Whoever makes one runs `host` in a nursery, waits for `wait_started`, and calls `close` to end it.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        self._started = trio.Event()
        self._closed = False

    async def host(self) -> None:
        """Be the thread, until `close`. Cannot be cancelled once the thread has started: its users, who may be saying
        their last words under a shield, still need it."""
        await anyio.to_thread.run_sync(self._work, limiter=anyio.CapacityLimiter(1))

    async def wait_started(self) -> None:
        """Wait until the thread takes work."""
        await self._started.wait()

    def close(self) -> None:
        """End the thread after the work that it has been given. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)

    async def run(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            await trio.lowlevel.checkpoint()
            raise StoreUnavailable("the store is closed")
        job = _Job(work, trio.lowlevel.current_task())
        self._jobs.put(job)

        def abandon(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        result: T = await trio.lowlevel.wait_task_rescheduled(abandon)
        return result

    def _work(self) -> None:
        self._token.run_sync_soon(self._started.set)
        while self._answer_batch():
            pass

    def _answer_batch(self) -> bool:
        """Do what waits, and say whether there is more to come. A function of its own, so that the thread keeps no
        answer alive while it waits."""
        jobs = [self._jobs.get()]
        while len(jobs) < BATCH and not self._jobs.empty():
            jobs.append(self._jobs.get())
        # An abandoned job never starts. One that is abandoned from here on is done, for nobody.
        answers = [(job, outcome.capture(job.work)) for job in jobs if job is not None and job.task is not None]
        if answers:
            self._token.run_sync_soon(_wake, answers)
        return None not in jobs


def _wake(answers: list[_Answer]) -> None:
    # Each task gets an outcome of its own: one may be unwrapped only once.
    for job, answer in answers:
        if job.task is not None:
            trio.lowlevel.reschedule(job.task, answer)
