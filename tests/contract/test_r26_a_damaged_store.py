"""R26: a damaged page, wherever it is, is a clear error at the start or at the request that met it. What it does not
concern goes on, and each run that was accepted ends."""

import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from engine.backend import Backend, NewWorkspace, open_backend
from engine.errors import StoreDamaged, StoreError
from engine.records.ids import RunId, SessionId
from engine.records.run import Prompt, RunState
from engine.runs.answering import first_leaf
from engine.settings import EngineSettings
from engine.store.open import open_memory
from engine.store.protocol import Store
from engine.store.sqlite import SqliteStore
from engine.store.sqlite_thread import InlineRunner
from engine.workspace import Workspace
from tests.doubles.engine import ScriptedAgent
from tests.doubles.stored import stored_bytes

SETTINGS = EngineSettings(data_dir=None, settle_s=1.0, unwind_s=1.0, accept_s=5.0)
BOUND_S = 300.0  # virtual seconds for all that a test does
SEEDS = 12


def places() -> list[str]:
    """Every table and index."""
    database = open_memory()
    names = [row["name"] for row in database.reader.execute("SELECT name FROM sqlite_schema WHERE rootpage > 0")]
    database.close()
    return [*names, "sqlite_schema"]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that was worked in."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def stored(work: Path) -> bytes:
    """A store with every kind of run in it."""
    return stored_bytes(work)


def page_of(stored: bytes, name: str) -> tuple[int, int]:
    """Where the root page of a table or an index begins, and its size."""
    db = sqlite3.connect(":memory:")
    db.deserialize(stored)
    (size,) = db.execute("PRAGMA page_size").fetchone()
    row = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    db.close()
    return ((row[0] if row else 1) - 1) * size, size


def torn(stored: bytes, begin: int, end: int) -> bytes:
    """The store with these bytes overwritten."""
    return stored[:begin] + b"\xff" * (end - begin) + stored[end:]


def damaged_store(content: bytes) -> Callable[[Path | None], AbstractAsyncContextManager[Store]]:
    """Opens a store in memory with this content."""

    @asynccontextmanager
    async def open_damaged(data_dir: Path | None) -> AsyncIterator[Store]:
        await trio.lowlevel.checkpoint()
        database = open_memory()
        database.writer.deserialize(content)
        store = SqliteStore(database, InlineRunner(), InlineRunner())
        try:
            yield store
        finally:
            database.close()

    return open_damaged


class Visit:
    """Somebody who asks a server for everything, and notes what it answers."""

    def __init__(self) -> None:
        self.refused: dict[str, StoreError] = {}
        self.accepted: dict[str, RunState] = {}

    async def try_to(self, name: str, call: Callable[[], Awaitable[object]]) -> None:
        """A call may be refused by the store, and for nothing else."""
        try:
            await call()
        except StoreError as error:
            self.refused[name] = error

    async def look_around(self, backend: Backend, work: Path) -> None:
        """Ask for everything there is, and send a prompt to each session."""
        await self.try_to("start", lambda: self._visit(backend, work))
        await self.try_to("ready", backend.check_ready)

    async def _visit(self, backend: Backend, work: Path) -> None:
        workspace = await backend.create_workspace(NewWorkspace(path=str(work)))
        store, id = backend.store, workspace.id
        await self.try_to("runs", workspace.runs)
        await self.try_to("events", lambda: store.events_after(id, 0, limit=1000))
        await self.try_to("settings", lambda: store.settings(id))
        await self.try_to("a new session", lambda: self._send_to_new(workspace))
        for session in await store.sessions(id):
            await self.try_to("messages", partial(store.messages, id, session.id))
            await self.try_to("a prompt", partial(self._send, workspace, session.id))
        for run_id in ("active", "queued"):
            await self.try_to(run_id, partial(workspace.wait_run, run_id, 30))
        await self.try_to("a cancel", lambda: workspace.cancel_session("s"))

    async def _send_to_new(self, workspace: Workspace) -> None:
        session = await workspace.sessions.create("new")
        await self._send(workspace, session.id)

    async def _send(self, workspace: Workspace, session_id: SessionId) -> None:
        accepted = await workspace.accept(Prompt(session_id=session_id, text="hi"))
        self.accepted[accepted.run.id] = RunState.ACCEPTED
        self.accepted[accepted.run.id] = (await workspace.wait_run(accepted.run.id, 30)).state


