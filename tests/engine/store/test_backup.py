"""Backups: whole, checked, under their name only when they are done; and whoever writes meanwhile is not held up."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigInvalid, StoreDamaged, StoreFull, StoreLocked, StoreUnavailable
from engine.store import backup
from engine.store.backup import back_up
from engine.store.check import check_store
from engine.store.open import DATABASE, Database, open_database
from engine.store.read_only import open_snapshot, open_store_snapshot
from tests.doubles.store_faults import damage_page, root_page


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Database]:
    """A store that a server has, with a log of some pages."""
    database = open_database(tmp_path / "live", started_at_us=1)
    write(database, 100)
    yield database
    database.close()


def write(database: Database, count: int) -> None:
    """Settings are as good as anything else to fill pages with."""
    rows = [("", f"key-{number}-{os.urandom(4).hex()}", "value" * 100) for number in range(count)]
    database.writer.executemany("INSERT INTO settings (workspace_id, key, value) VALUES (?, ?, ?)", rows)


def count(path: Path) -> int:
    with open_snapshot(str(path)) as snapshot:
        assert not [part for part in check_store(snapshot.db) if part.problems]
        (number,) = snapshot.db.execute("SELECT count(*) FROM settings").fetchone()
        return int(number)


def test_a_copy_is_one_file_for_its_owner_alone_and_can_take_the_place_of_the_store(
    live: Database, tmp_path: Path
) -> None:
    copy, data = tmp_path / "copy.db", tmp_path / "restored"
    with open_store_snapshot(tmp_path / "live") as snapshot:
        size = back_up(snapshot, copy, replace=False)
    assert copy.stat().st_size == size
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == ["copy.db"]
    assert count(copy) == 100
    data.mkdir()
    shutil.copy(copy, data / DATABASE)
    restored = open_database(data, started_at_us=1)
    write(restored, 1)
    restored.close()
    assert count(data / DATABASE) == 101


def test_what_is_written_between_two_steps_is_not_in_it_and_does_not_begin_it_anew(
    live: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "STEP", 2)
    live.writer.execute("PRAGMA busy_timeout = 0")
    steps: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        write(live, 1)
        steps.append((done, total))

    with open_store_snapshot(tmp_path / "live") as snapshot:
        back_up(snapshot, tmp_path / "copy.db", replace=False, progress=progress)
    assert len(steps) > 5
    assert [done for done, _ in steps] == sorted({done for done, _ in steps}), "it began anew"
    assert steps[-1] == (steps[0][1], steps[0][1])
    assert count(tmp_path / "copy.db") == 100
    assert live.reader.execute("SELECT count(*) FROM settings").fetchone()[0] == 100 + len(steps)


def test_a_file_that_exists_is_replaced_only_if_asked_to(live: Database, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    copy.write_text("something dear")
    with open_store_snapshot(tmp_path / "live") as snapshot:
        with pytest.raises(ConfigInvalid, match=r"DEST: .*copy\.db' exists; name another file, or say --force"):
            back_up(snapshot, copy, replace=False)
        assert copy.read_text() == "something dear"
        back_up(snapshot, copy, replace=True)
    assert count(copy) == 100


def test_a_file_that_comes_about_meanwhile_is_not_replaced_either(live: Database, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    def come_about(done: int, total: int) -> None:
        copy.write_text("something dear")

    with (
        open_store_snapshot(tmp_path / "live") as snapshot,
        pytest.raises(ConfigInvalid, match="exists; name another file"),
    ):
        back_up(snapshot, copy, replace=False, progress=come_about)
    assert copy.read_text() == "something dear"


@pytest.mark.parametrize("replace", [False, True])
def test_what_is_no_place_for_a_copy_is_refused(live: Database, tmp_path: Path, replace: bool) -> None:
    (tmp_path / "old.db-wal").write_text("of another")
    (tmp_path / "link.db").symlink_to(live.path)
    refused = {
        tmp_path: "is a directory",
        tmp_path / "no" / "copy.db": "there is no directory",
        Path(live.path): "is the store itself",
        tmp_path / "link.db": "is the store itself",
        tmp_path / "old.db": "is the log of another database; move it away",
    }
    with open_store_snapshot(tmp_path / "live") as snapshot:
        for place, why in refused.items():
            with pytest.raises(ConfigInvalid, match=why):
                back_up(snapshot, place, replace=replace)


def test_the_store_of_another_server_is_not_replaced(live: Database, tmp_path: Path) -> None:
    other = open_database(tmp_path / "other", started_at_us=1)
    with open_store_snapshot(tmp_path / "live") as snapshot:
        with pytest.raises(StoreLocked):
            back_up(snapshot, Path(other.path), replace=True)
        other.close()
        back_up(snapshot, Path(other.path), replace=True)
    assert count(Path(other.path)) == 100


def test_r26_a_damaged_store_is_not_taken_for_a_backup(live: Database, tmp_path: Path) -> None:
    live.close()
    damage_page(Path(live.path), root_page(Path(live.path), "messages"))
    with (
        open_store_snapshot(tmp_path / "live") as snapshot,
        pytest.raises(StoreDamaged, match="is damaged, and the copy was not kept; countermand check says more"),
    ):
        back_up(snapshot, tmp_path / "copy.db", replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["live"]


def test_r26_a_disk_that_is_full_is_named_and_leaves_no_half_a_copy(
    live: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other disk, not that of the store."""
    connect = sqlite3.connect

    def connect_to_little_space(path: str, **options: Any) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(path, **options)
        if path.endswith(".part"):
            db.execute("PRAGMA max_page_count = 3")
        return db

    with open_store_snapshot(tmp_path / "live") as snapshot:
        monkeypatch.setattr(sqlite3, "connect", connect_to_little_space)
        with pytest.raises(StoreFull, match=r"the disk that holds .*copy\.db\..*\.part is full; free some space"):
            back_up(snapshot, tmp_path / "copy.db", replace=False)
    assert [path.name for path in tmp_path.iterdir()] == ["live"]


def test_a_backup_that_is_broken_off_leaves_nothing(live: Database, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with open_store_snapshot(tmp_path / "live") as snapshot, pytest.raises(KeyboardInterrupt):
        back_up(snapshot, tmp_path / "copy.db", replace=False, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["live"]


def test_a_disk_without_links_holds_backups_too(
    live: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*names: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with open_store_snapshot(tmp_path / "live") as snapshot:
        back_up(snapshot, tmp_path / "copy.db", replace=False)
    assert count(tmp_path / "copy.db") == 100


def test_a_copy_that_cannot_get_its_name_is_said_so(
    live: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*names: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    with (
        open_store_snapshot(tmp_path / "live") as snapshot,
        pytest.raises(StoreUnavailable, match=r"the copy '.*copy\.db' cannot be written: .*Permission denied"),
    ):
        back_up(snapshot, tmp_path / "copy.db", replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["live"]
