"""The reads that tools need, as functions of a connection. Each is one statement, as in `sqlite_reads`."""

import sqlite3

from engine.records.file import FileRead, FileVersion
from engine.records.ids import SessionId, WorkspaceId
from engine.records.permission import Grant, PermissionRequest
from engine.records.question import QuestionBatch
from engine.store import rows


def open_requests(db: sqlite3.Connection, workspace: WorkspaceId) -> list[PermissionRequest | QuestionBatch]:
    """`Store.open_requests`"""
    found = db.execute(
        # By itself SQLite would take the primary key, and read all that was ever asked here.
        "SELECT * FROM requests INDEXED BY requests_open"
        " WHERE workspace_id = ? AND decision IS NULL ORDER BY asked_at_us, id",
        (workspace,),
    )
    return [rows.request_from_row(row) for row in found]


def grants(db: sqlite3.Connection, workspace: WorkspaceId, session_id: SessionId) -> list[Grant]:
    """`Store.grants`"""
    found = db.execute(
        "SELECT * FROM grants WHERE workspace_id = ? AND session_id = ? ORDER BY tool_name, action, path",
        (workspace, session_id),
    )
    return [rows.grant_from_row(row) for row in found]


def file_versions(db: sqlite3.Connection, workspace: WorkspaceId, session_id: SessionId) -> list[FileVersion]:
    """`Store.file_versions`"""
    found = db.execute(
        "SELECT * FROM files WHERE workspace_id = ? AND session_id = ? ORDER BY position", (workspace, session_id)
    )
    return [rows.file_from_row(row) for row in found]


def file_reads(db: sqlite3.Connection, workspace: WorkspaceId, session_id: SessionId) -> list[FileRead]:
    """`Store.file_reads`"""
    found = db.execute(
        "SELECT * FROM file_reads WHERE workspace_id = ? AND session_id = ? ORDER BY at_us DESC, path",
        (workspace, session_id),
    )
    return [rows.file_read_from_row(row) for row in found]


def file_read(db: sqlite3.Connection, workspace: WorkspaceId, session_id: SessionId, path: str) -> FileRead | None:
    """`Store.file_read`"""
    key = (workspace, session_id, path)
    row = db.execute("SELECT * FROM file_reads WHERE workspace_id = ? AND session_id = ? AND path = ?", key).fetchone()
    return None if row is None else rows.file_read_from_row(row)
