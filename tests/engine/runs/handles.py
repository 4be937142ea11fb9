"""Handles of runs and lanes, made without an engine."""

from engine.records.ids import RunId, SessionId, WorkspaceId
from engine.records.run import IfBusy, Prompt, RunRecord, RunState
from engine.runs.accepted import AcceptedRun
from engine.runs.dispatch import Entry, SessionDispatch

SESSION = SessionId("session")


def handle(seq: int, if_busy: IfBusy = IfBusy.ENQUEUE) -> AcceptedRun:
    """The handle of the run with this accept number."""
    prompt = Prompt(session_id=SESSION, text=f"prompt {seq}", if_busy=if_busy)
    record = RunRecord(
        id=RunId(f"run-{seq}"), workspace_id=WorkspaceId("w"), session_id=SESSION, seq=seq, state=RunState.ACCEPTED,
        prompt=prompt, accepted_at_us=seq,
    )  # fmt: skip
    return AcceptedRun(record)


class Lane:
    """A lane with a few words for what tests do over and over."""

    def __init__(self, queue_limit: int = 10) -> None:
        self.dispatch = SessionDispatch(queue_limit=queue_limit)
        self.made = 0

    def reserve(self, if_busy: IfBusy = IfBusy.ENQUEUE) -> AcceptedRun:
        """Register a run."""
        self.made += 1
        run = handle(self.made, if_busy)
        self.dispatch.reserve(run)
        return run

    def start(self) -> AcceptedRun:
        """Register a run that becomes active."""
        run = self.reserve()
        assert self.dispatch.enter(run) is Entry.START
        return run

    def park(self, if_busy: IfBusy = IfBusy.ENQUEUE) -> AcceptedRun:
        """Register a run that is parked behind another."""
        run = self.reserve(if_busy)
        assert self.dispatch.enter(run) is Entry.QUEUED
        return run
