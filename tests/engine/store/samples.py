"""Rows and changes to write in tests: whatever a test does not care about has a value here."""

from collections.abc import Iterable

import msgspec

from engine.records.change import (
    AcceptRun,
    Change,
    CreateMessage,
    CreateSession,
    Ending,
    PutWorkspace,
    RequestCancel,
    SettleRun,
    StartRun,
    Write,
)
from engine.records.event import Event, MessageProgress
from engine.records.ids import MessageId, RunId, SessionId, WorkspaceId
from engine.records.message import Message, Part, Role, Text
from engine.records.run import Prompt, RunRecord, RunState
from engine.records.session import Session
from engine.store.protocol import Committed, Store

W = WorkspaceId("w")
S = SessionId("s")
AT = 1_700_000_000_000_000


def change(*writes: Write, workspace: str = W, at_us: int = AT) -> Change:
    return Change(WorkspaceId(workspace), at_us, writes)


async def write(store: Store, *writes: Write, workspace: str = W, at_us: int = AT) -> Committed:
    """Commit the writes as one change, and raise what prevented it."""
    (outcome,) = await store.commit([change(*writes, workspace=workspace, at_us=at_us)])
    return committed(outcome)


def committed(outcome: Committed | Exception) -> Committed:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def put_workspace(workspace: str = W) -> PutWorkspace:
    return PutWorkspace(WorkspaceId(workspace), f"/home/somebody/{workspace}", AT)


def session(
    id: str = S, *, workspace: str = W, title: str = "New", parent: str | None = None, at_us: int = AT
) -> Session:
    return Session(
        id=SessionId(id),
        workspace_id=WorkspaceId(workspace),
        title=title,
        parent_id=None if parent is None else SessionId(parent),
        created_at_us=at_us,
        updated_at_us=at_us,
    )


def message(
    id: str,
    text: str = "words",
    *,
    turn: int = 1,
    run: str | None = None,
    session: str = S,
    role: Role = Role.ASSISTANT,
    parts: tuple[Part, ...] | None = None,
    at_us: int = AT,
) -> Message:
    return Message(
        id=MessageId(id),
        session_id=SessionId(session),
        role=role,
        parts=(Text(text),) if parts is None else parts,
        turn=turn,
        run_id=None if run is None else RunId(run),
        created_at_us=at_us,
        updated_at_us=at_us,
    )


def run(
    id: str,
    seq: int = 1,
    *,
    session: str = S,
    workspace: str = W,
    key: str | None = None,
    state: RunState = RunState.ACCEPTED,
) -> RunRecord:
    return RunRecord(
        id=RunId(id),
        workspace_id=WorkspaceId(workspace),
        session_id=SessionId(session),
        seq=seq,
        state=state,
        prompt=Prompt(session_id=SessionId(session), text=f"prompt of {id}", idempotency_key=key),
        accepted_at_us=AT,
    )


def accept(id: str, seq: int = 1, **others: str | None) -> AcceptRun:
    return AcceptRun(run(id, seq, **others), f"hash of {id}")  # type: ignore[arg-type]


def start(id: str) -> StartRun:
    return StartRun(run_id=RunId(id), at_us=AT + 1, model="m", provider="p")


def cancel(*ids: str, reason: str = "asked", at_us: int = AT + 2) -> RequestCancel:
    return RequestCancel(tuple(map(RunId, ids)), reason, at_us)


def ending(state: RunState = RunState.COMPLETED, *, text: str = "") -> Ending:
    return Ending(state=state, at_us=AT + 3, text=text)


def settle(id: str, planned: Ending | None = None, if_canceled: Ending | None = None) -> SettleRun:
    return SettleRun(RunId(id), planned or ending(), if_canceled or ending(RunState.CANCELED))


async def make_workspace(store: Store, workspace: str = W) -> None:
    """A workspace with a session `s`: event 1."""
    await write(store, put_workspace(workspace), CreateSession(session(workspace=workspace)), workspace=workspace)


async def make_run(store: Store, id: str, seq: int = 1, *, state: RunState = RunState.ACTIVE) -> None:
    """A run in this state, by the way that leads there."""
    await write(store, accept(id, seq))
    if state is not RunState.ACCEPTED:
        await write(store, start(id))
    if state.is_terminal:
        await write(store, settle(id, ending(state)))


async def make_messages(store: Store, *messages: Message) -> None:
    await write(store, *map(CreateMessage, messages))


def kinds(events: Iterable[Event]) -> list[str]:
    return [str(event.body.__struct_config__.tag) for event in events]


def numbers(events: Iterable[Event]) -> list[int | None]:
    return [event.seq for event in events]


def progress(of: Message) -> Event:
    """A volatile event that says the message was streamed to this point."""
    return Event(None, W, AT, MessageProgress(of, ()), run_id=of.run_id, session_id=of.session_id)


def with_text(of: Message, text: str) -> Message:
    return msgspec.structs.replace(of, parts=(Text(text),))
