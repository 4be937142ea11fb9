"""Handles of runs, made without an engine."""

from engine.records.ids import RunId, SessionId, WorkspaceId
from engine.records.run import IfBusy, Prompt, RunRecord, RunState
from engine.runs.accepted import AcceptedRun

SESSION = SessionId("session")


def handle(seq: int, if_busy: IfBusy = IfBusy.ENQUEUE) -> AcceptedRun:
    """The handle of the run with this accept number."""
    prompt = Prompt(session_id=SESSION, text=f"prompt {seq}", if_busy=if_busy)
    record = RunRecord(
        id=RunId(f"run-{seq}"), workspace_id=WorkspaceId("w"), session_id=SESSION, seq=seq, state=RunState.ACCEPTED,
        prompt=prompt, accepted_at_us=seq,
    )  # fmt: skip
    return AcceptedRun(record)
