"""Sessions as Crush's client reads and sends them."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.clock import seconds
from engine.records import session as records
from engine.records.message import TodoStatus

TITLE_MAX = 1000  # characters; a title is a line, not a document

Title = Annotated[str, Meta(max_length=TITLE_MAX)]


class Todo(msgspec.Struct, frozen=True):
    """One line of a to-do list."""

    content: str
    status: TodoStatus
    active_form: str = ""


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One conversation. `is_busy` and `attached_clients` are computed for answers; in events they say nothing."""

    id: str
    parent_session_id: str
    title: str
    message_count: int
    prompt_tokens: int
    completion_tokens: int
    summary_message_id: str
    cost: float
    created_at: int
    updated_at: int
    is_busy: bool
    attached_clients: int
    todos: tuple[Todo, ...] = ()


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a create. Crush's client sends a whole session; only the title counts."""

    title: Title = ""


class SavedSession(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a save: what is sent changes, what is not stays. Counters and costs are nobody's to write."""

    id: str = ""
    title: Title | UnsetType = UNSET
    todos: Annotated[tuple[Todo, ...], Meta(max_length=1000)] | UnsetType = UNSET


class CurrentSession(msgspec.Struct, frozen=True, kw_only=True):
    """Which session a client is looking at; empty says none."""

    session_id: str = ""


def session_shape(session: records.Session, *, is_busy: bool = False, attached_clients: int = 0) -> Session:
    """The session as it goes over the wire."""
    return Session(
        id=session.id,
        parent_session_id=session.parent_id or "",
        title=session.title,
        message_count=session.message_count,
        prompt_tokens=session.prompt_tokens,
        completion_tokens=session.completion_tokens,
        summary_message_id=session.summary_message_id or "",
        cost=session.cost,
        created_at=seconds(session.created_at_us),
        updated_at=seconds(session.updated_at_us),
        is_busy=is_busy,
        attached_clients=attached_clients,
        todos=tuple(Todo(each.content, each.status, each.active_form) for each in session.todos),
    )
