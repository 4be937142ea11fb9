"""The run task: what becomes of an accepted run, from the commit of its acceptance to its terminal event."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
import structlog
import trio

from engine.agents.protocol import Agent
from engine.errors import CountermandError, NotFound, StoreError, StoreUnavailable
from engine.events.log import EventLog, Pending
from engine.records.change import Change, CreateMessage, QueueRun, StartRun, Write
from engine.records.ids import SessionId, WorkspaceId
from engine.records.run import OnCrash, RunError, RunRecord, RunState
from engine.runs.accepted import AcceptedRun, Stage
from engine.runs.answering import Answering, first_leaf
from engine.runs.dispatch import Entry, SessionDispatch
from engine.runs.message_writer import MessageOutlet
from engine.runs.outcome import Outcome, canceled, completed, describe, failed, interrupted
from engine.runs.settle import Settler
from engine.runs.sub_agents import SubAgents
from engine.runs.turn import RunTurn
from engine.runs.turn_messages import assistant_message, user_message
from engine.settings import EngineSettings
from engine.store.protocol import Store
from engine.tools.permissions import Permissions
from engine.tools.protocol import Tool
from engine.tools.toolbox import EndRun

BeforeEntry = Callable[[AcceptedRun], Awaitable[None]]
OnFirstTurn = Callable[[RunRecord], None]

UNDECIDED = "the server stopped before it was known whether the run was accepted; retry with the same run_id"
STOPPED = RunError(
    "interrupted", "Interrupted", "The workspace stopped under this run. What it had said is kept; send it again."
)
INTERNAL = RunError("internal", "Internal error", "The server met an error of its own; its log says more.")

logger = structlog.get_logger(__name__)


class RunSeams(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs of a workspace work with."""

    workspace_id: WorkspaceId
    root: Path
    settings: EngineSettings
    store: Store
    log: EventLog
    agent: Agent
    tools: Mapping[str, Tool]
    end_run: EndRun
    permissions: Permissions
    slots: trio.CapacityLimiter  # of the whole server; first come, first served, one place a session (R14)
    outlet: MessageOutlet
    now_us: Callable[[], int]
    chosen_model: Callable[[], str | None]
    on_first_turn: OnFirstTurn
    start: Callable[[Callable[[], Awaitable[None]]], None]  # a task of the workspace
    drop_lane: Callable[[SessionId], None]
    before_entry: BeforeEntry | None = None


class LaneSteering:
    """The lane, as the turn of its active run sees it."""

    def __init__(self, lane: SessionDispatch, host: AcceptedRun) -> None:
        self._lane = lane
        self._host = host

    def take(self) -> tuple[AcceptedRun, ...]:
        """The parked runs that want to steer."""
        return self._lane.take_steered(self._host)

    def give_back(self, runs: tuple[AcceptedRun, ...]) -> None:
        """They wait again."""
        self._lane.give_back(runs)


