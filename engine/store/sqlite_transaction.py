"""What the writes of one change share: the open transaction, the numbers it gives, the events it makes."""

import sqlite3

from engine.errors import StoreError
from engine.records.event import Durable, Event
from engine.records.ids import RunId, SessionId, WorkspaceId
from engine.records.run import RunRecord
from engine.store import rows
from engine.store.protocol import Committed

_INSERT_EVENT = rows.insert("events", rows.EVENT_COLUMNS)


class EventNumbers:
    """The numbers that one transaction gives to its events, a workspace at a time (R27).

    It lives as long as the transaction, so there is nothing to put right when that is rolled back; what is rolled back
    inside it goes back to its mark.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._stored: dict[WorkspaceId, int] = {}
        self._given: dict[WorkspaceId, int] = {}

    def require(self, workspace_id: WorkspaceId) -> None:
        """Raise `StoreError` for a workspace that was never put."""
        if workspace_id in self._given:
            return
        row = self._db.execute("SELECT last_seq FROM workspaces WHERE id = ?", (workspace_id,)).fetchone()
        if row is None:
            raise StoreError(f"the store knows no workspace {workspace_id!r}; open it first")
        self._stored[workspace_id] = self._given[workspace_id] = row["last_seq"]

    def give(self, workspace_id: WorkspaceId) -> int:
        """The number of the next event."""
        self.require(workspace_id)
        self._given[workspace_id] += 1
        return self._given[workspace_id]

    def mark(self) -> dict[WorkspaceId, int]:
        """What is given so far, for `go_back`."""
        return self._given.copy()

    def go_back(self, mark: dict[WorkspaceId, int]) -> None:
        """Take back what was given since, and forget the workspaces that were met since: one may be rolled back."""
        self._given = mark

    def save(self) -> None:
        """Store what was given. The last thing before the commit."""
        for workspace_id, last in self._given.items():
            if last != self._stored[workspace_id]:
                self._db.execute("UPDATE workspaces SET last_seq = ? WHERE id = ?", (last, workspace_id))


class Writing:
    """One change being written: the writes put in it what they came to."""

    settled: RunRecord | None

    def __init__(self, db: sqlite3.Connection, numbers: EventNumbers, workspace_id: WorkspaceId, at_us: int) -> None:
        self.db = db
        self.workspace_id = workspace_id
        self.covered: list[RunId] = []
        self.settled = None
        self._numbers = numbers
        self.at_us = at_us
        self._events: list[Event] = []

    def require_workspace(self) -> None:
        """Raise `StoreError` if the workspace was never put."""
        self._numbers.require(self.workspace_id)

    def execute(self, statement: str, values: rows.Row) -> bool:
        """Run a statement with named parameters, `:workspace_id` always given; say whether it changed a row."""
        return self.db.execute(statement, {**values, "workspace_id": self.workspace_id}).rowcount > 0

    def row(self, statement: str, **values: rows.Value) -> sqlite3.Row | None:
        """The first row of a query, with `:workspace_id` given."""
        found: sqlite3.Row | None = self.db.execute(statement, {**values, "workspace_id": self.workspace_id}).fetchone()
        return found

    def rows(self, statement: str, **values: rows.Value) -> list[sqlite3.Row]:
        """Every row of a query, with `:workspace_id` given."""
        return self.db.execute(statement, {**values, "workspace_id": self.workspace_id}).fetchall()

    def emit(self, body: Durable, session_id: SessionId | None = None, run_id: RunId | None = None) -> None:
        """Append an event to the log, with the next number."""
        seq = self._numbers.give(self.workspace_id)
        event = Event(seq, self.workspace_id, self.at_us, body, run_id, session_id)
        self.db.execute(_INSERT_EVENT, rows.event_to_row(event))
        self._events.append(event)

    def outcome(self, applied: tuple[bool, ...]) -> Committed:
        """What it came to, if the transaction commits."""
        return Committed(applied, tuple(self._events), tuple(self.covered), self.settled)
