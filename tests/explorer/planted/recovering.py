"""Bugs in what becomes of runs when servers end and start."""

from collections.abc import Iterator

import msgspec

from engine.records.message import Message
from engine.records.run import OnCrash, RunRecord, RunState
from engine.runs.accepted import AcceptedRun
from engine.runs.closing import Closing
from engine.runs.dispatch import SessionDispatch
from engine.runs.ending_commit import EndingCommit
from engine.runs.recovery import Recovery
from engine.store.rows import Row
from engine.store.sqlite_transaction import Writing
from tests.explorer.planted.registry import bug, put


@bug(first=86)
def accepted_runs_not_recovered() -> Iterator[None]:
    """A run that had not begun when its server ended is not taken up by the next one (R25)."""
    usual = Recovery._deal_with

    async def deal_with(recovery: Recovery, run: RunRecord, messages: list[Message] | None) -> EndingCommit | None:
        return None if run.state is RunState.ACCEPTED else await usual(recovery, run, messages)

    with put(Recovery, "_deal_with", deal_with):
        yield


@bug(first=28)
def mark_ignored_by_recovery() -> Iterator[None]:
    """Neither recovery nor the commit that makes a run active looks whether a cancel is on record (R25)."""
    usual, usual_execute = Recovery._deal_with, Writing.execute

    async def deal_with(recovery: Recovery, run: RunRecord, messages: list[Message] | None) -> EndingCommit | None:
        return await usual(recovery, msgspec.structs.replace(run, cancel_requested_at_us=None), messages)

    def execute(writing: Writing, statement: str, values: Row) -> bool:
        return usual_execute(writing, statement.replace(" AND cancel_requested_at_us IS NULL", ""), values)

    with put(Recovery, "_deal_with", deal_with), put(Writing, "execute", execute):
        yield


@bug(first=12)
def retried_though_nobody_asked() -> Iterator[None]:
    """A run that a crash interrupted is run again, whatever its policy says (R25)."""
    usual = Recovery._deal_with

    async def deal_with(recovery: Recovery, run: RunRecord, messages: list[Message] | None) -> EndingCommit | None:
        prompt = msgspec.structs.replace(run.prompt, on_crash=OnCrash.RETRY)
        return await usual(recovery, msgspec.structs.replace(run, prompt=prompt), messages)

    with put(Recovery, "_deal_with", deal_with):
        yield


@bug(first=273)
def order_lost_in_recovery() -> Iterator[None]:
    """What waited is taken up in another order than it was accepted in (R14, R24)."""

    def readmit(lane: SessionDispatch, run: AcceptedRun) -> None:
        lane._waiting.insert(0, run)

    with put(SessionDispatch, "readmit", readmit):
        yield


@bug(first=585)
def drain_cancels_what_waits() -> Iterator[None]:
    """A server that stops cancels what waits, instead of leaving it to the next start (R24)."""
    usual = Closing.drain

    async def drain(closing: Closing, drain_s: float, reason: str = "the server stopped") -> None:
        await closing._canceler.cancel_all(reason)
        await usual(closing, drain_s, reason)

    with put(Closing, "drain", drain):
        yield
