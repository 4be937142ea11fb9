"""Sessions: one conversation each."""

import msgspec

from engine.records.ids import MessageId, SessionId, WorkspaceId
from engine.records.message import TodoStatus


class Todo(msgspec.Struct, frozen=True):
    """One line of a session's to-do list."""

    content: str
    status: TodoStatus
    active_form: str = ""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation. Token counts are those of the latest step; `cost` is the sum, in US dollars."""

    id: SessionId
    workspace_id: WorkspaceId
    title: str
    parent_id: SessionId | None = None
    message_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    summary_message_id: MessageId | None = None
    todos: tuple[Todo, ...] = ()
    created_at_us: int
    updated_at_us: int
