"""Recovery: what becomes of the runs that an earlier server left unfinished (R24, R25)."""

import msgspec
import structlog

from engine.records.ids import WorkspaceId
from engine.records.message import Message
from engine.records.run import OnCrash, RunError, RunRecord, RunState
from engine.runs.accept import Conduct
from engine.runs.accepted import AcceptedRun
from engine.runs.lanes import Lanes
from engine.runs.run import Runner
from engine.runs.settle import canceled, interrupted
from engine.store.protocol import Store

INTERRUPTED = RunError(
    "interrupted",
    "Interrupted",
    "The server stopped while this run was active. What it had said is kept; send it again.",
)

RETRIED = RunError("interrupted", "Interrupted", "The server stopped here; the run begins again.")

logger = structlog.get_logger(__name__)


async def recover(
    workspace_id: WorkspaceId, store: Store, runner: Runner, lanes: Lanes, conduct: Conduct, *, max_attempts: int
) -> None:
    """End what was canceled or interrupted, then start what was waiting and what is to be retried, in accept order.

    Raises StoreError.
    """
    waiting: list[AcceptedRun] = []
    for record in await store.unsettled_runs(workspace_id):
        messages = await store.run_messages(workspace_id, record.id)
        if record.cancel_requested_at_us is not None:
            await runner.settle_recovered(record, messages, canceled(record.cancel_reason or ""))
        elif record.state is not RunState.ACTIVE:
            waiting.append(taken_up(record, messages, lanes))
        elif record.prompt.on_crash is OnCrash.RETRY and record.attempt < max_attempts:
            await runner.requeue(record, messages, RETRIED)
            messages = await store.run_messages(workspace_id, record.id)  # as the last attempt was closed
            waiting.append(taken_up(record, messages, lanes))
        else:
            await runner.settle_recovered(record, messages, interrupted(INTERRUPTED))
    for run in waiting:
        lane = lanes.lane(run.record.session_id)
        lane.readmit(run)
        lanes.add(run)
        conduct(run, lane, None, None)
    if waiting:
        logger.info("runs taken up again", workspace_id=workspace_id, runs=len(waiting))


def taken_up(record: RunRecord, messages: list[Message], lanes: Lanes) -> AcceptedRun:
    """The handle of a run that runs again; if it had begun, as its next attempt, behind what the last one left."""
    # A steered run that went back to the queue has words in the turn of its host, and none of its own.
    has_begun = record.steered_into is None and any(message.turn == record.seq for message in messages)
    again = msgspec.structs.replace(
        record, state=RunState.QUEUED, steered_into=None, attempt=record.attempt + 1 if has_begun else record.attempt
    )
    run = AcceptedRun(again, lanes.forget)
    run.attempted = tuple(messages) if has_begun else ()
    return run
