"""The disk of a schedule: the real SQLite store in memory, that lags, fails, stalls and dies where the scenario says.

One connection serves all schedules of a process, emptied in between: to make the schema, or to prepare its statements
again, would cost more than a whole schedule.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import TypeVar

import trio

from engine.errors import StoreUnavailable
from engine.records.change import Change
from engine.records.event import Event
from engine.records.ids import WorkspaceId
from engine.records.session import Session
from engine.store import rows
from engine.store.open import Database, open_memory
from engine.store.protocol import Committed
from engine.store.sqlite import SqliteStore
from engine.store.sqlite_writes import commit_changes
from tests.doubles.store import StoreDouble
from tests.explorer.scenario import Disk, session_id

T = TypeVar("T")

WORKSPACE = WorkspaceId("w")
DIRECTORY = "/"  # that of the workspace: one that exists everywhere, and that nobody touches


class Memory:
    """A database in memory that is used again and again."""

    def __init__(self) -> None:
        self._database: Database | None = None
        self._tables: tuple[str, ...] = ()  # each before those that it refers to

    def emptied(self) -> Database:
        """The database with its schema and no rows. A new one if the last schedule left a run without an ending."""
        if self._database is not None:
            try:
                for table in self._tables:
                    self._database.writer.execute(f"DELETE FROM {table}")
            except sqlite3.Error:
                self.forget()
        if self._database is None:
            self._database = open_memory()
            self._database.writer.execute("PRAGMA secure_delete = OFF")
            made = (
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid DESC"
            )
            self._tables = tuple(name for (name,) in self._database.writer.execute(made))
        held = ExitStack()
        return Database(self._database.path, self._database.writer, self._database.reader, held)

    def forget(self) -> None:
        """Begin with a new one."""
        if self._database is not None:
            self._database.close()
            self._database = None


def furnish(database: Database, sessions: int, *, is_kept: bool) -> None:
    """Put in what every scenario begins with: a workspace and its sessions."""
    db = database.writer
    db.execute("INSERT INTO workspaces (id, path, opened_at_us) VALUES (?, ?, 0)", (WORKSPACE, DIRECTORY))
    if is_kept:
        db.execute("INSERT INTO settings VALUES (?, 'workspace.kept', '1')", (WORKSPACE,))
    made = [
        rows.session_to_row(
            Session(id=session_id(each), workspace_id=WORKSPACE, title="", created_at_us=0, updated_at_us=0)
        )
        for each in range(sessions)
    ]
    db.executemany(rows.insert("sessions", rows.SESSION_COLUMNS), made)


class ExploredDisk(StoreDouble):
    """The store of one server. Every read and commit waits some turns of the scheduler before it is done, and some
    before its answer arrives. `on_commit` is told of every event in the step in which it becomes durable, `on_death` of
    the moment at which the server is to die; from then on nothing is written and nobody gets an answer."""

    def __init__(
        self,
        database: Database,
        disk: Disk,
        *,
        on_commit: Callable[[Sequence[Event]], None],
        on_death: Callable[[], None],
    ) -> None:
        reads = Reads(self)
        super().__init__(SqliteStore(database, reads, reads))
        self._database = database
        self._disk = disk
        self._on_commit = on_commit
        self._on_death = on_death
        self._before_commit, self._after_commit = cycle(disk.before_commit), cycle(disk.after_commit)
        self._before_read = cycle(disk.before_read)
        self._changes = 0  # that were asked for
        self.is_dead = False
        self.is_at_once = False  # nobody is there yet who could come in between
        self.has_failed = False
        self.has_stalled = False

    async def read(self, query: Callable[[], T]) -> T:
        """Read."""
        if not self.is_at_once:
            await self._pass(next(self._before_read))
        result = query()
        if not self.is_at_once:
            await self._pass(1)
        return result

    async def commit(self, changes: Sequence[Change]) -> list[Committed | Exception]:
        numbers = range(self._changes + 1, self._changes + len(changes) + 1)
        self._changes += len(changes)
        await self._pass(next(self._before_commit))
        if self._disk.stalls is not None and self._disk.stalls[0] in numbers:
            self.has_stalled = True
            await trio.sleep(self._disk.stalls[1])
            await self._pass(1)
        outcomes = self._write(numbers, changes)
        await self._pass(1 + next(self._after_commit))
        return outcomes

    def die(self) -> None:
        """Nothing more is written, and nobody gets an answer."""
        self.is_dead = True
        self._on_death()

    def _write(self, numbers: range, changes: Sequence[Change]) -> list[Committed | Exception]:
        at, is_after = self._disk.dies or (0, False)
        dies = at in numbers
        if dies and not is_after:
            self.die()
            return []
        first, count = self._disk.fails or (0, 0)
        failing = [first <= number < first + count for number in numbers]
        self.has_failed |= any(failing)
        good = tuple(change for change, fails in zip(changes, failing, strict=True) if not fails)
        written = commit_changes(self._database.writer, self._database.path, good) if good else []
        for outcome in written:
            if isinstance(outcome, Committed):
                self._on_commit(outcome.events)
        if dies:
            self.die()
        left = iter(written)
        return [StoreUnavailable("the disk is full, says the scenario") if fails else next(left) for fails in failing]

    async def _pass(self, turns: int) -> None:
        """Let others run so many turns; for ever, if the server is dead."""
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        if self.is_dead:
            await trio.sleep_forever()


class Reads:
    """Implements `engine.store.sqlite_thread.Runner` for the reads of a disk."""

    def __init__(self, disk: ExploredDisk) -> None:
        self._disk = disk

    async def run(self, work: Callable[[], T]) -> T:
        """Read."""
        return await self._disk.read(work)
