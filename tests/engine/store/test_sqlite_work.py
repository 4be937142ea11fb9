"""How much SQLite has to do, counted in the steps of its machine: what is needed often must not grow with what is
stored."""

import sqlite3
from collections.abc import Awaitable, Callable

import pytest

from engine.records.change import CreateSession, OpenRequest, QueueRun, ResolveRequest
from engine.records.ids import RequestId, RunId, SessionId, WorkspaceId
from engine.records.permission import Decision, PermissionRequest
from engine.store.protocol import Store
from engine.store.sqlite import SqliteStore, open_sqlite_store
from tests.engine.store.samples import (
    AT,
    S,
    W,
    accept,
    cancel,
    make_messages,
    make_run,
    make_workspace,
    message,
    session,
    settle,
    start,
    write,
)

FEW, MANY = 3, 60
WORKSPACE, RUN = WorkspaceId(W), RunId("now")


def ask(run: str, id: str) -> OpenRequest:
    request = PermissionRequest(
        id=RequestId(id), session_id=SessionId(S), run_id=RunId(run), tool_call_id="c", tool_name="bash",
        action="execute", path="/home/ann",
    )  # fmt: skip
    return OpenRequest(request, AT + 2)


async def fill(store: Store, count: int) -> None:
    """So many runs that have ended, each with a message, and with a request that was answered."""
    await make_workspace(store)
    await make_workspace(store, "other")
    for number in range(count):
        await make_run(store, f"r{number}", number + 1)
        await make_messages(store, message(f"m{number}", run=f"r{number}", turn=number + 1))
        answered = ResolveRequest(RequestId(f"p{number}"), Decision.ALLOW, AT + 3)
        await write(store, ask(f"r{number}", f"p{number}"), answered, settle(f"r{number}"))


async def steps(work: Callable[[Store], Awaitable[object]], *, stored: int) -> int:
    """What the machine does for this work, in a store that holds so many runs beside one that is active."""
    async with open_sqlite_store(None) as store:
        await fill(store, stored)
        await write(store, CreateSession(session("of now")))
        await make_run(store, RUN, stored + 1)
        await write(store, ask(RUN, "open"))
        return await counted(store, lambda: work(store))


async def counted(store: SqliteStore, work: Callable[[], Awaitable[object]]) -> int:
    db: sqlite3.Connection = store._database.writer
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    db.set_progress_handler(step, 1)
    await work()
    db.set_progress_handler(None, 1)
    return count


WORK: dict[str, Callable[[Store], Awaitable[object]]] = {
    "which workspaces have something unfinished": lambda store: store.unsettled_counts(),
    "what is unfinished": lambda store: store.unsettled_runs(WORKSPACE, limit=64),
    "what the unfinished have said": lambda store: store.messages_of_runs(WORKSPACE, [RUN]),
    "what waits for an answer": lambda store: store.open_requests(WORKSPACE),
    "where the log begins and ends": lambda store: store.event_range(WORKSPACE),
    "the end of the log": lambda store: store.events_after(WORKSPACE, 1, limit=2),
    "the events of a run": lambda store: store.events_after(WORKSPACE, 0, limit=5, run_id=RUN),
    "the last number of a run": lambda store: store.latest_run_seq(WORKSPACE),
    "whether it can be written": lambda store: store.check_writable(),
    "accepting": lambda store: write(store, accept("next", 10_000)),
    "accepting, and queueing": lambda store: write(store, accept("next", 10_000), QueueRun(RunId("next"))),
    "accepting, and beginning": lambda store: write(store, accept("next", 10_000), start("next")),
    "canceling": lambda store: write(store, cancel(RUN)),
    "ending, and withdrawing what was asked": lambda store: write(store, settle(RUN)),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
async def test_what_a_start_reads_and_what_a_run_writes_does_not_grow_with_what_is_stored(
    work: Callable[[Store], Awaitable[object]],
) -> None:
    few, many = await steps(work, stored=FEW), await steps(work, stored=MANY)
    # Not the same to a step: a number takes more bytes, a page has split.
    assert 0 < many < few + MANY / 2
