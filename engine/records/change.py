"""Changes: everything that one commit writes, as data.

A write never names its events: the store derives them from the rows as they are after the write, in the same
transaction, so that no row changes without its event and no event tells of a row that is not there. A conditional write
that does not apply writes no event.
"""

import msgspec
from msgspec import UNSET, UnsetType

from engine.records.event import AgentFailed, AgentFinished, ConfigChanged
from engine.records.file import FileRead, FileVersion
from engine.records.ids import MessageId, RequestId, RunId, SessionId, WorkspaceId
from engine.records.message import Message
from engine.records.permission import Decision, PermissionRequest
from engine.records.question import QuestionBatch
from engine.records.run import RunError, RunRecord, RunState, Usage
from engine.records.session import Session, Todo


class PutWorkspace(msgspec.Struct, frozen=True):
    """Remember a workspace by its resolved path. No event."""

    workspace_id: WorkspaceId
    path: str
    at_us: int


class CreateSession(msgspec.Struct, frozen=True):
    """→ SessionCreated. Conflict if the id is taken."""

    session: Session


class UpdateSession(msgspec.Struct, frozen=True, kw_only=True):
    """→ SessionUpdated. Only what is given changes; costs are added, so that parallel writers never overwrite each
    other. Not applied if the session is gone."""

    session_id: SessionId
    at_us: int
    title: str | UnsetType = UNSET
    prompt_tokens: int | UnsetType = UNSET
    completion_tokens: int | UnsetType = UNSET
    summary_message_id: MessageId | UnsetType | None = UNSET
    todos: tuple[Todo, ...] | UnsetType = UNSET
    add_cost: float = 0.0
    only_if_title: str | None = None  # applied only while the title is still this one


class DeleteSession(msgspec.Struct, frozen=True):
    """→ SessionDeleted for its child sessions and for itself, with their messages and ended runs. Not applied if it is
    gone or has a run that is not ended."""

    session_id: SessionId


class CreateMessage(msgspec.Struct, frozen=True):
    """→ MessageCreated, and the session's count goes up. Not applied if the session is gone."""

    message: Message


class UpdateMessage(msgspec.Struct, frozen=True):
    """→ MessageUpdated, unless `quiet` (a flush of streamed text, of which readers were told by volatile events).
    Not applied if the message is gone."""

    message: Message
    quiet: bool = False


class PutMessage(msgspec.Struct, frozen=True):
    """→ MessageCreated if it was missing, MessageUpdated if it was different; nothing if it is as it was. Not applied
    if the session is gone. For an ending, which mends what an earlier commit of its turn may have failed to write."""

    message: Message


class DeleteMessage(msgspec.Struct, frozen=True):
    """→ MessageDeleted, and the session's count goes down. Not applied if the message is gone."""

    message_id: MessageId


class AcceptRun(msgspec.Struct, frozen=True):
    """→ RunChanged. Conflict if the id or the idempotency key is taken; not applied if the session is gone (R02,
    R06)."""

    run: RunRecord
    request_hash: str


class QueueRun(msgspec.Struct, frozen=True):
    """accepted → queued, → RunChanged. A steered run whose host was canceled alone comes back this way too: it is no
    longer steered, nor started. Not applied to a run that has ended or is queued."""

    run_id: RunId


class StartRun(msgspec.Struct, frozen=True, kw_only=True):
    """→ RunChanged, then the events of its writes. The run becomes active. Nothing of it is applied if the run has
    ended or a cancel of it is recorded (R09)."""

    run_id: RunId
    at_us: int
    model: str = ""
    provider: str = ""
    attempt: int = 1
    steered_into: RunId | None = None
    writes: tuple[CreateMessage, ...] = ()


class RequestCancel(msgspec.Struct, frozen=True):
    """→ RunChanged for each run that has not ended; the others are left alone, and so is a run's first reason (R11).
    Applied if it covered at least one run. The covered ones are in `Committed.covered`."""

    run_ids: tuple[RunId, ...]
    reason: str
    at_us: int


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ends, and what is written before its terminal event."""

    state: RunState
    at_us: int
    writes: tuple[CreateMessage | PutMessage | UpdateSession, ...] = ()
    message_id: MessageId | None = None
    text: str = ""
    error: RunError | None = None
    usage: Usage = Usage()
    steered_into: RunId | None = None
    notice: AgentFinished | AgentFailed | None = None


class SettleRun(msgspec.Struct, frozen=True):
    """→ the events of its writes, RunChanged, the notice, RunCompleted, in this order. Not applied if the run has
    ended.

    The commit reads the cancel mark: with one recorded, `if_canceled` is what happens, otherwise `planned` (R11, R18).
    """

    run_id: RunId
    planned: Ending
    if_canceled: Ending


class OpenRequest(msgspec.Struct, frozen=True):
    """→ PermissionAsked or QuestionsAsked. Not applied if its run has ended or a cancel of it is recorded; the ending
    of its run withdraws what is still open, so that no request outlives its run (R10)."""

    request: PermissionRequest | QuestionBatch
    at_us: int


class ResolveRequest(msgspec.Struct, frozen=True):
    """→ PermissionResolved or QuestionsResolved. Applied only while it is open: the first answer wins (R31). What is
    allowed for the session is remembered as it was asked, whatever the answer says of it."""

    request_id: RequestId
    decision: Decision
    at_us: int


class PutFileVersion(msgspec.Struct, frozen=True):
    """→ FileVersionCreated, with the next number of this path in its session. Not applied if the session is gone, or if
    the path's latest version has this content."""

    file: FileVersion


class PutFileRead(msgspec.Struct, frozen=True):
    """Remember how a session has seen a file last. No event. Not applied if the session is gone."""

    read: FileRead


class Announce(msgspec.Struct, frozen=True):
    """→ the given event. No row."""

    body: AgentFinished | AgentFailed | ConfigChanged


class PutSetting(msgspec.Struct, frozen=True):
    """Remember a setting; `workspace_id` None is for all. No event. An empty value removes it."""

    workspace_id: WorkspaceId | None
    key: str
    value: str


Write = (
    PutWorkspace
    | CreateSession
    | UpdateSession
    | DeleteSession
    | CreateMessage
    | UpdateMessage
    | PutMessage
    | DeleteMessage
    | AcceptRun
    | QueueRun
    | StartRun
    | RequestCancel
    | SettleRun
    | OpenRequest
    | ResolveRequest
    | PutFileVersion
    | PutFileRead
    | Announce
    | PutSetting
)


class Change(msgspec.Struct, frozen=True):
    """What one commit writes: all or nothing. `at_us` is the moment of its events."""

    workspace_id: WorkspaceId
    at_us: int
    writes: tuple[Write, ...]
