"""What SQLite complains about, said so that a person can act on it (R26)."""

import sqlite3

import msgspec

from engine.errors import Conflict, StoreError, StoreUnavailable

# What a change, a row or the disk can make a statement raise. Anything else is a mistake in this package.
REFUSALS = (StoreError, sqlite3.Error, msgspec.MsgspecError, ValueError, TypeError, OverflowError)

_TAKEN = {sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID}

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk that holds {path} is full; free some space, then retry",
    sqlite3.SQLITE_READONLY: "{path} cannot be written to; make it and its directory writable for this user",
    sqlite3.SQLITE_PERM: "{path} may not be used; check its permissions",
    sqlite3.SQLITE_CANTOPEN: "{path} cannot be opened; check that its directory exists and may be written to",
    sqlite3.SQLITE_IOERR: "reading or writing {path} failed; check the disk ({detail})",
    sqlite3.SQLITE_CORRUPT: "{path} is damaged; stop the server and restore it from a backup ({detail})",
    sqlite3.SQLITE_NOTADB: "{path} is not a countermand database; move it away, or choose another --data-dir",
    sqlite3.SQLITE_BUSY: "{path} is locked by another program; stop what else has it open, then retry",
    sqlite3.SQLITE_LOCKED: "{path} is locked by another program; stop what else has it open, then retry",
    sqlite3.SQLITE_NOMEM: "there was not enough memory to work with {path}",
}


_OF_THE_FILE = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM,
}  # fmt: skip


def is_of_the_file(error: Exception) -> bool:
    """Whether no change at all can be written now: to try each one alone would only multiply the wait."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _OF_THE_FILE


def refusal(error: Exception, path: str) -> StoreError:
    """Why a change was not written. What cannot be encoded, or read back, is the change's fault and not the disk's."""
    if isinstance(error, msgspec.MsgspecError):
        return StoreError(f"the store cannot hold this: {error}")
    return store_error(error, path)


def store_error(error: Exception, path: str) -> StoreError:
    """The error of ours that stands for `error`, which is one of `REFUSALS`."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, msgspec.MsgspecError):
        return StoreUnavailable(f"a row in {path} cannot be understood; restore it from a backup ({error})")
    if not isinstance(error, sqlite3.Error):
        return StoreError(f"the store cannot hold this: {error}")
    # Errors of the Python module itself, such as the use of a closed connection, have no code.
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return StoreUnavailable(f"{path} cannot be used ({error}); is the store closed?")
    if code in _TAKEN:
        return Conflict(f"already taken: {error}")
    if code & 0xFF in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG):
        return StoreError(f"the store refuses this: {error}")
    advice = _ADVICE.get(code & 0xFF, "{path} cannot be used ({detail})")
    return StoreUnavailable(advice.format(path=path, detail=error))
