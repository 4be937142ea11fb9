"""The store: where everything durable lives. One implementation today (SQLite); this file is its specification."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from engine.records.change import Change
from engine.records.event import Event
from engine.records.file import FileRead, FileVersion
from engine.records.ids import MessageId, RunId, SessionId, WorkspaceId
from engine.records.message import Message
from engine.records.permission import Grant, PermissionRequest
from engine.records.question import QuestionBatch
from engine.records.run import RunRecord, RunState
from engine.records.session import Session


class Committed(msgspec.Struct, frozen=True):
    """What a change came to: for each of its writes whether it applied, the events with their numbers in order, the
    runs that a RequestCancel covered, and the run as a SettleRun left it."""

    applied: tuple[bool, ...]
    events: tuple[Event, ...] = ()
    covered: tuple[RunId, ...] = ()
    settled: RunRecord | None = None


class StoredRun(msgspec.Struct, frozen=True):
    """A run with the hash of the request that it came with (R06)."""

    run: RunRecord
    request_hash: str


class EventRange(msgspec.Struct, frozen=True):
    """The numbers that the log of a workspace holds: (0, 0) when nothing was ever written. `oldest` is the first that
    can still be read; it is `latest + 1` when everything was pruned."""

    oldest: int
    latest: int


class Store(Protocol):
    """Durable rows and the event log of every workspace of one server.

    Every method may block and is safe to cancel: a commit that has reached the disk is done, whatever happens to its
    caller; one that has not never happens. Reads see every commit that returned before they were called.
    All raise `StoreUnavailable` when the store cannot do its work; `StoreFull` and `StoreDamaged` are of that kind
    (R26).
    """

    async def commit(self, changes: Sequence[Change]) -> list[Committed | Exception]:
        """Write the changes in order, durably, and return an outcome for each, in the same order.

        They share one transaction. Each change is all or nothing: if one fails, it is left out, its outcome is the
        error (`Conflict` for a uniqueness constraint, else a `StoreError`), and the others are written. Numbers are
        given in order, without a gap, a workspace at a time (R27). Never raises for a single change; raises nothing but
        `Cancelled`.
        """
        ...

    async def workspaces(self) -> list[tuple[WorkspaceId, str]]:
        """Every workspace ever opened, with its resolved path."""
        ...

    async def workspace_id(self, path: str) -> WorkspaceId | None:
        """The id that belongs to a resolved path."""
        ...

    async def sessions(self, workspace_id: WorkspaceId) -> list[Session]:
        """Top-level sessions, the most recently updated first."""
        ...

    async def session(self, workspace_id: WorkspaceId, session_id: SessionId) -> Session | None:
        """One session, child sessions too."""
        ...

    async def messages(self, workspace_id: WorkspaceId, session_id: SessionId) -> list[Message]:
        """The messages of a session, turn by turn, each turn in the order it was written."""
        ...

    async def history(self, workspace_id: WorkspaceId, session_id: SessionId, before_turn: int) -> list[Message]:
        """What a model may see: the messages of earlier turns, without those of runs that were canceled before they
        began (R09), and from the session's summary on if it has one."""
        ...

    async def user_messages(self, workspace_id: WorkspaceId, session_id: SessionId | None) -> list[Message]:
        """Messages with role user, the newest first; of all sessions but child sessions if none is given."""
        ...

    async def message(self, workspace_id: WorkspaceId, message_id: MessageId) -> Message | None:
        """One message."""
        ...

    async def run(self, workspace_id: WorkspaceId, run_id: RunId) -> StoredRun | None:
        """One run."""
        ...

    async def run_by_key(self, workspace_id: WorkspaceId, idempotency_key: str) -> StoredRun | None:
        """The run that was accepted under this key (R06)."""
        ...

    async def runs(
        self,
        workspace_id: WorkspaceId,
        *,
        session_id: SessionId | None = None,
        states: Sequence[RunState] = (),
        before: int | None = None,
        limit: int = 50,
    ) -> list[RunRecord]:
        """Runs, the newest first, with a `seq` below `before`."""
        ...

    async def unsettled_runs(
        self, workspace_id: WorkspaceId, *, after: int = 0, limit: int | None = None
    ) -> list[RunRecord]:
        """Runs that have not ended, in accept order, with a `seq` above `after` (R25)."""
        ...

    async def unsettled_counts(self) -> dict[WorkspaceId, int]:
        """How many runs have not ended, in each workspace that has some."""
        ...

    async def run_messages(self, workspace_id: WorkspaceId, run_id: RunId) -> list[Message]:
        """The messages that a run wrote, in order."""
        ...

    async def messages_of_runs(self, workspace_id: WorkspaceId, run_ids: Sequence[RunId]) -> dict[RunId, list[Message]]:
        """The messages that each of these runs wrote, in order; those that wrote none are left out."""
        ...

    async def open_requests(self, workspace_id: WorkspaceId) -> list[PermissionRequest | QuestionBatch]:
        """What waits for a person's answer, in the order it was asked."""
        ...

    async def grants(self, workspace_id: WorkspaceId, session_id: SessionId) -> list[Grant]:
        """What a session may do without being asked again (R31)."""
        ...

    async def file_versions(self, workspace_id: WorkspaceId, session_id: SessionId) -> list[FileVersion]:
        """Every version of every file that a session has changed, in the order of writing."""
        ...

    async def file_reads(self, workspace_id: WorkspaceId, session_id: SessionId) -> list[FileRead]:
        """How a session has seen each file last, the last seen first."""
        ...

    async def file_read(self, workspace_id: WorkspaceId, session_id: SessionId, path: str) -> FileRead | None:
        """How a session has seen this file last."""
        ...

    async def latest_run_seq(self, workspace_id: WorkspaceId) -> int:
        """The highest accept number ever given in this workspace, or 0."""
        ...

    async def events_after(
        self,
        workspace_id: WorkspaceId,
        after: int,
        *,
        limit: int,
        run_id: RunId | None = None,
        max_bytes: int | None = None,
    ) -> list[Event]:
        """Durable events with a number above `after`, in order; those of one run if it is given (R28). They are fewer
        than there are if they would take more than `max_bytes`, but never none for that."""
        ...

    async def event_range(self, workspace_id: WorkspaceId) -> EventRange:
        """Which numbers can be read."""
        ...

    async def prune_events(self, workspace_id: WorkspaceId, *, before_us: int, keep: int, limit: int) -> int:
        """Forget the oldest events, those older than a moment, but never the newest `keep`, and at most `limit` of them
        or half a MiB; return how many went. What goes is always the beginning of the log."""
        ...

    async def settings(self, workspace_id: WorkspaceId | None) -> dict[str, str]:
        """Settings of a workspace, or the global ones."""
        ...

    async def workspaces_with(self, setting: str) -> set[WorkspaceId]:
        """The workspaces that have a setting of this name."""
        ...

    async def check_writable(self) -> None:
        """Return if a transaction can be written, in a bounded time; raise `StoreUnavailable` otherwise, and
        `StoreDamaged` once anything was found damaged."""
        ...


OpenStore = AbstractAsyncContextManager[Store]
