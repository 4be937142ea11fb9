"""What is found in the place of the database before SQLite looks at it (R26), and how a new one is made."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import StoreDamaged, StoreError, StoreUnavailable
from engine.store.database_files import UNFINISHED, check_files, make_database
from engine.store.open import DATABASE, open_database
from tests.doubles.store_faults import overwrite

WAL, SHM = f"{DATABASE}-wal", f"{DATABASE}-shm"


def open_and_close(data_dir: Path) -> None:
    open_database(data_dir, started_at_us=1).close()


def contents(data_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in data_dir.glob(f"{DATABASE}*")}


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A directory as a server leaves it that was killed: its latest commits are in the log alone."""
    live, crashed = tmp_path / "live", tmp_path / "crashed"
    database = open_database(live, started_at_us=1)
    database.writer.execute("INSERT INTO workspaces (id, path, opened_at_us) VALUES ('w', '/w', 1)")
    shutil.copytree(live, crashed)
    database.close()
    return crashed


def refused(data_dir: Path, match: str) -> None:
    """Opening is refused, as often as it is tried, and changes nothing."""
    before = contents(data_dir)
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=match):
            open_and_close(data_dir)
    assert contents(data_dir) == before


def test_what_a_server_left_that_was_killed_is_opened(crashed: Path) -> None:
    assert (crashed / WAL).stat().st_size
    database = open_database(crashed, started_at_us=1)
    assert database.reader.execute("SELECT id FROM workspaces").fetchone()["id"] == "w"
    database.close()


def test_r26_an_empty_file_is_damage_and_no_new_store(crashed: Path) -> None:
    for leftover in (WAL, SHM):
        (crashed / leftover).unlink()
    os.truncate(crashed / DATABASE, 0)
    refused(crashed, f"{DATABASE} is empty; restore it from a backup, or, to begin anew, move it away")
    (crashed / DATABASE).unlink()
    open_and_close(crashed)


@pytest.mark.parametrize("is_there", [True, False], ids=["empty", "missing"])
def test_r26_a_log_without_its_database_is_kept(crashed: Path, is_there: bool) -> None:
    """SQLite would remove it, and with it commits that were answered."""
    whole = (crashed / DATABASE).read_bytes()
    if is_there:
        os.truncate(crashed / DATABASE, 0)
    else:
        (crashed / DATABASE).unlink()
    refused(crashed, "is empty; restore it" if is_there else "is not there, and .*-wal, which holds its latest changes")
    (crashed / DATABASE).write_bytes(whole)
    test_what_a_server_left_that_was_killed_is_opened(crashed)


def test_r26_a_copy_beside_the_log_of_another_database_is_refused(crashed: Path, tmp_path: Path) -> None:
    """As after a backup was put in the place of a database, without taking its log away."""
    copy, log = tmp_path / "copy.db", (crashed / WAL).read_bytes()
    with closing(sqlite3.connect(crashed / DATABASE)) as db:
        db.execute(f"VACUUM INTO '{copy}'")
    shutil.copy(copy, crashed / DATABASE)
    (crashed / WAL).write_bytes(log)
    refused(crashed, f"{WAL} beside it belongs to another database; move .*{WAL} and .*{SHM} away")
    (crashed / WAL).unlink()
    open_and_close(crashed)


@pytest.mark.parametrize("size", [1, 50, 99, 100, 1000, 4096, 20_000])
def test_r26_a_file_that_was_cut_off_is_damage(crashed: Path, size: int) -> None:
    open_and_close(crashed)
    os.truncate(crashed / DATABASE, size)
    with pytest.raises(StoreDamaged):
        open_and_close(crashed)


def test_r26_damage_in_the_header_is_found_when_it_is_opened(crashed: Path) -> None:
    open_and_close(crashed)
    whole = (crashed / DATABASE).read_bytes()
    for offset, size in ((0, 16), (16, 2), (18, 2), (44, 4), (68, 4), (0, 100)):
        (crashed / DATABASE).write_bytes(whole)
        overwrite(crashed / DATABASE, offset, b"\xff" * size)
        with pytest.raises(StoreError):
            open_and_close(crashed)


def test_a_database_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    def make_table(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE t (x)")

    def fail(db: sqlite3.Connection) -> None:
        make_table(db)
        raise sqlite3.OperationalError("no more, says a test")

    with pytest.raises(sqlite3.OperationalError):
        make_database(str(path), fail)
    assert not path.exists()
    check_files(str(path))
    make_database(str(path), make_table)
    assert [each.name for each in tmp_path.iterdir()] == ["x.db"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_server_left_that_was_killed_while_it_made_one_is_made_again(tmp_path: Path) -> None:
    (tmp_path / f"{DATABASE}{UNFINISHED}").write_bytes(b"half")
    (tmp_path / f"{DATABASE}{UNFINISHED}-journal").write_bytes(b"half")
    open_and_close(tmp_path)
    assert not list(tmp_path.glob(f"*{UNFINISHED}*"))


def test_r26_a_database_that_is_moved_or_replaced_while_it_is_open_takes_nothing_more(tmp_path: Path) -> None:
    """What is written to it would be nowhere, and answered as durable."""
    database, path = open_database(tmp_path, started_at_us=1), tmp_path / DATABASE
    database.check_in_place()
    path.rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable, match="is gone; put it back, or stop the server"):
        database.check_in_place()
    shutil.copy(tmp_path / "away", path)
    with pytest.raises(StoreUnavailable, match="was replaced while the server has it open"):
        database.check_in_place()
    (tmp_path / "away").rename(path)
    database.check_in_place()
    database.close()
