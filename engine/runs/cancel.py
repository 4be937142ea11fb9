"""Canceling: by session, by run, by queue, and all of a workspace.

Every cancel has two halves in one synchronous step: the flags on the handles, which reach whatever is running, and the
record of it on its way to the store, which the store's writer sees before any ending that a flagged run may submit. The
answer waits for the record, and names what the writer found it to cover (R11).
"""

from collections.abc import Awaitable, Callable

import msgspec
import trio

from engine.events.log import EventLog
from engine.records.change import Change, RequestCancel
from engine.records.ids import RunId, WorkspaceId
from engine.records.run import RunRecord, RunState
from engine.runs.accepted import AcceptedRun
from engine.runs.dispatch import Cancellation, SessionDispatch
from engine.runs.lanes import Lanes

USER_CANCEL = "canceled by the user"
QUEUE_CLEARED = "removed from the queue"

ReadRun = Callable[[str], Awaitable[RunRecord]]


class CancelAnswer(msgspec.Struct, frozen=True):
    """What a cancel of one run came to (R12): the runs that it covers, and the state that the run is in."""

    canceled: tuple[RunId, ...]
    state: RunState


class Canceler:
    """Cancels the runs of one workspace. `settle_orphan` is told of each run that nobody runs any more."""

    def __init__(
        self,
        lanes: Lanes,
        log: EventLog,
        workspace_id: WorkspaceId,
        *,
        now_us: Callable[[], int],
        settle_orphan: Callable[[AcceptedRun], None],
    ) -> None:
        self._lanes = lanes
        self._log = log
        self._workspace_id = workspace_id
        self._now_us = now_us
        self._settle_orphan = settle_orphan

    async def cancel_session(self, session_id: str, reason: str) -> tuple[RunId, ...]:
        """Cancel every run of the session that is registered now (R07). Nothing there: nothing happens (R08)."""
        runs = self._lanes.of_session(session_id)
        lane = self._lanes.existing_lane(session_id)
        return await self._record(runs, lane.cancel(reason) if lane else Cancellation(), reason)

    async def cancel_run(self, run_id: str, reason: str, read: ReadRun) -> CancelAnswer:
        """Cancel one run and no other (R12). `read` gives it as it is stored; what that raises is raised."""
        covered = await self._cancel_live(run_id, reason)
        state = (await read(run_id)).state
        if not covered and not state.is_terminal:
            # Accepted since we looked for it: who is told that it has not ended must not be told that it goes on (R07).
            covered = await self._cancel_live(run_id, reason)
            state = (await read(run_id)).state
        return CancelAnswer(covered, state)

    async def _cancel_live(self, run_id: str, reason: str) -> tuple[RunId, ...]:
        """Cancel the run if there is a handle on it now."""
        run = self._lanes.find(run_id)
        if run is None:
            await trio.lowlevel.checkpoint()
            return ()
        lane = self._lanes.lane(run.record.session_id)
        return await self._record((run,), lane.cancel_runs((run,), reason), reason)

    async def clear_queue(self, session_id: str) -> tuple[RunId, ...]:
        """Cancel what waits behind another run; the active one goes on (R17)."""
        lane = self._lanes.existing_lane(session_id)
        cleared = lane.clear_queue(QUEUE_CLEARED) if lane else Cancellation()
        return await self._record(cleared.covered, cleared, QUEUE_CLEARED)

    async def cancel_all(self, reason: str) -> tuple[RunId, ...]:
        """Cancel every run of the workspace (R23)."""
        runs = self._lanes.all_runs()
        return await self._record(runs, merged([lane.cancel(reason) for lane in self._lanes.all_lanes()]), reason)

    async def cancel_begun(self, reason: str) -> tuple[RunId, ...]:
        """Cancel what is active, and leave what waits (R24)."""
        flagged = merged([lane.cancel_runs(begun(lane), reason) for lane in self._lanes.all_lanes()])
        return await self._record(flagged.covered, flagged, reason)

    def interrupt(self, lane: SessionDispatch, runs: tuple[AcceptedRun, ...], reason: str) -> None:
        """Flag runs whose cancel was committed together with the acceptance that interrupts them (R15)."""
        self._settle_orphans(lane.cancel_runs(runs, reason))

    async def _record(self, runs: tuple[AcceptedRun, ...], flagged: Cancellation, reason: str) -> tuple[RunId, ...]:
        """Commit the cancel of these runs, flagged in this same step, and return those that it covers."""
        if not runs:
            await trio.lowlevel.checkpoint()
            return ()
        for run in runs:
            run.cancel(reason)  # also what has left its lane: its ending may not be written yet
        at_us = self._now_us()
        try:
            pending = self._log.submit(Change(self._workspace_id, at_us, (RequestCancel(ids(runs), reason, at_us),)))
        finally:
            # Also if the log takes nothing more: the flags stand, and nobody else would end these.
            self._settle_orphans(flagged)
        return (await pending.wait()).covered

    def _settle_orphans(self, flagged: Cancellation) -> None:
        for run in flagged.orphaned:
            self._settle_orphan(run)


def ids(runs: tuple[AcceptedRun, ...]) -> tuple[RunId, ...]:
    """The runs' ids."""
    return tuple(run.record.id for run in runs)


def begun(lane: SessionDispatch) -> tuple[AcceptedRun, ...]:
    """The active run of the lane and those steered into it, if it has begun."""
    return lane.turn_members() if lane.active is not None and lane.active.has_begun else ()


def merged(cancellations: list[Cancellation]) -> Cancellation:
    """Several lanes' cancellations as one."""
    return Cancellation(
        covered=tuple(run for one in cancellations for run in one.covered),
        orphaned=tuple(run for one in cancellations for run in one.orphaned),
    )
