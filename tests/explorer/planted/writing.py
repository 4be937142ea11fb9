"""Bugs in what is written: answers before their commits, endings twice or in pieces, marks that nobody reads."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import msgspec
import trio

from engine.events.log import EventLog, Pending
from engine.records.change import Change, RequestCancel, SettleRun, Write
from engine.records.event import Event
from engine.records.ids import RunId
from engine.records.run import Prompt
from engine.runs.accept import Acceptor
from engine.runs.accepted import AcceptedRun
from engine.runs.cancel import Canceler, ids
from engine.runs.dispatch import Cancellation
from engine.runs.settle import Settler
from engine.store import rows, sqlite_run_writes
from engine.store.open import Database, open_memory
from engine.store.protocol import Committed
from engine.store.sqlite_transaction import EventNumbers, Writing
from engine.store.sqlite_writes import _write_change
from tests.explorer import disk
from tests.explorer.disk import ExploredDisk
from tests.explorer.planted.registry import bug, put


@bug(first=17)
def answered_before_the_commit() -> Iterator[None]:
    """A caller is told 202 when the run is on its way to the store, not when it is there (R02)."""
    usual = Acceptor._register

    def register(acceptor: Acceptor, prompt: Prompt, hashed: str) -> AcceptedRun:
        run = usual(acceptor, prompt, hashed)
        run.decide()
        return run

    with put(Acceptor, "_register", register):
        yield


@bug(first=48)
def cancel_answered_before_its_commit() -> Iterator[None]:
    """A cancel names its runs when its record is on its way to the store, not when it is there (R11)."""

    async def record(
        canceler: Canceler, runs: tuple[AcceptedRun, ...], flagged: Cancellation, reason: str
    ) -> tuple[RunId, ...]:
        at_us, named = canceler._now_us(), ids(runs)
        for run in runs:
            run.cancel(reason)
        if runs:
            canceler._log.submit(Change(canceler._workspace_id, at_us, (RequestCancel(named, reason, at_us),)))
        canceler._settle_orphans(flagged)
        await trio.lowlevel.checkpoint()
        return named

    with put(Canceler, "_record", record):
        yield


@bug()
def cancel_swallowed_by_the_writer() -> Iterator[None]:
    """The writer names the runs that a cancel covers, and does not mark them (R11)."""
    usual = sqlite_run_writes.request_cancel

    def request_cancel(writing: Writing, write: RequestCancel) -> bool:
        with put(Writing, "execute", lambda *_: False):
            return usual(writing, write)

    with put(sqlite_run_writes, "request_cancel", request_cancel):
        yield


@bug(first=267)
def mark_ignored_by_the_ending() -> Iterator[None]:
    """The commit of an ending does not look whether a cancel is on record, and no constraint does (R11)."""
    usual_settle, usual_run = sqlite_run_writes.settle_run, rows.run_from_row

    def settle_run(writing: Writing, write: SettleRun) -> bool:
        unmarked = lambda row: msgspec.structs.replace(usual_run(row), cancel_requested_at_us=None)  # noqa: E731
        with put(rows, "run_from_row", unmarked):
            return usual_settle(writing, write)

    with put(sqlite_run_writes, "settle_run", settle_run), without("TRIGGER runs_honour_their_cancel"):
        yield


@bug()
def settled_twice() -> Iterator[None]:
    """An ending is written twice: neither a condition nor a constraint is against it (R18)."""
    usual_submit, usual_execute, usual_row = Settler._submit, Writing.execute, Writing.row
    alive = " AND state IN ('accepted', 'queued', 'active')"

    def submit(settler: Settler, writes: tuple[Write, ...]) -> Pending | None:
        usual_submit(settler, writes)
        return usual_submit(settler, tuple(write for write in writes if isinstance(write, SettleRun)))

    def execute(writing: Writing, statement: str, values: rows.Row) -> bool:
        return usual_execute(writing, statement.replace(alive, ""), values)

    def row(writing: Writing, statement: str, **values: rows.Value) -> sqlite3.Row | None:
        return usual_row(writing, statement.replace(alive, ""), **values)

    with (
        put(Settler, "_submit", submit),
        put(Writing, "execute", execute),
        put(Writing, "row", row),
        without("INDEX events_one_ending", "TRIGGER runs_end_once"),
    ):
        yield


@bug()
def ending_before_its_words() -> Iterator[None]:
    """The terminal event is written before the last state of the messages (R19)."""
    usual = sqlite_run_writes.settle_run

    def settle_run(writing: Writing, write: SettleRun) -> bool:
        bare = SettleRun(
            write.run_id,
            msgspec.structs.replace(write.planned, writes=()),
            msgspec.structs.replace(write.if_canceled, writes=()),
        )
        is_settled = usual(writing, bare)
        if is_settled:
            is_planned = writing.settled is not None and writing.settled.state is write.planned.state
            ending = write.planned if is_planned else write.if_canceled
            sqlite_run_writes._write_messages(writing, ending.writes)
        return is_settled

    with put(sqlite_run_writes, "settle_run", settle_run):
        yield


@bug(first=98)
def published_before_the_commit() -> Iterator[None]:
    """Readers are shown events that the store may yet refuse (R27)."""
    usual = ExploredDisk.commit
    logs: list[EventLog] = []
    usual_init = EventLog.__init__

    def init(log: EventLog, *given: Any, **named: Any) -> None:
        usual_init(log, *given, **named)
        logs.append(log)

    async def commit(explored: ExploredDisk, changes: Sequence[Change]) -> list[Committed | Exception]:
        for event in foreseen(explored._database, changes):
            logs[-1]._bus.publish(event)
        return await usual(explored, changes)

    with put(EventLog, "__init__", init), put(ExploredDisk, "commit", commit):
        yield


def foreseen(database: Database, changes: Sequence[Change]) -> list[Event]:
    """The events that these changes would make."""
    db = database.writer
    db.execute("BEGIN")
    try:
        numbers = EventNumbers(db)
        made = [_write_change(db, database.path, numbers, change) for change in changes]
    finally:
        db.execute("ROLLBACK")
    return [event for outcome in made if isinstance(outcome, Committed) for event in outcome.events]


def without(*constraints: str) -> ExitStack:
    """Stores that are made meanwhile lack these constraints."""

    def open_lenient() -> Database:
        database = open_memory()
        for constraint in constraints:
            database.writer.execute(f"DROP {constraint}")
        return database

    held = ExitStack()
    held.enter_context(put(disk, "open_memory", open_lenient))
    return held
