"""What the points are put into: the places in a running server where it can be made to kill itself."""

import os
import resource
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import msgspec
import trio

from engine.records.change import Change
from engine.records.ids import RunId, WorkspaceId
from engine.records.message import Message
from engine.records.run import RunRecord
from engine.store.open import DATABASE
from engine.store.protocol import Committed, Store
from engine.tools.toolbox import OpenTools, ToolSeams, open_toolbox
from tests.doubles.store import StoreDouble
from tests.doubles.tools import SleepTool


class Countdown:
    """Kills this process at the `at`-th call of `count` after it was armed."""

    def __init__(self, at: int, *, is_armed: bool) -> None:
        self.left = at
        self.is_armed = is_armed

    def arm(self) -> None:
        """Count from now on."""
        self.is_armed = True

    def count(self) -> None:
        """The point is passed once more."""
        if self.is_armed:
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def pass_by(self, _: object) -> None:
        """The same, for a seam that is awaited."""
        self.count()
        await trio.lowlevel.checkpoint()


@dataclass
class Seams:
    """What a server of the harness is opened with."""

    data_dir: Path
    wrap_store: Callable[[Store], Store] | None = None
    before_entry: Callable[[object], Awaitable[None]] | None = None

    def soon(self, call: Callable[[], None]) -> Callable[[], None]:
        """The call, put off until Trio's next pass."""
        return lambda: trio.lowlevel.current_trio_token().run_sync_soon(call)


@asynccontextmanager
async def open_tools(seams: ToolSeams) -> AsyncIterator[OpenTools]:
    """The built-in tools, and one that takes some time."""
    async with open_toolbox(seams) as opened:
        yield msgspec.structs.replace(opened, tools={**opened.tools, SleepTool.name: SleepTool()})


def nothing() -> None:
    """Not here."""


class DyingStore(StoreDouble):
    """Calls before and after each commit with a picked change, and before each read of what is to be taken up."""

    def __init__(
        self,
        store: Store,
        picks: Callable[[Change], bool],
        *,
        before: Callable[[], None] = nothing,
        after: Callable[[], None] = nothing,
        reading: Callable[[], None] = nothing,
    ) -> None:
        super().__init__(store)
        self.picks = picks
        self.before = before
        self.after = after
        self.reading = reading

    async def commit(self, changes: Sequence[Change]) -> list[Committed | Exception]:
        is_picked = any(map(self.picks, changes))
        if is_picked:
            self.before()
        outcomes = await self.inner.commit(changes)
        if is_picked:
            self.after()
        return outcomes

    async def unsettled_runs(
        self, workspace_id: WorkspaceId, *, after: int = 0, limit: int | None = None
    ) -> list[RunRecord]:
        self.reading()
        return await self.inner.unsettled_runs(workspace_id, after=after, limit=limit)

    async def messages_of_runs(self, workspace_id: WorkspaceId, run_ids: Sequence[RunId]) -> dict[RunId, list[Message]]:
        self.reading()
        return await self.inner.messages_of_runs(workspace_id, run_ids)


def trace_statements(on_statement: Callable[[str], None]) -> None:
    """Call before each SQL statement, on the thread that runs it, from the opening of the database on."""

    class Traced(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.set_trace_callback(on_statement)

    # For good: this process dies of it.
    sqlite3.connect = partial(sqlite3.connect, factory=Traced)  # type: ignore[assignment]


def trace_processes(on_start: Callable[[], None]) -> None:
    """Call before each start of a process."""
    sys.addaudithook(lambda event, _: on_start() if event == "subprocess.Popen" else None)


def trace_calls(module: ModuleType, on_call: Callable[[], None]) -> None:
    """Call before and after whatever a module calls that is not Python, on the threads that start from now on."""

    def trace(frame: FrameType, event: str, _: object) -> None:
        if event.startswith("c_") and frame.f_code.co_filename == module.__file__:
            on_call()

    threading.setprofile(trace)


def limit_files(countdown: Countdown, seams: Seams, *, unit_bytes: int) -> None:
    """Once armed, let the log of the database grow by so many units, and not by a byte more: the write that would is
    done in part, and is the last."""

    def limit() -> None:
        if countdown.is_armed and countdown.left:
            size = (seams.data_dir / f"{DATABASE}-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + countdown.left * unit_bytes, resource.RLIM_INFINITY))
            countdown.left = 0

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    seams.wrap_store = lambda store: DyingStore(store, lambda _: True, before=limit)
