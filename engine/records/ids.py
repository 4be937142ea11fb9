"""Identifiers. All are opaque strings; ours are UUIDs, a client's own run id may be any short printable text."""

import uuid
from typing import NewType

WorkspaceId = NewType("WorkspaceId", str)
SessionId = NewType("SessionId", str)
MessageId = NewType("MessageId", str)
RunId = NewType("RunId", str)
ClientId = NewType("ClientId", str)
RequestId = NewType("RequestId", str)  # of a permission or of questions
FileId = NewType("FileId", str)

CHILD_MARK = "$$"  # between the two halves of a child session's id, as Crush's client takes it apart
RUN_ID_MAX = 128  # characters of a client-chosen run id


def new_workspace_id() -> WorkspaceId:
    """A fresh workspace id."""
    return WorkspaceId(str(uuid.uuid4()))


def new_session_id() -> SessionId:
    """A fresh session id."""
    return SessionId(str(uuid.uuid4()))


def child_session_id(message_id: MessageId, call_id: str) -> SessionId:
    """The id of the session that a sub-agent works in, from the tool call that it works for."""
    return SessionId(f"{message_id}{CHILD_MARK}{call_id}")


def is_child_session(session_id: str) -> bool:
    """Whether it is the id of a session that a sub-agent works in."""
    return CHILD_MARK in session_id


def new_message_id() -> MessageId:
    """A fresh message id."""
    return MessageId(str(uuid.uuid4()))


def new_run_id() -> RunId:
    """A fresh run id."""
    return RunId(str(uuid.uuid4()))


def new_request_id() -> RequestId:
    """A fresh id for a request that a person answers."""
    return RequestId(str(uuid.uuid4()))


def new_file_id() -> FileId:
    """A fresh id of a version of a file."""
    return FileId(str(uuid.uuid4()))
