"""The store as a whole: its two forms, its end, and what a crash leaves."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from engine.errors import StoreDamaged, StoreFull, StoreLocked, StoreUnavailable
from engine.records.change import CreateMessage
from engine.records.ids import RunId
from engine.records.run import RunState
from engine.store.open import DATABASE
from engine.store.protocol import OpenStore, Store
from engine.store.sqlite import READY_SECONDS, open_sqlite_store
from tests.doubles.store_faults import damage_page, fill_disk, free_disk, root_page
from tests.engine.store.samples import (
    S,
    W,
    accept,
    cancel,
    change,
    committed,
    kinds,
    make_run,
    make_workspace,
    message,
    numbers,
    write,
)

T = TypeVar("T")

SECONDS = 30


def forms(tmp_path: Path) -> dict[str, OpenStore]:
    return {
        "threads": open_sqlite_store(tmp_path / "threads"),
        "inline": open_sqlite_store(tmp_path / "inline", inline=True),
        "memory": open_sqlite_store(None),
    }


@pytest.mark.parametrize("form", ["threads", "inline", "memory"])
async def test_an_error_of_the_body_is_let_through_as_it_is(form: str, tmp_path: Path) -> None:
    async def fail() -> None:
        async with forms(tmp_path)[form] as store:
            await make_workspace(store)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_no_thread_outlives_the_store_whatever_it_is_left_by(tmp_path: Path) -> None:
    before = threading.active_count()
    with trio.move_on_after(0.01) as scope:
        async with open_sqlite_store(tmp_path):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    # Trio keeps an idle worker for a while; one that still works for the store would hold the lock.
    async with open_sqlite_store(tmp_path) as store:
        await make_workspace(store)
    assert threading.active_count() <= before + 3


@pytest.mark.parametrize("inline", [True, False], ids=["inline", "threads"])
@pytest.mark.parametrize("steps", range(5))
async def test_opening_that_is_canceled_leaves_nothing_open(tmp_path: Path, inline: bool, steps: int) -> None:
    async def open_and_stay() -> None:
        async with open_sqlite_store(tmp_path, inline=inline):
            await trio.sleep_forever()

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_and_stay)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        async with open_sqlite_store(tmp_path, inline=inline):
            pass


async def test_r26_a_second_open_in_one_process_is_refused(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path):
        with pytest.raises(StoreLocked, match=str(os.getpid())):
            async with open_sqlite_store(tmp_path):
                pass  # pragma: no cover


async def test_what_was_committed_is_there_after_opening_again(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path) as store:
        await make_workspace(store)
        await make_run(store, "r")
        before = await store.events_after(W, 0, limit=99)
    async with open_sqlite_store(tmp_path) as store:
        after = await store.events_after(W, 0, limit=99)
        assert [(e.seq, e.body, e.run_id, e.session_id, e.at_us) for e in after] == [
            (e.seq, e.body, e.run_id, e.session_id, e.at_us) for e in before
        ]
        committed = await write(store, cancel("r"))
        assert numbers(committed.events) == [len(before) + 1], "numbers go on where they were"


@pytest.mark.parametrize("form", ["threads", "inline", "memory"])
async def test_r26_a_store_that_was_left_says_so(form: str, tmp_path: Path) -> None:
    async with forms(tmp_path)[form] as store:
        await make_workspace(store)
    (outcome,) = await store.commit([change(CreateMessage(message("m")))])
    assert isinstance(outcome, StoreUnavailable)
    assert "closed" in str(outcome)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.sessions(W)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.check_writable()


async def test_r26_damage_met_by_a_read_is_a_clear_error_and_the_store_is_not_ready_any_more(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path, inline=True) as store:
        await make_workspace(store)
        await write(store, CreateMessage(message("m")))
        store._database.writer.execute("UPDATE messages SET parts = x'00'")
        await store.check_writable()
        with pytest.raises(StoreDamaged, match="cannot be understood; countermand check says which"):
            await store.messages(W, S)
        assert (await store.session(W, S)) is not None, "what is not damaged can be read"
        await write(store, CreateMessage(message("n")))
        for _ in range(2):
            with pytest.raises(StoreDamaged, match="cannot be understood"):
                await store.check_writable()


async def test_r26_a_damaged_page_fails_what_is_written_to_it_and_nothing_else(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path) as store:
        await make_workspace(store)
        await write(store, CreateMessage(message("m")))
    damage_page(tmp_path / DATABASE, root_page(tmp_path / DATABASE, "messages"))
    async with open_sqlite_store(tmp_path) as store:
        await store.check_writable()
        written, refused, after = await store.commit(
            [change(accept("r")), change(CreateMessage(message("n"))), change(cancel("r"))]
        )
        assert numbers(committed(written).events) == [3]
        assert isinstance(refused, StoreDamaged)
        assert numbers(committed(after).events) == [4], "and no number is lost"
        with pytest.raises(StoreDamaged, match="is damaged"):
            await store.check_writable()


async def test_r26_a_full_disk_fails_what_it_has_no_room_for_until_there_is_some(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path, inline=True) as store:
        await make_workspace(store)
        fill_disk(store._database.writer)
        book = change(CreateMessage(message("m", "words " * 100_000)))
        (outcome,) = await store.commit([book])
        assert isinstance(outcome, StoreFull)
        assert (await store.session(W, S)) is not None
        assert (await store.messages(W, S)) == []
        free_disk(store._database.writer)
        (outcome,) = await store.commit([book])
        assert numbers(committed(outcome).events) == [2]


async def test_r26_what_is_written_to_a_file_that_was_moved_is_refused_until_it_is_back(tmp_path: Path) -> None:
    async with open_sqlite_store(tmp_path, inline=True) as store:
        await make_workspace(store)
        (tmp_path / DATABASE).rename(tmp_path / "away")
        for _ in range(2):
            (outcome,) = await store.commit([change(CreateMessage(message("m")))])
            assert isinstance(outcome, StoreUnavailable)
            assert "is gone; put it back" in str(outcome)
            with pytest.raises(StoreUnavailable, match="is gone; put it back"):
                await store.check_writable()
        (tmp_path / "away").rename(tmp_path / DATABASE)
        await store.check_writable()
        await write(store, CreateMessage(message("m")))


async def test_r26_a_disk_that_does_not_answer_is_said_in_time(autojump_clock: object) -> None:
    class Stuck:
        async def run(self, work: Callable[[], T]) -> T:
            await trio.sleep_forever()

    async with open_sqlite_store(None) as store:
        store._writer = Stuck()
        with trio.fail_after(READY_SECONDS + 1), pytest.raises(StoreUnavailable, match="has not answered for 10 s"):
            await store.check_writable()


async def test_reads_see_every_commit_that_has_returned(store: Store) -> None:
    async def write_and_read(n: int) -> None:
        await write(store, CreateMessage(message(str(n))))
        assert await store.message(W, message(str(n)).id) is not None

    async with trio.open_nursery() as nursery:
        for n in range(50):
            nursery.start_soon(write_and_read, n)
    assert (await store.event_range(W)).latest == 51


async def test_a_canceled_commit_is_whole_or_not_there(tmp_path: Path) -> None:
    """Canceled at any of many moments: what is in the store afterwards is both writes or none."""
    with trio.fail_after(SECONDS):
        async with open_sqlite_store(tmp_path) as store:
            await make_workspace(store)
            for n in range(40):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(write, store, accept(str(n), n + 1), CreateMessage(message(str(n), run=str(n))))
                    for _ in range(n % 5):
                        await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
            for n in range(40):
                found = await store.run(W, RunId(str(n)))
                assert (found is None) == (await store.message(W, message(str(n)).id) is None)
            latest = (await store.event_range(W)).latest
            assert numbers(await store.events_after(W, 0, limit=999)) == list(range(1, latest + 1))


CRASHING = """
import sys
from pathlib import Path
import trio
from engine.store.sqlite import open_sqlite_store
from tests.engine.store.samples import accept, make_workspace, write

