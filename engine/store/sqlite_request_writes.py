"""The writes to what waits for a person's answer. Each says whether it applied.

Here, in the store's single writer, two answers that race are put in order (R31), and so are an answer and the ending of
the run that waits for it (R10).
"""

import sqlite3

from engine.records.change import OpenRequest, ResolveRequest
from engine.records.event import PermissionAsked, PermissionResolved, QuestionsAsked, QuestionsResolved
from engine.records.ids import RunId
from engine.records.permission import Decision, PermissionRequest
from engine.store import rows
from engine.store.sqlite_transaction import Writing

_INSERT_REQUEST = rows.insert("requests", rows.REQUEST_COLUMNS)
_INSERT_GRANT = rows.insert("grants", rows.GRANT_COLUMNS) + " ON CONFLICT DO NOTHING"


def open_request(writing: Writing, write: OpenRequest) -> bool:
    """→ PermissionAsked or QuestionsAsked."""
    request = write.request
    asking = (
        "SELECT 1 FROM runs WHERE workspace_id = :workspace_id AND id = :id AND state = 'active'"
        " AND cancel_requested_at_us IS NULL"
    )
    if writing.row(asking, id=request.run_id) is None:
        return False
    writing.execute(_INSERT_REQUEST, rows.request_to_row(writing.workspace_id, request, write.at_us))
    asked = PermissionAsked(request) if isinstance(request, PermissionRequest) else QuestionsAsked(request)
    writing.emit(asked, request.session_id, request.run_id)
    return True


def resolve_request(writing: Writing, write: ResolveRequest) -> bool:
    """→ PermissionResolved or QuestionsResolved."""
    row = writing.row(
        "SELECT * FROM requests WHERE workspace_id = :workspace_id AND id = :id AND decision IS NULL",
        id=write.request_id,
    )
    if row is None:
        return False
    _resolve(writing, row, write.decision, write.at_us)
    return True


def withdraw_requests(writing: Writing, run_id: RunId, at_us: int) -> None:
    """→ PermissionResolved or QuestionsResolved for each that this run leaves open."""
    # Nearly always there is none: the index of the open ones says so. SQLite by itself would take the primary key, and
    # read all that was ever asked here.
    left = (
        "SELECT * FROM requests INDEXED BY requests_open"
        " WHERE workspace_id = ? AND run_id = ? AND decision IS NULL ORDER BY asked_at_us, id"
    )
    for row in writing.db.execute(left, (writing.workspace_id, run_id)).fetchall():
        _resolve(writing, row, Decision.WITHDRAWN, at_us)


def _resolve(writing: Writing, row: sqlite3.Row, decision: Decision, at_us: int) -> None:
    request = rows.request_from_row(row)
    writing.execute(
        "UPDATE requests SET decision = :decision, resolved_at_us = max(:at_us, asked_at_us)"
        " WHERE workspace_id = :workspace_id"
        " AND id = :id",
        {"id": request.id, "decision": decision.value, "at_us": at_us},
    )
    if not isinstance(request, PermissionRequest):
        writing.emit(QuestionsResolved(request.id, request.session_id), request.session_id, request.run_id)
        return
    if decision is Decision.ALLOW_SESSION:
        writing.execute(_INSERT_GRANT, rows.grant_to_row(writing.workspace_id, request.grant, at_us))
    resolved = PermissionResolved(request.id, request.session_id, request.tool_call_id, decision)
    writing.emit(resolved, request.session_id, request.run_id)
