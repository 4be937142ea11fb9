"""Recovery: what becomes of the runs that an earlier server left unfinished (R24, R25)."""

import structlog

from engine.records.ids import WorkspaceId
from engine.records.run import RunError, RunState
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

logger = structlog.get_logger(__name__)


async def recover(workspace_id: WorkspaceId, store: Store, runner: Runner, lanes: Lanes, conduct: Conduct) -> None:
    """End what was active or canceled, then start what was waiting, in accept order. Raises StoreError."""
    waiting: list[AcceptedRun] = []
    for record in await store.unsettled_runs(workspace_id):
        if record.cancel_requested_at_us is not None:
            outcome = canceled(record.cancel_reason or "")
        elif record.state is RunState.ACTIVE:
            outcome = interrupted(INTERRUPTED)
        else:
            waiting.append(AcceptedRun(record, lanes.forget))
            continue
        await runner.settle_recovered(record, await store.run_messages(workspace_id, record.id), outcome)
    for run in waiting:
        lane = lanes.lane(run.record.session_id)
        lane.readmit(run)
        lanes.add(run)
        conduct(run, lane, None, None)
    if waiting:
        logger.info("runs taken up again", workspace_id=workspace_id, runs=len(waiting))
