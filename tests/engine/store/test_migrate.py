"""The schema: numbered, one step a transaction, and never a step back."""

import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from engine.errors import StoreNewer
from engine.store.migrate import known_schema, migrate, schema_of
from engine.store.sqlite_session_writes import CHILDREN


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    yield db
    db.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of migrations to write into, importable by the name of the folder."""
    folder = tmp_path / f"migrations_of_{tmp_path.name}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_an_empty_database_is_brought_to_the_known_schema(db: sqlite3.Connection) -> None:
    assert schema_of(db) == 0
    migrate(db, "x.db")
    assert schema_of(db) == known_schema() >= 1
    before = list(db.iterdump())
    migrate(db, "x.db")
    assert list(db.iterdump()) == before


def test_the_children_of_a_session_are_found_without_reading_all_sessions(db: sqlite3.Connection) -> None:
    migrate(db, "x.db")
    plan = db.execute(f"EXPLAIN QUERY PLAN {CHILDREN}", {"workspace_id": "w", "id": "s"}).fetchall()
    assert [row[3] for row in plan] == [
        "SEARCH sessions USING INDEX sessions_by_parent (workspace_id=? AND parent_id=?)"
    ]


def test_every_migration_is_shipped_with_the_package() -> None:
    names = sorted(file.name for file in resources.files("engine.store.migrations").iterdir())
    assert [name for name in names if name.endswith(".sql")] == [
        "0001_initial.sql",
        "0002_requests_and_files.sql",
        "0003_open_requests.sql",
        "0004_children.sql",
    ]
    assert "__init__.py" in names, "only what is in a package is in the wheel"


def test_r26_a_schema_from_the_future_is_refused_and_left_as_it_is(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE from_the_future (x)")
    db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreNewer, match=r"'x.db' has schema 99.*upgrade countermand") as caught:
        migrate(db, "x.db")
    assert (caught.value.found, caught.value.known) == (99, known_schema())
    assert schema_of(db) == 99
    assert [row[0] for row in db.execute("SELECT name FROM sqlite_schema")] == ["from_the_future"]


def test_a_migration_that_fails_leaves_nothing_of_itself_and_keeps_those_before(
    db: sqlite3.Connection, folder: Path
) -> None:
    (folder / "0001_one.sql").write_text("CREATE TABLE one (x);")
    (folder / "0002_two.sql").write_text("CREATE TABLE two (x); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(db, "x.db", package=folder.name)
    assert (schema_of(db), db.in_transaction) == (1, False)
    assert [row[0] for row in db.execute("SELECT name FROM sqlite_schema")] == ["one"]

    (folder / "0002_two.sql").write_text("CREATE TABLE two (x);")
    migrate(db, "x.db", package=folder.name)
    assert schema_of(db) == 2


@pytest.mark.parametrize("names", [["0002_two.sql"], ["0001_one.sql", "0003_three.sql"], ["1_one.sql"]])
def test_a_missing_number_is_noticed(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).write_text("SELECT 1;")
    with pytest.raises(AssertionError, match="missing or out of order"):
        known_schema(folder.name)
