"""What the schema itself refuses, whoever writes: raw SQL, past everything that the store's code takes care of."""

import sqlite3
from collections.abc import Iterator

import pytest

from engine.records.change import CreateMessage, CreateSession, QueueRun, StartRun, Write
from engine.records.ids import RunId
from engine.records.run import RunState
from engine.store.open import open_memory
from engine.store.sqlite_writes import commit_changes
from tests.engine.store.samples import (
    AT,
    accept,
    cancel,
    change,
    committed,
    ending,
    message,
    put_workspace,
    session,
    settle,
    start,
)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    database = open_memory()
    apply(database.writer, put_workspace(), CreateSession(session()))
    yield database.writer
    database.close()


def apply(db: sqlite3.Connection, *writes: Write) -> None:
    (outcome,) = commit_changes(db, ":memory:", [change(*writes)])
    committed(outcome)


def refused(db: sqlite3.Connection, statement: str, match: str) -> None:
    before = "\n".join(db.iterdump())
    with pytest.raises(sqlite3.IntegrityError, match=match):
        db.execute(statement)
    assert "\n".join(db.iterdump()) == before


@pytest.mark.parametrize("end", [state for state in RunState if state.is_terminal])
@pytest.mark.parametrize("to", RunState)
def test_r18_a_terminal_state_never_changes(db: sqlite3.Connection, end: RunState, to: RunState) -> None:
    apply(db, accept("r"), start("r"), settle("r", ending(end)))
    refused(db, f"UPDATE runs SET state = '{to}'", r"R18|goes back")
    refused(db, f"UPDATE runs SET state = '{to}', ended_at_us = 1", r"R18|goes back")


def test_r18_a_second_terminal_event_is_impossible(db: sqlite3.Connection) -> None:
    apply(db, accept("r"), start("r"), settle("r"))
    again = (
        "INSERT INTO events (workspace_id, seq, kind, run_id, session_id, at_us, body)"
        " SELECT workspace_id, 99, kind, run_id, session_id, at_us, body FROM events WHERE kind = 'run_completed'"
    )
    refused(db, again, "UNIQUE constraint failed: events.workspace_id, events.run_id")


def test_r18_a_run_does_not_begin_at_its_end(db: sqlite3.Connection) -> None:
    apply(db, accept("r"), start("r"), settle("r"))
    names = [row["name"] for row in db.execute("PRAGMA table_info(runs)")]
    copied = ", ".join({"id": "'copy'", "seq": "2"}.get(name, name) for name in names)
    refused(db, f"INSERT INTO runs SELECT {copied} FROM runs", "begins as accepted")


def test_r18_a_run_is_not_deleted_before_it_has_ended(db: sqlite3.Connection) -> None:
    apply(db, accept("r"), start("r"))
    refused(db, "DELETE FROM runs", "not deleted before it has ended")


def test_r18_a_run_has_an_end_moment_if_and_only_if_it_has_ended(db: sqlite3.Connection) -> None:
    apply(db, accept("r"), start("r"))
    refused(db, "UPDATE runs SET state = 'completed'", "CHECK constraint failed")
    refused(db, "UPDATE runs SET ended_at_us = 1", "CHECK constraint failed")


def test_r11_a_run_with_a_recorded_cancel_ends_canceled_and_in_no_other_way(db: sqlite3.Connection) -> None:
    apply(db, accept("r"), start("r"), cancel("r"))
    for state in ("completed", "failed", "interrupted"):
        refused(db, f"UPDATE runs SET state = '{state}', ended_at_us = 1", "R11")
    db.execute("UPDATE runs SET state = 'canceled', ended_at_us = 1")


def test_r11_a_recorded_cancel_is_neither_changed_nor_taken_back(db: sqlite3.Connection) -> None:
    apply(db, accept("r"), cancel("r"))
    refused(db, "UPDATE runs SET cancel_reason = 'another'", "R11")
    refused(db, "UPDATE runs SET cancel_requested_at_us = NULL, cancel_reason = NULL", "R11")


def test_a_cancel_has_a_moment_and_a_reason(db: sqlite3.Connection) -> None:
    apply(db, accept("r"))
    refused(db, "UPDATE runs SET cancel_reason = 'why'", "CHECK constraint failed")
    refused(db, "UPDATE runs SET cancel_requested_at_us = 1", "CHECK constraint failed")


def test_a_run_goes_back_to_the_queue_only_from_a_turn_that_was_not_its_own(db: sqlite3.Connection) -> None:
    apply(db, accept("r"), start("r"))
    refused(db, "UPDATE runs SET state = 'queued'", "goes back")
    refused(db, "UPDATE runs SET state = 'accepted'", "goes back")
    apply(db, StartRun(run_id=RunId("r"), at_us=AT, steered_into=RunId("host")), QueueRun(RunId("r")))


def test_an_unknown_state_or_role_is_refused(db: sqlite3.Connection) -> None:
    apply(db, accept("r"), CreateMessage(message("m")))
    refused(db, "UPDATE runs SET state = 'paused'", "CHECK constraint failed")
    refused(db, "UPDATE messages SET role = 'narrator'", "CHECK constraint failed")


def test_r27_numbers_are_not_turned_back(db: sqlite3.Connection) -> None:
    apply(db, accept("r", 7))
    refused(db, "UPDATE workspaces SET last_seq = last_seq - 1", "R27")
    refused(db, "UPDATE workspaces SET last_run_seq = 6", "R27")


def test_r06_an_idempotency_key_belongs_to_one_run(db: sqlite3.Connection) -> None:
    apply(db, accept("a", 1, key="k"), accept("b", 2))
    refused(db, "UPDATE runs SET idempotency_key = 'k' WHERE id = 'b'", "UNIQUE constraint failed")
    refused(db, "UPDATE runs SET seq = 1 WHERE id = 'b'", "UNIQUE constraint failed")


@pytest.mark.parametrize("table", ["messages", "runs", "sessions", "events"])
def test_nothing_stands_without_what_it_belongs_to(db: sqlite3.Connection, table: str) -> None:
    apply(db, accept("r"), CreateMessage(message("m")))
    column = "session_id" if table in ("messages", "runs") else "workspace_id"
    refused(db, f"UPDATE {table} SET {column} = 'nowhere'", "FOREIGN KEY constraint failed")


def test_columns_hold_what_they_are_declared_to_hold(db: sqlite3.Connection) -> None:
    apply(db, accept("r"))
    refused(db, "UPDATE runs SET accepted_at_us = 'yesterday'", "cannot store TEXT value in INTEGER column")
    refused(db, "UPDATE runs SET prompt = 'text'", "cannot store TEXT value in BLOB column")
