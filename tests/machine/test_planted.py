"""The machine finds what is wrong: bugs that are planted in the engine, within its first examples."""

from unittest.mock import patch

import msgspec
import pytest
from hypothesis.stateful import run_state_machine_as_test

from engine.records.change import SettleRun
from engine.runs.accepted import AcceptedRun
from engine.runs.dispatch import Entry, SessionDispatch
from engine.store import sqlite_run_writes
from engine.store.sqlite_transaction import Writing
from tests.machine.machine import ServiceMachine
from tests.machine.play import settings_for

LIMIT = 25  # examples within which each is to be found; the same ones each time


def test_r14_two_runs_at_once_are_found() -> None:
    usual = SessionDispatch.enter

    def enter(lane: SessionDispatch, run: AcceptedRun) -> Entry:
        active, lane.active = lane.active, None
        entry = usual(lane, run)
        lane.active = lane.active or active  # type: ignore[redundant-expr]
        return entry

    with patch.object(SessionDispatch, "enter", enter):
        assert "(R14)" in broken_promise()


def test_r19_an_ending_before_its_words_is_found() -> None:
    usual = sqlite_run_writes.settle_run

    def settle_run(writing: Writing, write: SettleRun) -> bool:
        bare = (msgspec.structs.replace(ending, writes=()) for ending in (write.planned, write.if_canceled))
        is_settled = usual(writing, SettleRun(write.run_id, *bare))
        if is_settled and writing.settled is not None:
            is_planned = writing.settled.state is write.planned.state
            sqlite_run_writes._write_messages(writing, (write.planned if is_planned else write.if_canceled).writes)
        return is_settled

    with patch.object(sqlite_run_writes, "settle_run", settle_run):
        assert "(R19)" in broken_promise()


def broken_promise() -> str:
    """What the machine finds."""
    with pytest.raises(AssertionError) as found:
        run_state_machine_as_test(ServiceMachine, settings=settings_for(LIMIT, shrinks=False))
    return str(found.value)
