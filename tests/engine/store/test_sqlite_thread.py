"""The thread under the store: order, cancellation, errors, and its end."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from queue import SimpleQueue

import pytest
import trio
import trio.testing

from engine.errors import StoreUnavailable
from engine.store.sqlite_thread import BATCH, InlineRunner, Runner, SqliteThread


@asynccontextmanager
async def open_thread() -> AsyncIterator[SqliteThread]:
    thread = SqliteThread()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.host)
            await thread.wait_started()
            try:
                yield thread
            finally:
                thread.close()


class Held:
    """Work that the thread is held in, until it is let go."""

    def __init__(self) -> None:
        self._begun = trio.Event()
        self._let_go: SimpleQueue[None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()

    def work(self) -> str:
        self._token.run_sync_soon(self._begun.set)
        self._let_go.get(timeout=10)
        return "held"

    async def wait_begun(self) -> None:
        await self._begun.wait()

    def let_go(self) -> None:
        self._let_go.put(None)


async def test_work_runs_on_one_other_thread_and_gives_its_answer() -> None:
    async with open_thread() as thread:
        first, second = await thread.run(threading.get_ident), await thread.run(threading.get_ident)
    assert first == second != threading.get_ident()


async def test_what_work_raises_reaches_the_one_who_asked() -> None:
    async with open_thread() as thread:
        with pytest.raises(ZeroDivisionError):
            await thread.run(lambda: 1 // 0)
        assert await thread.run(lambda: "still there") == "still there"


async def test_many_waiters_each_get_their_own_answer_in_order() -> None:
    done: list[int] = []

    def work(n: int) -> int:
        done.append(n)
        return n

    async def ask(thread: SqliteThread, n: int) -> None:
        assert await thread.run(partial(work, n)) == n

    async with open_thread() as thread, trio.open_nursery() as nursery:
        for n in range(3 * BATCH):
            nursery.start_soon(ask, thread, n)
    assert sorted(done) == list(range(3 * BATCH))


async def test_canceling_a_waiter_abandons_the_answer_and_the_work_is_done_as_a_whole() -> None:
    async with open_thread() as thread:
        held, done = Held(), list[str]()
        async with trio.open_nursery() as waiting:
            waiting.start_soon(thread.run, lambda: done.append(held.work()))
            await held.wait_begun()
            waiting.cancel_scope.cancel()
        assert done == [], "the waiter left first"
        held.let_go()
        assert await thread.run(lambda: "next") == "next"
    assert done == ["held"]


async def test_work_that_was_abandoned_while_it_waited_never_starts() -> None:
    started: list[str] = []
    async with open_thread() as thread, trio.open_nursery() as nursery:
        held = Held()
        nursery.start_soon(thread.run, held.work)
        await held.wait_begun()
        async with trio.open_nursery() as waiting:
            waiting.start_soon(thread.run, lambda: started.append("abandoned"))
            await trio.testing.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        held.let_go()
        await thread.run(lambda: started.append("kept"))
    assert started == ["kept"]


@pytest.mark.parametrize("kind", ["thread", "inline"])
async def test_a_waiter_that_is_canceled_already_starts_nothing(kind: str) -> None:
    started: list[str] = []
    async with open_thread() as thread:
        runner: Runner = thread if kind == "thread" else InlineRunner()
        with trio.CancelScope() as scope:
            scope.cancel()
            await runner.run(lambda: started.append("x"))
        assert scope.cancelled_caught
        await runner.run(lambda: started.append("y"))
    assert started == ["y"]


async def test_closing_does_what_was_asked_before_and_refuses_what_comes_after() -> None:
    async with open_thread() as thread, trio.open_nursery() as nursery:
        held = Held()
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await thread.run(lambda: "answer"))

        nursery.start_soon(thread.run, held.work)
        await held.wait_begun()
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        thread.close()
        thread.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await thread.run(lambda: "late")
        held.let_go()
    assert answers == ["answer"]


async def test_the_thread_serves_last_words_when_everything_is_canceled() -> None:
    said: list[str] = []
    async with open_thread() as thread:
        with trio.CancelScope() as scope:
            try:
                scope.cancel()
                await trio.lowlevel.checkpoint()
            finally:
                with trio.move_on_after(5, shield=True):
                    said.append(await thread.run(lambda: "last words"))
    assert said == ["last words"]


async def test_inline_work_is_done_before_its_cancellation_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    done: list[str] = []
    with trio.CancelScope() as scope:

        def work() -> None:
            done.append("x")
            scope.cancel()

        await InlineRunner().run(work)
    assert scope.cancelled_caught
    assert done == ["x"]
