"""A store that has seen much: turns that the engine has played once, and copies of their rows, made by SQLite itself.

    store = FilledStore(data_dir, workspaces=16)
    await store.begin(directory)
    store.add_ended(100_000)
    store.add_unfinished(1_000)

A copy has ids and numbers of its own, also inside of what is JSON; its texts and moments are those of the turn that was
played. A million runs take some minutes. Of the events each workspace has the latest alone, as after pruning.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from engine.backend import Backend, NewWorkspace, open_backend
from engine.records.ids import RunId, SessionId, WorkspaceId, new_request_id
from engine.records.permission import Decision, PermissionRequest
from engine.records.run import Prompt
from engine.settings import EngineSettings
from engine.store import rows
from engine.store.open import DATABASE
from engine.workspace import Workspace

MODEL = "offline/script"
WORDS = "The parser reads a line at a time, and gives each to whoever asked for it. "
ANSWERED = f'Rename the parser.\n```script\n[[{{"text": "{WORDS * 2}"}}]]\n```'
LEFT = f'Rename the parser.\n```script\n[[{{"text": "{WORDS * 2}"}}, {{"hang": true}}]]\n```'
PER_SESSION = 20  # ended runs
CACHE_KB = 1 << 20
BEGIN_S = 60.0
ODD = 2654435761  # its multiples are all different in 32 bits, and in no order: as ids are

Row = dict[str, rows.Value]


@dataclass(frozen=True)
class Played:
    """A run that the engine has played, and the rows that it wrote."""

    session: Row
    run: Row
    messages: list[Row]
    events: list[Row]
    requests: list[Row]

    @property
    def ids(self) -> list[str]:
        """Those that a copy has anew, but for the session's."""
        return [str(row["id"]) for row in (self.run, *self.messages, *self.requests)]


@dataclass
class Copies:
    """Where copies go: the numbers of the first, and from one to the next."""

    workspace_id: str
    count: int
    seq: int
    seq_step: int
    session: int  # the number of the first session
    per_session: int
    event: int
    event_step: int
    events_of: int  # so many of the copies, the last, still have their events


