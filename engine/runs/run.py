"""The run task: what becomes of an accepted run, from the commit of its acceptance to its terminal event."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import structlog
import trio

from engine.agents.protocol import Agent
from engine.errors import CountermandError, ModelError, NotFound, StoreError, WorkspaceClosing
from engine.events.log import EventLog, Pending
from engine.records.change import Change, CreateMessage, QueueRun, StartRun, Write
from engine.records.ids import SessionId, WorkspaceId
from engine.records.message import Message
from engine.records.run import RunError, RunRecord
from engine.runs.accepted import AcceptedRun
from engine.runs.dispatch import Entry, SessionDispatch
from engine.runs.message_writer import MessageOutlet
from engine.runs.settle import Outcome, Settler, canceled, completed, failed
from engine.runs.turn import RunTurn, assistant_message, user_message
from engine.settings import EngineSettings
from engine.store.protocol import Committed, Store
from engine.tools.protocol import Tool

BeforeEntry = Callable[[AcceptedRun], Awaitable[None]]
OnFirstTurn = Callable[[RunRecord], None]

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
    slots: trio.CapacityLimiter  # of the whole server; first come, first served, one place a session (R14)
    outlet: MessageOutlet
    now_us: Callable[[], int]
    chosen_model: Callable[[], str | None]
    on_first_turn: OnFirstTurn
    drop_lane: Callable[[SessionId], None]
    before_entry: BeforeEntry | None = None


class Runner:
    """Runs the runs of one workspace. Its coroutines are tasks of the workspace's nursery, and never raise."""

    def __init__(self, seams: RunSeams) -> None:
        self._seams = seams
        self._settler = Settler(seams.log, seams.workspace_id, now_us=seams.now_us, settle_s=seams.settings.settle_s)

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
                await self._settler.settle_unbegun(current, canceled(current.cancel_reason or ""))
            else:
                await self._perform(current, lane)
            current, entry = lane.leave(current), Entry.START
        self._seams.drop_lane(run.record.session_id)

    async def settle_orphan(self, run: AcceptedRun) -> None:
        """End a run that was canceled while nobody ran it."""
        outcome = canceled(run.cancel_reason or "")
        if run.steered_into is not None:
            await self._settler.settle_steered(run, outcome)
        else:
            await self._settler.settle_unbegun(run, outcome)

    async def settle_recovered(self, record: RunRecord, messages: list[Message], outcome: Outcome) -> None:
        """End a run of an earlier server from what it left in the store (R25)."""
        await self._settler.settle_recovered(record, messages, outcome)

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
                run.decide(WorkspaceClosing(self._seams.workspace_id))
        if refusal is None:
            run.decide()
            return run  # noqa: ASYNC910  (`wait` is a checkpoint, which the linter cannot see through the `try`)
        following = lane.withdraw(run)
        run.decide(refusal)
        run.mark_settled()
        return following  # noqa: ASYNC910

    def _queue(self, run: AcceptedRun) -> None:
        """Record that the run waits. Nobody waits for this commit: whoever takes the run over writes behind it."""
        self._submit(QueueRun(run.record.id))

    async def _perform(self, run: AcceptedRun, lane: SessionDispatch) -> None:
        """Run a run that holds its lane, and settle it, whatever happens."""
        turn: RunTurn | None = None
        outcome = canceled("the workspace stopped")  # what it is if this task is canceled from above
        try:
            with trio.CancelScope() as scope:
                run.bind(scope.cancel)  # a cancel that came before acts at the next checkpoint
                async with self._seams.slots:
                    turn = await self._begin(run, lane)
                    if turn is not None:
                        outcome = await self._respond(turn)
        except* Exception as group:  # the run task's catch-all: a bug of ours ends the run, not the workspace
            logger.error("run crashed", run_id=run.record.id, exc_info=group)
            leaf = first_leaf(group)
            outcome = failed(describe(leaf) if isinstance(leaf, CountermandError) else INTERNAL)
        finally:
            await self._settle(run, lane, turn, outcome)  # noqa: ASYNC102  (shielded and bounded, in Settler)

    async def _settle(self, run: AcceptedRun, lane: SessionDispatch, turn: RunTurn | None, outcome: Outcome) -> None:
        if run.is_canceled:
            outcome = canceled(run.cancel_reason or "")
        if turn is not None:
            ending, returning = lane.unfold(run)
            await self._settler.settle_turn(run, turn, outcome, ending=ending, returning=returning)
        elif run.parked and not run.is_canceled:
            run.mark_settled()  # stays accepted or queued in the store, for the next start (R24)
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._settler.settle_unbegun(run, outcome)

    async def _begin(self, run: AcceptedRun, lane: SessionDispatch) -> RunTurn | None:
        """Make the run active in the store, and give it its turn; None if a cancel is on record (R09).

        The wait is shielded with a deadline: whether the run began decides what its canceled turn looks like.
        """
        seams, record = self._seams, run.record
        at_us = seams.now_us()
        user = user_message(record, turn=record.seq, at_us=at_us)
        assistant = assistant_message(record, at_us=at_us)
        if run.is_canceled or run.parked:
            await trio.lowlevel.checkpoint()
            return None
        run.has_begun = True
        asked = record.prompt.model or seams.chosen_model()
        provider, _, model = (asked or "").partition("/")
        pending = self._submit(
            StartRun(
                run_id=record.id, at_us=at_us, model=model, provider=provider, attempt=record.attempt,
                writes=(CreateMessage(user), CreateMessage(assistant)),
            )
        )  # fmt: skip
        # Made before the wait: if that is given up, what was begun is still ended as begun, behind it in the log.
        turn = RunTurn(
            record, user=user, assistant=assistant, workspace=seams.root, model=asked, outlet=seams.outlet,
            flush_s=seams.settings.flush_s, tools=seams.tools, take_steered=lambda: lane.take_steered(run),
        )  # fmt: skip
        committed: Committed | None = None
        with trio.move_on_after(seams.settings.settle_s, shield=True):
            committed = await pending.wait()
        if committed is not None and not committed.applied[0]:
            return None
        turn.begin(is_stored=committed is not None)
        return turn

    async def _respond(self, turn: RunTurn) -> Outcome:
        """Let the agent answer, within the deadline."""
        timeout_s = turn.prompt.timeout_s or self._seams.settings.default_timeout_s
        problem: BaseException | None = None
        if not turn.is_stored:
            await trio.lowlevel.checkpoint()
            return failed(RunError("store", "The store does not answer", "The disk is slow or full; send it again."))
        with trio.move_on_after(timeout_s) as deadline:  # noqa: ASYNC912
            try:
                earlier = await self._seams.store.history(self._seams.workspace_id, turn.session_id, turn.run.seq)
                if not earlier:
                    self._seams.on_first_turn(turn.run)
                turn.recall(earlier)
                await self._seams.agent.respond(turn)
            except* Exception as group:
                problem = first_leaf(group)
        if deadline.cancelled_caught:
            details = f"The run did not end within its deadline of {timeout_s:g} s (timeout_s)."
            return failed(RunError("timeout", "Timed out", details))  # noqa: ASYNC910
        if problem is not None:
            return failed(describe(problem))  # noqa: ASYNC910
        return completed(turn.planned_finish)  # noqa: ASYNC910

    def _submit(self, *writes: Write) -> Pending:
        return self._seams.log.submit(Change(self._seams.workspace_id, self._seams.now_us(), writes))


def first_leaf(group: BaseExceptionGroup[Exception]) -> BaseException:
    """The failure that a person is told of: the first of the group that names itself, else the first."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(reversed(error.exceptions))
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, CountermandError)), leaves[0])


def describe(error: BaseException) -> RunError:
    """A failure in words that a person can act on (R20)."""
    if isinstance(error, ModelError):
        return RunError(error.kind, error.title, error.details)
    if isinstance(error, CountermandError):
        return RunError("engine", "The run could not go on", str(error))
    logger.error("agent failed", exc_info=error)
    return RunError("agent", "The agent failed", f"{type(error).__name__}: {error}")
