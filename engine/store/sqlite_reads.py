"""The reads, as functions of a connection. Each is one statement, so that it sees one moment of the store."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing

from engine.records.event import Event
from engine.records.ids import MessageId, RunId, SessionId, WorkspaceId
from engine.records.message import Message
from engine.records.run import RunRecord, RunState
from engine.records.session import Session
from engine.store import rows
from engine.store.protocol import EventRange, StoredRun


def workspaces(db: sqlite3.Connection) -> list[tuple[WorkspaceId, str]]:
    """`Store.workspaces`"""
    return [
        (WorkspaceId(row["id"]), row["path"]) for row in db.execute("SELECT id, path FROM workspaces ORDER BY path")
    ]


def workspace_id(db: sqlite3.Connection, path: str) -> WorkspaceId | None:
    """`Store.workspace_id`"""
    row = db.execute("SELECT id FROM workspaces WHERE path = ?", (path,)).fetchone()
    return None if row is None else WorkspaceId(row["id"])


def sessions(db: sqlite3.Connection, workspace: WorkspaceId) -> list[Session]:
    """`Store.sessions`"""
    found = db.execute(
        "SELECT * FROM sessions WHERE workspace_id = ? AND parent_id IS NULL ORDER BY updated_at_us DESC, rowid DESC",
        (workspace,),
    )
    return [rows.session_from_row(row) for row in found]


def session(db: sqlite3.Connection, workspace: WorkspaceId, session_id: SessionId) -> Session | None:
    """`Store.session`"""
    key = (workspace, session_id)
    row = db.execute("SELECT * FROM sessions WHERE workspace_id = ? AND id = ?", key).fetchone()
    return None if row is None else rows.session_from_row(row)


def messages(db: sqlite3.Connection, workspace: WorkspaceId, session_id: SessionId) -> list[Message]:
    """`Store.messages`"""
    found = db.execute(
        "SELECT * FROM messages WHERE workspace_id = ? AND session_id = ? ORDER BY turn, position",
        (workspace, session_id),
    )
    return [rows.message_from_row(row) for row in found]


_HISTORY = """
    SELECT m.* FROM messages AS m
    WHERE m.workspace_id = :workspace AND m.session_id = :session AND m.turn < :before_turn
    AND NOT EXISTS (
        SELECT 1 FROM runs AS r WHERE r.workspace_id = m.workspace_id AND r.id = m.run_id
        AND r.state = 'canceled' AND r.started_at_us IS NULL
    )
    AND NOT EXISTS (
        SELECT 1 FROM sessions AS s
        JOIN messages AS summary ON summary.workspace_id = s.workspace_id AND summary.id = s.summary_message_id
        WHERE s.workspace_id = m.workspace_id AND s.id = m.session_id
        AND (m.turn, m.position) < (summary.turn, summary.position)
    )
    ORDER BY m.turn, m.position