class Runner:
    """Runs the runs of one workspace. Its coroutines are tasks of the workspace's nursery, and never raise."""

    def __init__(self, seams: RunSeams) -> None:
        self._seams = seams
        self.settler = Settler(
            seams.log,
            seams.workspace_id,
            now_us=seams.now_us,
            settle_s=seams.settings.settle_s,
            start=seams.start,
        )
        self._sub_agents = SubAgents(seams.agent, seams.permissions, seams.outlet, flush_s=seams.settings.flush_s)

    async def conduct(
        self,
        run: AcceptedRun,
        lane: SessionDispatch,
        acceptance: Pending | None,
        on_accepted: Callable[[], None] | None = None,
    ) -> None:
        """Wait for the acceptance, enter the lane, and run whatever it hands over, until there is nothing to start.

        `acceptance` is None for a recovered run. `on_accepted` is called in the step in which the run becomes durable.
        """
        current = await self._admit(run, lane, acceptance)
        entry = Entry.START
        if current is run:
            if on_accepted is not None:
                on_accepted()
            if self._seams.before_entry is not None:
                await self._seams.before_entry(run)
            entry = lane.enter(run)
        while current is not None:
            # From `enter` or `leave` to here nothing else has run: a parked run is never left with nobody to start it.
            if entry is Entry.QUEUED:
                self._queue(current)
                return
            if entry is Entry.CANCELED:
                await self.settler.settle_unbegun(current, canceled(current.cancel_reason or ""))
            else:
                await self._perform(current, lane)
                if current.stage is Stage.QUEUED:  # the server stops: it waits for the next start, or for its cancel
                    return
            current, entry = lane.leave(current), Entry.START
        self._seams.drop_lane(run.record.session_id)

    async def settle_orphan(self, run: AcceptedRun) -> None:
        """End a run that was canceled while nobody ran it."""
        outcome = canceled(run.cancel_reason or "")
        if run.steered_into is not None:
            await self.settler.settle_steered(run, outcome)
        else:
            await self.settler.settle_unbegun(run, outcome)

    async def _admit(self, run: AcceptedRun, lane: SessionDispatch, acceptance: Pending | None) -> AcceptedRun | None:
        """The run itself once it is durable; if it was refused, the run that its withdrawal lets start."""
        if acceptance is None:  # recovered: it was durable before
            await trio.lowlevel.checkpoint()
            run.decide()
            return run
        refusal: Exception | None = None
        try:
            committed = await acceptance.wait()
            if not committed.applied[0]:
                refusal = NotFound("session", run.record.session_id)
        except StoreError as error:
            refusal = error
        finally:
            if not acceptance.is_done:  # this task is canceled from above; the row, if it comes, is recovered
                run.decide(StoreUnavailable(UNDECIDED))
        if refusal is None:
            run.decide()
            return run  # noqa: ASYNC910  (`wait` is a checkpoint, which the linter cannot see through the `try`)
        following = lane.withdraw(run)
        run.interrupt_nobody()
        run.decide(refusal)
        run.mark_settled()
        return following  # noqa: ASYNC910

    def _queue(self, run: AcceptedRun) -> None:
        """Record that the run waits. Nobody waits for this commit: whoever takes the run over writes behind it."""
        change = Change(self._seams.workspace_id, self._seams.now_us(), (QueueRun(run.record.id),))
        self._seams.log.submit_droppable(change)

    async def _perform(self, run: AcceptedRun, lane: SessionDispatch) -> None:
        """Run a run that holds its lane, and settle it, whatever happens."""
        turn: RunTurn | None = None
        outcome: Outcome | None = None  # None: nothing was decided here, because it was canceled
        try:
            with trio.CancelScope() as scope:
                run.bind(scope.cancel)  # a cancel that came before acts at the next checkpoint
                async with self._seams.slots:
                    if run.is_free:
                        turn = self._begin(run, lane)
                        if await self._is_begun(turn):
                            outcome = await self._respond(turn)
        except* Exception as group:  # the run task's catch-all: a bug of ours ends the run, not the workspace
            logger.error("run crashed", run_id=run.record.id, exc_info=group)
            leaf = first_leaf(group)
            outcome = failed(describe(leaf) if isinstance(leaf, CountermandError) else INTERNAL)
        finally:
            await self._settle(run, lane, turn, outcome)  # noqa: ASYNC102  (shielded and bounded, in Settler)

    async def _settle(
        self, run: AcceptedRun, lane: SessionDispatch, turn: RunTurn | None, outcome: Outcome | None
    ) -> None:
        was_refused = turn is not None and turn.was_refused  # because a cancel is on record, whose flag may be to come
        is_begun = turn is not None and not was_refused
        if outcome is None or outcome.state is not RunState.COMPLETED or run.is_cut_short:
            await self._seams.end_run(run.record.id)
        if outcome is None and not run.is_canceled and not was_refused:
            # Nobody canceled it: it was parked, or its workspace goes down under it, by a failure of its own or with
            # the whole server. What has not begun, or is to be retried, stays as it is for the next opening (R24, R25),
            # which ends it if a cancel got on record after all.
            if not is_begun or run.record.prompt.on_crash is OnCrash.RETRY:
                if turn is not None:
                    turn.end()
                await leave(run, lane, is_begun=is_begun)
                return
            outcome = interrupted(STOPPED)
        if run.is_canceled or outcome is None:
            outcome = canceled(run.cancel_details or "")
        if turn is None or not is_begun:
            if turn is not None:
                turn.end()
            await self.settler.settle_unbegun(run, outcome)
            return
        ending, returning = lane.unfold(run)
        try:
            await self.settler.settle_turn(
                run, turn, outcome, ending=ending, returning=returning,
                before_retry=partial(self._end_if_cut_short, run),
            )  # fmt: skip
        except* Exception as group:  # the ending could not be made: a bug of ours, and no reason for a run without one
            logger.error("ending crashed", run_id=run.record.id, exc_info=group)
            turn.end()
            await self.settler.settle_bare((run, *ending), failed(INTERNAL), returning)

    async def _end_if_cut_short(self, run: AcceptedRun) -> None:  # noqa: ASYNC910
        """End what the run has left running if a cancel came while its ending could not be written."""
        if run.is_cut_short:
            await self._seams.end_run(run.record.id)
        # No checkpoint otherwise, in which a cancel could come.

    def _begin(self, run: AcceptedRun, lane: SessionDispatch) -> RunTurn:
        """Send on its way what makes the run active, and give it its turn."""
        seams, record = self._seams, run.record
        at_us = seams.now_us()
        written = run.attempted or (user_message(record, turn=record.seq, at_us=at_us),)
        assistant = assistant_message(record, at_us=at_us)
        asked = record.prompt.model or seams.chosen_model()
        provider, _, model = (asked or "").partition("/")
        start = self._submit(
            StartRun(
                run_id=record.id, at_us=at_us, model=model, provider=provider, attempt=record.attempt,
                writes=tuple(CreateMessage(one) for one in (*(() if run.attempted else written), assistant)),
            )
        )  # fmt: skip
        run.has_begun = True
        return RunTurn(
            record, start=start, written=written, assistant=assistant, workspace=seams.root, model=asked,
            outlet=seams.outlet, flush_s=seams.settings.flush_s, tools=seams.tools, permissions=seams.permissions,
            steering=LaneSteering(lane, run), delegate=self._sub_agents.delegate,
        )  # fmt: skip

    async def _is_begun(self, turn: RunTurn) -> bool:
        """Wait until the run is active in the store; whether it is, or a cancel is on record (R09). Raises StoreError.

        A cancel in the middle still waits, shielded and bounded: what a canceled turn looks like depends on it.
        """
        try:
            committed = await turn.start.wait()
        finally:
            if not turn.start.is_done:
                with trio.move_on_after(self._seams.settings.settle_s, shield=True):
                    await turn.start.wait()
        if committed.applied[0]:
            turn.begin()
        return committed.applied[0]

    async def _respond(self, turn: RunTurn) -> Outcome:
        """Let the agent answer, within the deadline."""
        seams = self._seams
        timeout_s = turn.prompt.timeout_s or seams.settings.default_timeout_s
        answering = Answering(seams.agent, turn)
        with trio.move_on_after(timeout_s) as deadline:
            earlier = await seams.store.history(seams.workspace_id, turn.session_id, turn.run.seq)
            if not earlier:
                seams.on_first_turn(turn.run)
            turn.recall(earlier)
            seams.start(answering.run)
            await answering.wait(unwind_s=seams.settings.unwind_s)
        if deadline.cancel_called:
            details = f"The run did not end within its deadline of {timeout_s:g} s (timeout_s)."
            return failed(RunError("timeout", "Timed out", details))
        if answering.problem is not None:
            return failed(describe(answering.problem))
        if not answering.has_returned:
            return canceled("the agent was stopped")
        return completed(turn.planned_finish)

    def _submit(self, *writes: Write) -> Pending:
        return self._seams.log.submit(Change(self._seams.workspace_id, self._seams.now_us(), writes))


async def leave(run: AcceptedRun, lane: SessionDispatch, *, is_begun: bool) -> None:
    """Leave a run to the next start. While the server only drains, a cancel still finds one that was parked (R07)."""
    if run.parked and not is_begun:
        lane.put_back(run)
    else:
        run.mark_settled()
    await trio.lowlevel.cancel_shielded_checkpoint()
