"""The writes to sessions and their messages, and what is announced of them. Each says whether it applied."""

import msgspec
from msgspec import UnsetType

from engine.records.change import (
    CreateMessage,
    CreateSession,
    DeleteMessage,
    DeleteSession,
    PutMessage,
    UpdateMessage,
    UpdateSession,
)
from engine.records.event import (
    AgentFailed,
    AgentFinished,
    ConfigChanged,
    MessageCreated,
    MessageDeleted,
    MessageUpdated,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
)
from engine.records.ids import SessionId
from engine.records.message import Message
from engine.records.session import Session
from engine.store import rows
from engine.store.sqlite_transaction import Writing

_INSERT_SESSION = rows.insert("sessions", rows.SESSION_COLUMNS)
_INSERT_MESSAGE = rows.insert("messages", rows.MESSAGE_COLUMNS)
_UPDATE_MESSAGE = (
    "UPDATE messages SET "
    + ", ".join(
        f"{name} = :{name}" for name in rows.MESSAGE_COLUMNS if name not in ("workspace_id", "id", "session_id")
    )
    + " WHERE workspace_id = :workspace_id AND id = :id AND session_id = :session_id"
)
# Times never go backwards, whatever order parallel writers come in: sessions are listed by them.
_COUNT_MESSAGES = (
    "UPDATE sessions SET message_count = message_count + :added, updated_at_us = max(updated_at_us, :at_us)"
    " WHERE workspace_id = :workspace_id AND id = :id"
)
_OF_SESSION = "WHERE workspace_id = :workspace_id AND session_id = :id"

CHILDREN = "SELECT * FROM sessions WHERE workspace_id = :workspace_id AND parent_id = :id ORDER BY rowid"


def create_session(writing: Writing, write: CreateSession) -> bool:
    """→ SessionCreated; a taken id fails on the constraint."""
    session = write.session
    writing.execute(_INSERT_SESSION, rows.session_to_row(session))
    writing.emit(SessionCreated(session), session.id)
    return True


def update_session(writing: Writing, write: UpdateSession) -> bool:
    """→ SessionUpdated, with the whole row as it is now."""
    given: rows.Row = {
        name: value
        for name in ("title", "prompt_tokens", "completion_tokens", "summary_message_id")
        if not isinstance(value := getattr(write, name), UnsetType)
    }
    if not isinstance(write.todos, UnsetType):
        given["todos"] = rows.todos_to_json(write.todos)
    statement = (
        "UPDATE sessions SET updated_at_us = max(updated_at_us, :at_us), cost = cost + :add_cost"
        + "".join(f", {name} = :{name}" for name in given)
        + " WHERE workspace_id = :workspace_id AND id = :id AND (:expected IS NULL OR title = :expected)"
    )
    others: rows.Row = {"id": write.session_id, "at_us": write.at_us, "add_cost": write.add_cost}
    if not writing.execute(statement, {**given, **others, "expected": write.only_if_title}):
        return False
    session = _session(writing, write.session_id)
    assert session is not None, "it was just written"
    writing.emit(SessionUpdated(session), session.id)
    return True


def delete_session(writing: Writing, write: DeleteSession) -> bool:
    """→ SessionDeleted for its child sessions and for itself, with all that belongs to them. What the log says of them
    stays."""
    session = _session(writing, write.session_id)
    live = f"SELECT 1 FROM runs {_OF_SESSION} AND state IN ('accepted', 'queued', 'active')"
    if session is None or writing.row(live, id=session.id) is not None:
        return False
    for child in writing.rows(CHILDREN, id=session.id):
        _delete_one(writing, rows.session_from_row(child))
    _delete_one(writing, session)
    return True


def _delete_one(writing: Writing, session: Session) -> None:
    for table in ("messages", "requests", "grants", "files", "file_reads", "runs"):
        writing.execute(f"DELETE FROM {table} {_OF_SESSION}", {"id": session.id})
    writing.execute("DELETE FROM sessions WHERE workspace_id = :workspace_id AND id = :id", {"id": session.id})
    writing.emit(SessionDeleted(session), session.id)


def create_message(writing: Writing, write: CreateMessage) -> bool:
    """→ MessageCreated; the session's count and time go up without an event of their own."""
    message = write.message
    counted: rows.Row = {"id": message.session_id, "added": 1, "at_us": message.created_at_us}
    if not writing.execute(_COUNT_MESSAGES, counted):
        return False
    writing.execute(_INSERT_MESSAGE, rows.message_to_row(writing.workspace_id, message))
    _keep_summary(writing, message)
    writing.emit(MessageCreated(message), message.session_id, message.run_id)
    return True


def update_message(writing: Writing, write: UpdateMessage) -> bool:
    """→ MessageUpdated unless quiet. The message is replaced as a whole, so the event's is the row's."""
    message = write.message
    if not writing.execute(_UPDATE_MESSAGE, rows.message_to_row(writing.workspace_id, message)):
        return False
    _keep_summary(writing, message)
    if not write.quiet:
        writing.emit(MessageUpdated(message), message.session_id, message.run_id)
    return True


def put_message(writing: Writing, write: PutMessage) -> bool:
    """→ MessageCreated or MessageUpdated, if there is anything to write."""
    row = writing.row("SELECT * FROM messages WHERE workspace_id = :workspace_id AND id = :id", id=write.message.id)
    if row is None:
        return create_message(writing, CreateMessage(write.message))
    if rows.message_from_row(row) == write.message:
        return True
    return update_message(writing, UpdateMessage(write.message))


def delete_message(writing: Writing, write: DeleteMessage) -> bool:
    """→ MessageDeleted, with the message as it was."""
    one = "messages WHERE workspace_id = :workspace_id AND id = :id"
    row = writing.row(f"SELECT * FROM {one}", id=write.message_id)
    if row is None:
        return False
    message = rows.message_from_row(row)
    writing.execute(f"DELETE FROM {one}", {"id": message.id})
    writing.execute(_COUNT_MESSAGES, {"id": message.session_id, "added": -1, "at_us": message.updated_at_us})
    writing.emit(MessageDeleted(message), message.session_id, message.run_id)
    return True


def _keep_summary(writing: Writing, message: Message) -> None:
    """A summary that has ended well stands for what came before it, from the commit on that says so."""
    if message.is_whole_summary:
        update = UpdateSession(
            session_id=message.session_id, at_us=message.updated_at_us, summary_message_id=message.id
        )
        update_session(writing, update)


def announce(writing: Writing, body: AgentFinished | AgentFailed | ConfigChanged) -> None:
    """→ the event, with the session's title as it is now."""
    if isinstance(body, ConfigChanged):
        writing.emit(body)
        return
    if isinstance(body, AgentFinished) and (session := _session(writing, body.session_id)) is not None:
        body = msgspec.structs.replace(body, session_title=session.title)
    writing.emit(body, body.session_id, body.run_id)


def _session(writing: Writing, session_id: SessionId) -> Session | None:
    row = writing.row("SELECT * FROM sessions WHERE workspace_id = :workspace_id AND id = :id", id=session_id)
    return None if row is None else rows.session_from_row(row)