"""


def history(db: sqlite3.Connection, workspace: WorkspaceId, session_id: SessionId, before_turn: int) -> list[Message]:
    """`Store.history`"""
    found = db.execute(_HISTORY, {"workspace": workspace, "session": session_id, "before_turn": before_turn})
    return [rows.message_from_row(row) for row in found]


def user_messages(db: sqlite3.Connection, workspace: WorkspaceId, session_id: SessionId | None) -> list[Message]:
    """`Store.user_messages`"""
    # What agents told their sub-agents is nobody's words.
    is_own = "session_id NOT IN (SELECT id FROM sessions WHERE workspace_id = :workspace AND parent_id IS NOT NULL)"
    where = f" AND {is_own}" if session_id is None else " AND session_id = :session"
    found = db.execute(
        f"SELECT * FROM messages WHERE workspace_id = :workspace AND role = 'user'{where} ORDER BY position DESC",
        {"workspace": workspace, "session": session_id},
    )
    return [rows.message_from_row(row) for row in found]


def message(db: sqlite3.Connection, workspace: WorkspaceId, message_id: MessageId) -> Message | None:
    """`Store.message`"""
    key = (workspace, message_id)
    row = db.execute("SELECT * FROM messages WHERE workspace_id = ? AND id = ?", key).fetchone()
    return None if row is None else rows.message_from_row(row)


def run(db: sqlite3.Connection, workspace: WorkspaceId, run_id: RunId) -> StoredRun | None:
    """`Store.run`"""
    row = db.execute("SELECT * FROM runs WHERE workspace_id = ? AND id = ?", (workspace, run_id)).fetchone()
    return None if row is None else StoredRun(rows.run_from_row(row), row["request_hash"])


def run_by_key(db: sqlite3.Connection, workspace: WorkspaceId, key: str) -> StoredRun | None:
    """`Store.run_by_key`"""
    row = db.execute("SELECT * FROM runs WHERE workspace_id = ? AND idempotency_key = ?", (workspace, key)).fetchone()
    return None if row is None else StoredRun(rows.run_from_row(row), row["request_hash"])


def runs(
    db: sqlite3.Connection,
    workspace: WorkspaceId,
    session_id: SessionId | None,
    states: Sequence[RunState],
    before: int | None,
    limit: int,
) -> list[RunRecord]:
    """`Store.runs`"""
    where = ["workspace_id = ?"]
    filters: list[rows.Value] = [workspace]
    if session_id is not None:
        where.append("session_id = ?")
        filters.append(session_id)
    if states:
        where.append(f"state IN ({', '.join('?' * len(states))})")
        filters.extend(state.value for state in states)
    if before is not None:
        where.append("seq < ?")
        filters.append(before)
    statement = f"SELECT * FROM runs WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"
    return [rows.run_from_row(row) for row in db.execute(statement, (*filters, limit))]


def unsettled_runs(
    db: sqlite3.Connection, workspace: WorkspaceId, after: int = 0, limit: int | None = None
) -> list[RunRecord]:
    """`Store.unsettled_runs`"""
    found = db.execute(
        "SELECT * FROM runs WHERE state IN ('accepted', 'queued', 'active') AND workspace_id = ? AND seq > ?"
        " ORDER BY seq LIMIT ?",
        (workspace, after, -1 if limit is None else limit),
    )
    return [rows.run_from_row(row) for row in found]


def unsettled_counts(db: sqlite3.Connection) -> dict[WorkspaceId, int]:
    """`Store.unsettled_counts`"""
    found = db.execute(
        "SELECT workspace_id, count(*) AS count FROM runs WHERE state IN ('accepted', 'queued', 'active')"
        " GROUP BY workspace_id"
    )
    return {WorkspaceId(row["workspace_id"]): row["count"] for row in found}


def run_messages(db: sqlite3.Connection, workspace: WorkspaceId, run_id: RunId) -> list[Message]:
    """`Store.run_messages`"""
    found = db.execute(
        "SELECT * FROM messages WHERE workspace_id = ? AND run_id = ? ORDER BY position", (workspace, run_id)
    )
    return [rows.message_from_row(row) for row in found]


def messages_of_runs(
    db: sqlite3.Connection, workspace: WorkspaceId, run_ids: Sequence[RunId]
) -> dict[RunId, list[Message]]:
    """`Store.messages_of_runs`"""
    wanted = ", ".join("?" * len(run_ids))
    statement = f"SELECT * FROM messages WHERE workspace_id = ? AND run_id IN ({wanted}) ORDER BY run_id, position"
    found = db.execute(statement, (workspace, *run_ids))
    messages: dict[RunId, list[Message]] = {}
    for row in found:
        messages.setdefault(RunId(row["run_id"]), []).append(rows.message_from_row(row))
    return messages


def latest_run_seq(db: sqlite3.Connection, workspace: WorkspaceId) -> int:
    """`Store.latest_run_seq`"""
    row = db.execute("SELECT last_run_seq FROM workspaces WHERE id = ?", (workspace,)).fetchone()
    return 0 if row is None else int(row["last_run_seq"])


def events_after(
    db: sqlite3.Connection,
    workspace: WorkspaceId,
    after: int,
    limit: int,
    run_id: RunId | None,
    max_bytes: int | None = None,
) -> list[Event]:
    """`Store.events_after`"""
    one = "" if run_id is None else " AND run_id = :run"
    statement = f"SELECT * FROM events WHERE workspace_id = :workspace AND seq > :after{one} ORDER BY seq LIMIT :limit"
    values: rows.Row = {"workspace": workspace, "after": after, "run": run_id, "limit": limit}
    events: list[Event] = []
    size = 0
    with closing(db.execute(statement, values)) as found:
        for row in found:
            size += len(row["body"])
            if events and max_bytes is not None and size > max_bytes:
                break
            events.append(rows.event_from_row(row))
    return events


def event_range(db: sqlite3.Connection, workspace: WorkspaceId) -> EventRange:
    """`Store.event_range`"""
    row = db.execute(
        "SELECT last_seq, (SELECT min(seq) FROM events WHERE workspace_id = w.id) AS oldest"
        " FROM workspaces AS w WHERE id = ?",
        (workspace,),
    ).fetchone()
    if row is None or row["last_seq"] == 0:
        return EventRange(0, 0)
    latest: int = row["last_seq"]
    return EventRange(latest + 1 if row["oldest"] is None else row["oldest"], latest)


def settings(db: sqlite3.Connection, workspace: WorkspaceId | None) -> dict[str, str]:
    """`Store.settings`"""
    found = db.execute("SELECT key, value FROM settings WHERE workspace_id = ?", (workspace or rows.ALL_WORKSPACES,))
    return {row["key"]: row["value"] for row in found}


def workspaces_with(db: sqlite3.Connection, setting: str) -> set[WorkspaceId]:
    """`Store.workspaces_with`"""
    found = db.execute("SELECT workspace_id FROM settings WHERE key = ?", (setting,))
    return {WorkspaceId(row["workspace_id"]) for row in found if row["workspace_id"] != rows.ALL_WORKSPACES}