async def visit(content: bytes, work: Path) -> tuple[Visit, BaseException | None]:
    """Open an engine over a store with this content, look around, and leave; what kept it from starting, if anything
    did."""
    visitor, failures = Visit(), list[BaseException]()
    with trio.fail_after(BOUND_S):
        try:
            async with open_backend(
                SETTINGS, environ={}, agent=ScriptedAgent(), open_store=damaged_store(content)
            ) as backend:
                await visitor.look_around(backend, work)
        except* StoreError as group:
            failures.append(first_leaf(group))
    return visitor, failures[0] if failures else None


def check_told(error: BaseException) -> None:
    """What happened, to which file, and what to do."""
    assert isinstance(error, StoreDamaged), error
    told = (
        ":memory: is damaged; stop the server and restore it from a backup",
        "a row in :memory: cannot be understood",
    )
    assert any(each in str(error) for each in told), error


@pytest.mark.parametrize("place", places())
async def test_r26_damaged_page_is_told_where_it_is_met(
    place: str, stored: bytes, work: Path, autojump_clock: object
) -> None:
    begin, size = page_of(stored, place)
    visitor, failure = await visit(torn(stored, begin + (100 if begin == 0 else 0), begin + size), work)
    if failure is not None:
        check_told(failure)
        return
    for error in visitor.refused.values():
        check_told(error)
    if visitor.refused:
        assert "ready" in visitor.refused, "who asks whether it is ready is told"
    for run_id, state in visitor.accepted.items():
        assert state.is_terminal, f"run {run_id} is still {state}"


async def test_r26_store_that_is_whole_is_not_called_damaged(stored: bytes, work: Path, autojump_clock: object) -> None:
    visitor, failure = await visit(stored, work)
    assert failure is None
    assert visitor.refused == {}
    assert set(visitor.accepted.values()) == {RunState.COMPLETED}


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_r26_damage_anywhere_stops_no_run_and_no_server(
    seed: int, stored: bytes, work: Path, autojump_clock: object
) -> None:
    dice = random.Random(seed)
    content = stored
    for _ in range(3):
        begin = dice.randrange(100, len(stored) - 64)
        content = torn(content, begin, begin + dice.randrange(1, 64))
    visitor, failure = await visit(content, work)
    assert failure is None or isinstance(failure, StoreError)
    for run_id, state in visitor.accepted.items():
        # Where not even the bare fact of an ending can be written, it waits for a backup.
        assert state.is_terminal or "ready" in visitor.refused, f"run {run_id} is still {state}"


async def test_r26_run_whose_words_cannot_be_stored_ends_and_says_why(
    stored: bytes, work: Path, autojump_clock: object
) -> None:
    begin, size = page_of(stored, "messages")
    async with open_backend(
        SETTINGS, environ={}, agent=ScriptedAgent(), open_store=damaged_store(torn(stored, begin, begin + size))
    ) as backend:
        workspace = await backend.create_workspace(NewWorkspace(path=str(work)))
        session = await workspace.sessions.create("new")
        accepted = await workspace.accept(Prompt(session_id=session.id, text="hi", run_id=RunId("r")))
        run = await workspace.wait_run(accepted.run.id, 30)
        assert run.state is RunState.FAILED
        assert run.error is not None
        assert run.error.type == "store"
        events = await backend.store.events_after(workspace.id, 0, limit=1000, run_id=RunId("r"))
        assert [event.body.__struct_config__.tag for event in events][-1] == "run_completed"
