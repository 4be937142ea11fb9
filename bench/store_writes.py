"""What do group commit and the batched reader give, beside a transaction for each write and a thread for each read?

The engine's own store on disk, with synchronous=FULL. A write is what accepting a prompt writes: a run and its event.
Group commit is the engine's log: whatever waits shares one transaction. Beside it every write is a transaction of its
own, on the same thread and the same connection. Reads are a run by its id, and fifty events of the log; beside the one
reader thread, which answers whatever waits with one wake-up, a pool of four threads with a connection each.
"""

import argparse
import sqlite3
import sys
import tempfile
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it can be run as a script, too

from bench import harness
from engine.clock import Clock
from engine.events.local_bus import LocalBus
from engine.events.log import EventLog
from engine.records.change import AcceptRun, Change, CreateSession, PutWorkspace
from engine.records.ids import RunId, SessionId, WorkspaceId
from engine.records.run import Prompt
from engine.records.session import Session
from engine.runs.acceptance import new_run
from engine.store import sqlite_reads as reads
from engine.store.open import DATABASE
from engine.store.protocol import Store
from engine.store.sqlite import open_sqlite_store

WORKSPACE = WorkspaceId("bench")
SESSION = SessionId("session")
POOL = 4  # threads, of the way that is compared with
EVENTS = 50  # of a read of the log
TURNS = 3  # in which two ways are measured, one after the other

Work = Callable[[], Awaitable[object]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 16, 256], help="at a time, in each round")
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 16, 64], help="at a time, in each round")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")


async def measure(options: argparse.Namespace, report: harness.Report) -> None:
    """Measure writing, then reading what was written."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_sqlite_store(Path(directory)) as store, trio.open_nursery() as nursery:
            log = EventLog(store, LocalBus())
            await nursery.start(log.run)
            writes = Writes(store, log)
            await writes.begin()
            await measure_writes(writes, options, report)
            await measure_reads(store, Path(directory), options, report)
            log.close()


class Writes:
    """Changes to write, each another one, and two ways to write one."""

    def __init__(self, store: Store, log: EventLog) -> None:
        self._store = store
        self._log = log
        self._numbers = count(1)
        self._now_us = Clock().now_us

    async def begin(self) -> None:
        """The rows that runs refer to."""
        at_us = self._now_us()
        session = Session(id=SESSION, workspace_id=WORKSPACE, title="bench", created_at_us=at_us, updated_at_us=at_us)
        rows = (PutWorkspace(WORKSPACE, "/nowhere", at_us), CreateSession(session))
        await self._log.commit(Change(WORKSPACE, at_us, rows))

    async def together(self) -> None:
        """By the log: with whatever else waits."""
        await self._log.commit(self._change())

    async def alone(self) -> None:
        """In a transaction of its own."""
        await self._store.commit([self._change()])

    def _change(self) -> Change:
        number, at_us = next(self._numbers), self._now_us()
        prompt = Prompt(session_id=SESSION, text="Rename the parser", run_id=RunId(f"run-{number}"))
        run = new_run(prompt, workspace_id=WORKSPACE, seq=number, at_us=at_us)
        return Change(WORKSPACE, at_us, (AcceptRun(run, "hash"),))


async def measure_writes(writes: Writes, options: argparse.Namespace, report: harness.Report) -> None:
    """Both ways, with the same number of writers."""
    table = report.table("Durable writes", "writers", "together a second", "p50 ms", "p99 ms", "alone a second",
                         "p50 ms", "p99 ms", "together / alone")  # fmt: skip
    await trio.lowlevel.checkpoint()
    for writers in options.writers:
        together, alone = await repeat_both(writes.together, writes.alone, writers, options.seconds)
        table.add(
            writers, round(len(together) / options.seconds), *harness.spread(together)[:2],
            round(len(alone) / options.seconds), *harness.spread(alone)[:2], harness.ratio(len(together), len(alone)),
        )  # fmt: skip


async def measure_reads(store: Store, directory: Path, options: argparse.Namespace, report: harness.Report) -> None:
    """Both ways, with the same number of readers."""
    await trio.lowlevel.checkpoint()
    pool = Pool(directory / DATABASE)
    table = report.table("Reads", "what", "readers", "one thread a second", "p50 ms", "p99 ms",
                         f"{POOL} threads a second", "p50 ms", "p99 ms", "one / pool")  # fmt: skip
    run_id = RunId("run-1")
    kinds: dict[str, tuple[Work, Work]] = {
        "a run": (lambda: store.run(WORKSPACE, run_id), lambda: pool.read(reads.run, WORKSPACE, run_id)),
        f"{EVENTS} events": (
            lambda: store.events_after(WORKSPACE, 10, limit=EVENTS),
            lambda: pool.read(reads.events_after, WORKSPACE, 10, EVENTS, None),
        ),
    }
    for what, (batched, pooled) in kinds.items():
        for readers in options.readers:
            one, many = await repeat_both(batched, pooled, readers, options.seconds)
            table.add(
                what, readers, round(len(one) / options.seconds), *harness.spread(one)[:2],
                round(len(many) / options.seconds), *harness.spread(many)[:2], harness.ratio(len(one), len(many)),
            )  # fmt: skip
    pool.close()


class Pool:
    """Connections that are read from on Trio's threads."""

    def __init__(self, path: Path) -> None:
        self._limiter = trio.CapacityLimiter(POOL)
        self._free = [sqlite3.connect(path, check_same_thread=False, isolation_level=None) for _ in range(POOL)]
        for connection in self._free:
            connection.row_factory = sqlite3.Row

    async def read(self, query: Callable[..., object], *arguments: object) -> object:
        """Run the query on a thread, with a connection that nobody else uses."""
        async with self._limiter:
            connection = self._free.pop()
            try:
                return await trio.to_thread.run_sync(query, connection, *arguments)
            finally:
                self._free.append(connection)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._free:
            connection.close()


async def repeat_both(first: Work, second: Work, tasks: int, seconds: float) -> tuple[list[float], list[float]]:
    """Both in turns, so that whatever else the machine does falls on both."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        found[0].extend(await repeat(first, tasks, seconds / TURNS))
        found[1].extend(await repeat(second, tasks, seconds / TURNS))
    await trio.lowlevel.checkpoint()
    return found


async def repeat(work: Work, tasks: int, seconds: float) -> list[float]:
    """How long each took, of what so many tasks did again and again, for so long."""
    took: list[float] = []
    end = trio.current_time() + seconds

    async def again() -> None:
        while (began := trio.current_time()) < end:
            await work()
            took.append(trio.current_time() - began)
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(again)
    return took


if __name__ == "__main__":
    harness.run_script(__name__)