async def main():
    async with open_sqlite_store(Path(sys.argv[1])) as store:
        await make_workspace(store)
        for n in range(1, 1_000_000):
            await write(store, accept(str(n), n))
            print(n, flush=True)

trio.run(main)
"""


@pytest.mark.slow
async def test_r25_what_was_acknowledged_before_a_kill_is_there_afterwards(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", CRASHING, str(tmp_path / "data")]
    with trio.fail_after(SECONDS):
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=root)
        assert process.stdout is not None
        told = b""
        while told.count(b"\n") < 200:
            told += await process.stdout.receive_some()
        process.send_signal(signal.SIGKILL)
        await process.wait()
        while more := await process.stdout.receive_some():
            told += more
        await process.stdout.aclose()
        acknowledged = int(told.rpartition(b"\n")[0].split()[-1])

        async with open_sqlite_store(tmp_path / "data") as store:
            runs = await store.unsettled_runs(W)
            assert [run.seq for run in runs] == list(range(1, len(runs) + 1))
            assert acknowledged <= len(runs) <= acknowledged + 1
            assert {run.state for run in runs} == {RunState.ACCEPTED}
            events = await store.events_after(W, 0, limit=99_999)
            assert numbers(events) == list(range(1, len(runs) + 2))
            assert kinds(events)[1:] == ["run_changed"] * len(runs)
