"""Bugs in what tools ask, and in what they leave behind."""

import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec
import trio

from engine.records.change import ResolveRequest
from engine.records.ids import RunId
from engine.records.permission import Decision, PermissionRequest
from engine.runs.run import Runner
from engine.store import sqlite_request_writes, sqlite_run_writes
from engine.store.rows import Value
from engine.store.sqlite_transaction import Writing
from engine.tools.permissions import Permissions
from engine.tools.requests import Requests, Resolution
from tests.explorer.planted.registry import bug, put
from tests.explorer.planted.writing import without


@bug(first=50)
def every_answer_wins() -> Iterator[None]:
    """Whoever answers is told that this decided it (R31)."""
    usual = Requests.resolve

    async def resolve(requests: Requests[PermissionRequest], request_id: str, resolution: Resolution) -> bool:
        await usual(requests, request_id, resolution)
        return True

    with put(Requests, "resolve", resolve):
        yield


@bug(first=50)
def last_answer_stands() -> Iterator[None]:
    """An answer is written over an earlier one, and no constraint is against it (R31)."""
    usual, usual_row = sqlite_request_writes.resolve_request, Writing.row

    def row(writing: Writing, statement: str, **values: Value) -> sqlite3.Row | None:
        return usual_row(writing, statement.replace(" AND decision IS NULL", ""), **values)

    def resolve_request(writing: Writing, write: ResolveRequest) -> bool:
        with put(Writing, "row", row):
            return usual(writing, write)

    with (
        put(sqlite_request_writes, "resolve_request", resolve_request),
        without("TRIGGER requests_are_resolved_once"),
    ):
        yield


@bug(first=73)
def requests_outlive_their_run() -> Iterator[None]:
    """An ending does not withdraw what its run asked, and no constraint is against it (R10)."""
    with put(sqlite_run_writes, "withdraw_requests", lambda *_: None), without("TRIGGER runs_end_with_their_requests"):
        yield


@bug()
def changed_before_anybody_answers() -> Iterator[None]:
    """A tool goes on when nobody has answered for a while (R31)."""
    usual = Permissions.ask

    async def ask(permissions: Permissions, request: PermissionRequest) -> Decision | None:
        with trio.move_on_after(0.02):
            return await usual(permissions, request)
        return Decision.ALLOW

    with put(Permissions, "ask", ask):
        yield


@bug(first=316)
def granted_to_every_session() -> Iterator[None]:
    """What was granted for a session counts in all of them (R31)."""
    usual = Permissions.ask
    granted: set[tuple[Permissions, str]] = set()  # of one workspace: a schedule does not depend on those before it

    async def ask(permissions: Permissions, request: PermissionRequest) -> Decision | None:
        if (permissions, request.tool_name) in granted:
            await trio.lowlevel.checkpoint()
            return Decision.ALLOW_SESSION
        decision = await usual(permissions, request)
        if decision is Decision.ALLOW_SESSION:
            granted.add((permissions, request.tool_name))
        return decision

    with put(Permissions, "ask", ask):
        yield


@bug(first=10)
def jobs_outlive_a_canceled_run() -> Iterator[None]:
    """A run that was cut short ends before what it has left running (R10)."""
    usual = Runner._settle

    async def end_nothing(run_id: RunId) -> None:
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def settle(runner: Runner, *given: Any) -> None:
        runner._seams = msgspec.structs.replace(runner._seams, end_run=end_nothing)
        await usual(runner, *given)

    with put(Runner, "_settle", settle):
        yield
