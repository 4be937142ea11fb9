"""Brings a database to the schema that this version knows. The schema's number is SQLite's own `user_version`."""

import sqlite3
from importlib import resources
from importlib.resources.abc import Traversable

from engine.errors import StoreNewer

MIGRATIONS = "engine.store.migrations"


def known_schema(package: str = MIGRATIONS) -> int:
    """The schema this version works with: the number of the last migration."""
    return len(_files(package))


def schema_of(db: sqlite3.Connection) -> int:
    """The schema of a database, 0 when nothing was written yet."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(db: sqlite3.Connection, path: str, *, package: str = MIGRATIONS) -> None:
    """Apply what is missing, in order, each migration in a transaction of its own with its number.

    Interrupted anywhere, it goes on from there the next time. Raises `StoreNewer` for a schema that this version does
    not know (R26); nothing was changed then. The connection is in autocommit mode (`isolation_level=None`).
    """
    files = _files(package)
    found = schema_of(db)
    if found > len(files):
        raise StoreNewer(path, found, len(files))
    for number, file in enumerate(files[found:], found + 1):
        try:
            # One script, since `executescript` commits what was begun before it. The number is part of the header of
            # the database, and so of the transaction.
            db.executescript(f"BEGIN IMMEDIATE;\n{file.read_text('utf-8')}\nPRAGMA user_version = {number};\nCOMMIT;")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")


def _files(package: str) -> list[Traversable]:
    files = sorted((f for f in resources.files(package).iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    for number, file in enumerate(files, 1):
        assert file.name.startswith(f"{number:04}_"), f"migration {number} is missing or out of order: {file.name}"
    return files