@dataclass
class FilledStore:
    """The store in a data directory; nobody else may have it open while it is filled."""

    data_dir: Path
    workspaces: int = 16
    events_kept: int = 10_000  # of each workspace
    ids: list[str] = field(default_factory=list)  # of the workspaces
    _played: dict[str, Played] = field(default_factory=dict)
    _sessions: int = 0  # made in each workspace

    @property
    def path(self) -> Path:
        """The database."""
        return self.data_dir / DATABASE

    async def begin(self, directory: Path) -> None:
        """Make the workspaces, in this directory, and play what is copied."""
        settings = EngineSettings(data_dir=self.data_dir)
        async with open_backend(settings, environ={}) as backend:
            for number in range(self.workspaces):
                await trio.Path(directory / f"project-{number}").mkdir()
                opened = await backend.create_workspace(NewWorkspace(path=str(directory / f"project-{number}")))
                self.ids.append(opened.id)
            with trio.fail_after(BEGIN_S):
                await self._play(backend, backend.workspaces()[0])

    async def _play(self, backend: Backend, workspace: Workspace) -> None:
        session = await workspace.sessions.create("the parser")
        ended = await self._send(workspace, session.id, ANSWERED)
        await workspace.wait_run(ended, BEGIN_S)
        self._played["ended"] = with_request(self._read(ended))
        session = await workspace.sessions.create("left alone")
        active = await self._send(workspace, session.id, LEFT)
        while not any(map(_has_words, self._read(active).messages[1:])):  # noqa: ASYNC110
            await trio.sleep(0.05)  # the store has no bell
        queued = await self._send(workspace, session.id, ANSWERED)
        while (await workspace.run(queued)).state != "queued":  # noqa: ASYNC110
            await trio.sleep(0.05)
        await backend.log.wait_drained()
        self._played |= {"active": self._read(active), "queued": self._read(queued)}
        await workspace.cancel_session(session.id)
        await workspace.wait_run(queued, BEGIN_S)

    async def _send(self, workspace: Workspace, session_id: SessionId, text: str) -> str:
        return (await workspace.accept(Prompt(session_id=session_id, text=text, model=MODEL))).run.id

    def _read(self, run_id: str) -> Played:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            (run,) = map(dict, db.execute("SELECT * FROM runs WHERE id = ?", (run_id,)))
            (session,) = map(dict, db.execute("SELECT * FROM sessions WHERE id = ?", (run["session_id"],)))
            messages = map(dict, db.execute("SELECT * FROM messages WHERE run_id = ? ORDER BY position", (run_id,)))
            events = map(dict, db.execute("SELECT * FROM events WHERE run_id = ? ORDER BY seq", (run_id,)))
            return Played(session, run, list(messages), list(events), [])

    def add_ended(self, count: int) -> None:
        """So many more runs that have ended, shared by the workspaces."""
        played = self._played["ended"]
        with self._filling() as db:
            for workspace_id, share in self._shares(count):
                kept = min(share, self.events_kept // len(played.events))
                seq, event = self._numbers(db, workspace_id)
                step = len(played.events)
                copies = Copies(workspace_id, share, seq, 1, self._sessions, PER_SESSION, event, step, kept)
                self._copy_session(db, played, copies, PER_SESSION * len(played.messages))
                self._copy(db, played, copies)
                self._number(db, workspace_id, seq + share, event + kept * step)
            self._sessions += count // PER_SESSION + 1

    def add_unfinished(self, count: int) -> None:
        """So many runs that a killed server has left: in each session one in the middle of its turn, and one behind
        it. The configuration of that server would have allowed so many active ones."""
        active, queued = self._played["active"], self._played["queued"]
        step = len(active.events) + len(queued.events)
        with self._filling() as db:
            for workspace_id, share in self._shares(count // 2):
                seq, event = self._numbers(db, workspace_id)
                first = Copies(workspace_id, share, seq, 2, self._sessions, 1, event, step, share)
                second = Copies(
                    workspace_id, share, seq + 1, 2, self._sessions, 1, event + len(active.events), step, share
                )
                self._copy_session(db, active, first, len(active.messages))
                self._copy(db, active, first)
                self._copy(db, queued, second)
                self._number(db, workspace_id, seq + 2 * share, event + share * step)
            self._sessions += count

    def count_unfinished(self) -> int:
        """How many runs have not ended, also while a server works on it."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            query = "SELECT count(*) FROM runs WHERE state IN ('accepted', 'queued', 'active')"
            return int(db.execute(query).fetchone()[0])

    def latest_event(self) -> int:
        """The number of the last event of the first workspace."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as db:
            return self._numbers(db, self.ids[0])[1] - 1

    def forget_pages(self) -> None:
        """Have the system forget what it holds of the file in memory, so that the next start reads the disk."""
        file = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)

    def _shares(self, count: int) -> Iterator[tuple[str, int]]:
        for number, workspace_id in enumerate(self.ids):
            if share := count // self.workspaces + (number < count % self.workspaces):
                yield workspace_id, share

    @contextmanager
    def _filling(self) -> Iterator[sqlite3.Connection]:
        """A connection that is fast and safe from nothing. A run begins as accepted (R02); a copy does not."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            for pragma in ("journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF"):
                db.execute(f"PRAGMA {pragma}")
            db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
            (trigger,) = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'runs_begin_accepted'").fetchone()
            db.execute("BEGIN")
            db.execute("DROP TRIGGER runs_begin_accepted")
            yield db
            db.execute(trigger)
            db.execute("COMMIT")
            db.execute("PRAGMA journal_mode = WAL")

    def _numbers(self, db: sqlite3.Connection, workspace_id: str) -> tuple[int, int]:
        """The next of a run and of an event."""
        query = "SELECT last_run_seq + 1, last_seq + 1 FROM workspaces WHERE id = ?"
        run, event = db.execute(query, (workspace_id,)).fetchone()
        return run, event

    def _number(self, db: sqlite3.Connection, workspace_id: str, seq: int, event: int) -> None:
        statement = "UPDATE workspaces SET last_run_seq = ?, last_seq = ? WHERE id = ?"
        db.execute(statement, (seq - 1, event - 1, workspace_id))

    def _copy_session(self, db: sqlite3.Connection, played: Played, copies: Copies, messages: int) -> None:
        count = (copies.count + copies.per_session - 1) // copies.per_session
        row = {**played.session, "message_count": messages}
        rest = copies.count % copies.per_session
        _insert(db, "sessions", row, played, copies, f"value < {count}", {})
        if rest:  # the last one has fewer
            last = _session_id(played, copies.session + count - 1)
            statement = "UPDATE sessions SET message_count = ? WHERE workspace_id = ? AND id = ?"
            db.execute(statement, (messages * rest // copies.per_session, copies.workspace_id, last))

    def _copy(self, db: sqlite3.Connection, played: Played, copies: Copies) -> None:
        seq = f"{copies.seq} + value * {copies.seq_step}"
        every = f"value < {copies.count}"
        _insert(db, "runs", played.run, played, copies, every, {"seq": seq})
        for message in played.messages:
            row = {name: value for name, value in message.items() if name != "position"}
            _insert(db, "messages", row, played, copies, every, {"turn": seq})
        for request in played.requests:
            _insert(db, "requests", request, played, copies, every, {})
        gone = copies.count - copies.events_of
        for place, event in enumerate(played.events):
            number = f"{copies.event + place} + (value - {gone}) * {copies.event_step}"
            _insert(db, "events", event, played, copies, f"{every} AND value >= {gone}", {"seq": number})


def with_request(played: Played) -> Played:
    """The run, with a permission that was asked for and given."""
    request = PermissionRequest(
        id=new_request_id(), session_id=SessionId(str(played.run["session_id"])), run_id=RunId(str(played.run["id"])),
        tool_call_id="call_1", tool_name="bash", action="execute", path="/home/ann/project", params={"command": "make"},
    )  # fmt: skip
    began, ended = played.run["started_at_us"], played.run["ended_at_us"]
    assert isinstance(began, int)
    row = rows.request_to_row(WorkspaceId(str(played.run["workspace_id"])), request, began)
    answered = {**row, "decision": Decision.ALLOW.value, "resolved_at_us": ended}
    return Played(played.session, played.run, played.messages, played.events, [answered])


def _has_words(message: Row) -> bool:
    parts = message["parts"]
    assert isinstance(parts, bytes)
    return WORDS.encode() in parts


def _session_id(played: Played, number: int) -> str:
    return f"{number * ODD & 0xFFFFFFFF:08x}{str(played.session['id'])[8:]}"


def _insert(
    db: sqlite3.Connection, table: str, row: Row, played: Played, copies: Copies, where: str, numbers: dict[str, str]
) -> None:
    """Insert a copy of the row for each `value` that there is."""
    seq = f"({copies.seq} + value * {copies.seq_step})"
    # The rows of sessions are counted by themselves.
    session = f"({copies.session} + value{f' / {copies.per_session}' if table != 'sessions' else ''})"
    anew = {old: _scrambled(old, seq) for old in played.ids}
    anew[str(played.session["id"])] = _scrambled(str(played.session["id"]), session)
    anew[str(played.run["workspace_id"])] = f"'{copies.workspace_id}'"
    anew[f'"seq":{played.run["seq"]!r},'] = f"""'"seq":' || {seq} || ','"""
    columns = {name: numbers.get(name) or _copied(name, value, anew) for name, value in row.items()}
    statement = (
        "WITH RECURSIVE counted(value) AS (VALUES (0) UNION ALL SELECT value + 1 FROM counted WHERE value + 1 <"
        f" {copies.count}) INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM counted"
        f" WHERE {where}"
    )
    db.execute(statement, row)


def _scrambled(old: str, number: str) -> str:
    """A new id, made of a number and an old one."""
    return f"printf('%08x', ({number} * {ODD}) & 4294967295) || '{old[8:]}'"


def _copied(name: str, value: rows.Value, anew: dict[str, str]) -> str:
    """The value, with everything new in it that it holds."""
    text = bytes(value).decode() if isinstance(value, bytes) else value if isinstance(value, str) else ""
    copied = f"CAST(:{name} AS TEXT)"
    for old, new in anew.items():
        if old in text:
            copied = f"replace({copied}, '{old}', {new})"
    if copied.startswith("CAST"):
        return f":{name}"
    return f"CAST({copied} AS BLOB)" if isinstance(value, bytes) else copied
