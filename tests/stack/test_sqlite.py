"""What the store relies on in SQLite, in Python's module for it, in flock, and in Trio's threads."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from queue import SimpleQueue

import anyio.to_thread
import outcome
import pytest
import trio
import trio.lowlevel
import trio.testing


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    db = connect(tmp_path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE CHECK (name <> '')) STRICT")
    db.execute(
        "CREATE TRIGGER no_bob BEFORE INSERT ON t WHEN NEW.name = 'bob' BEGIN SELECT RAISE(ABORT, 'no bob'); END"
    )
    yield db
    db.close()


def connect(tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "x.db", isolation_level=None, check_same_thread=False)


def test_the_schemas_number_is_part_of_the_transaction(db: sqlite3.Connection) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.execute("PRAGMA user_version = 7")
    db.execute("ROLLBACK")
    assert db.execute("PRAGMA user_version").fetchone() == (0,)


def test_a_script_commits_what_was_begun_before_it(db: sqlite3.Connection) -> None:
    """So that a migration has to begin its transaction inside the script."""
    db.execute("BEGIN")
    db.executescript("SELECT 1")
    assert not db.in_transaction


def test_a_script_that_fails_leaves_its_transaction_open(db: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.OperationalError):
        db.executescript("BEGIN; INSERT INTO t (name) VALUES ('a'); SELECT * FROM nowhere; COMMIT;")
    assert db.in_transaction
    db.execute("ROLLBACK")
    assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("INSERT INTO t (id, name) VALUES (2, 'a')", sqlite3.SQLITE_CONSTRAINT_UNIQUE),
        ("INSERT INTO t (id, name) VALUES (1, 'b')", sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY),
        ("INSERT INTO t (name) VALUES ('bob')", sqlite3.SQLITE_CONSTRAINT_TRIGGER),
        ("INSERT INTO t (name) VALUES ('')", sqlite3.SQLITE_CONSTRAINT_CHECK),
    ],
)
def test_a_refused_statement_tells_which_kind_of_constraint_refused_it(
    db: sqlite3.Connection, statement: str, code: int
) -> None:
    db.execute("INSERT INTO t (id, name) VALUES (1, 'a')")
    with pytest.raises(sqlite3.IntegrityError) as caught:
        db.execute(statement)
    assert caught.value.sqlite_errorcode == code


def test_the_use_of_a_closed_connection_has_no_code(db: sqlite3.Connection) -> None:
    db.close()
    db.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed") as caught:
        db.execute("SELECT 1")
    assert not hasattr(caught.value, "sqlite_errorcode")


def test_nothing_is_begun_behind_our_back(db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO t (name) VALUES ('a')")
    assert not db.in_transaction


def test_what_an_update_changed_is_counted_without_the_work_of_triggers(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE log (name TEXT)")
    db.execute("CREATE TRIGGER logged AFTER UPDATE ON t BEGIN INSERT INTO log VALUES (NEW.name), (OLD.name); END")
    db.execute("INSERT INTO t (name) VALUES ('a')")
    assert db.execute("UPDATE t SET name = 'b'").rowcount == 1
    assert db.execute("UPDATE t SET name = 'c' WHERE id = 99").rowcount == 0


def test_a_reader_sees_what_was_committed_before_its_statement(db: sqlite3.Connection, tmp_path: Path) -> None:
    reader = connect(tmp_path)
    try:
        reader.execute("PRAGMA query_only = ON")
        for count in range(1, 4):
            db.execute("INSERT INTO t DEFAULT VALUES")
            assert reader.execute("SELECT count(*) FROM t").fetchone() == (count,)
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO t DEFAULT VALUES")
            assert reader.execute("SELECT count(*) FROM t").fetchone() == (count,), "and nothing of what is not"
            db.execute("ROLLBACK")
    finally:
        reader.close()


def test_a_lock_is_of_the_open_file_and_ends_when_that_is_closed(tmp_path: Path) -> None:
    """Unlike POSIX record locks, which a second open in the same process would be given."""
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(first)
    fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not os.get_inheritable(second)
    os.close(second)


async def test_a_thread_that_has_started_is_waited_for_whatever_is_canceled() -> None:
    end, ended = SimpleQueue[None](), list[str]()
    token, started = trio.lowlevel.current_trio_token(), trio.Event()

    def work() -> None:
        token.run_sync_soon(started.set)
        end.get(timeout=10)
        ended.append("work")

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anyio.to_thread.run_sync, work)
            await started.wait()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert not ended
                end.put(None)
    assert ended == ["work"]


async def test_what_threads_hand_over_comes_in_their_order() -> None:
    token, came, last = trio.lowlevel.current_trio_token(), list[int](), trio.Event()

    def hand_over() -> None:
        for n in range(100):
            token.run_sync_soon(came.append, n)
        token.run_sync_soon(last.set)

    thread = threading.Thread(target=hand_over)
    thread.start()
    with trio.fail_after(10):
        await last.wait()
    thread.join()
    assert came == list(range(100))


def test_an_outcome_can_be_unwrapped_once() -> None:
    """So that each waiter needs one of its own."""
    result = outcome.capture(lambda: 1)
    assert result.unwrap() == 1
    with pytest.raises(outcome.AlreadyUsedError):
        result.unwrap()


async def test_a_nursery_that_is_left_by_hand_waits_for_its_tasks_and_wraps_nothing_of_ours() -> None:
    joined: list[str] = []

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        joined.append("child")

    async def body() -> None:
        async with AsyncExitStack() as stack:
            manager = trio.open_nursery()
            nursery = await manager.__aenter__()
            stack.push_async_callback(manager.__aexit__, None, None, None)
            nursery.start_soon(child)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert joined == ["child"]
