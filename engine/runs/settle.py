"""Settling: the only door through which a run ends (R18, R19).

Every ending is one change: the open tool calls get results, the last message its finish, the session its usage, the run
its terminal state, and the terminal event comes last. The change holds two endings, the one that the run came to and
the one it has if a cancel is on record; the store's writer takes the one that is true at the moment of the commit
(R11).
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
import trio

from engine.errors import StoreUnavailable
from engine.events.log import EventLog, Pending
from engine.records.change import (
    Change,
    CreateMessage,
    Ending,
    QueueRun,
    SettleRun,
    UpdateSession,
    Write,
)
from engine.records.event import AgentFailed, AgentFinished
from engine.records.ids import RunId, WorkspaceId
from engine.records.message import Message
from engine.records.run import RunRecord, RunState, Usage
from engine.runs.accepted import AcceptedRun
from engine.runs.ending_commit import EndingCommit, as_canceled
from engine.runs.left_turn import close_turn
from engine.runs.outcome import Outcome, canceled
from engine.runs.turn import EndingWrites, RunTurn
from engine.runs.turn_closing import closing_writes, usage_writes
from engine.runs.turn_messages import assistant_message, user_message

Start = Callable[[Callable[[], Awaitable[None]]], None]

logger = structlog.get_logger(__name__)


class Settler:
    """Ends the runs of one workspace. Each settle is shielded and bounded by `settle_s` (R13, R23)."""

    def __init__(
        self, log: EventLog, workspace_id: WorkspaceId, *, now_us: Callable[[], int], settle_s: float, start: Start
    ) -> None:
        self._log = log
        self._workspace_id = workspace_id
        self._now_us = now_us
        self._settle_s = settle_s
        self._start = start

    async def settle_unbegun(self, run: AcceptedRun, outcome: Outcome) -> None:
        """End a run that never began: its turn is the prompt and an empty answer (R09)."""
        await self._settle((run,), (self._unbegun(run, outcome),))

    def _unbegun(self, run: AcceptedRun, outcome: Outcome) -> SettleRun:
        at_us = self._now_us()
        user = user_message(run.record, turn=run.record.seq, at_us=at_us)
        answer = assistant_message(run.record, at_us=at_us)

        def ending(outcome: Outcome) -> Ending:
            finish = msgspec.structs.replace(outcome.finish, at_us=at_us)
            last = msgspec.structs.replace(answer, parts=(finish,))
            prompt = () if run.attempted else (CreateMessage(user),)
            return end_with(run.record, outcome, last, (*prompt, CreateMessage(last)), at_us=at_us)

        return SettleRun(run.record.id, ending(outcome), ending(self._if_canceled(run)))

    async def settle_turn(
        self,
        run: AcceptedRun,
        turn: RunTurn,
        outcome: Outcome,
        *,
        ending: tuple[AcceptedRun, ...],
        returning: tuple[AcceptedRun, ...],
        before_retry: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """End a run that began, and with it the runs that were steered into it; those that go back are queued again.
        `before_retry` is awaited ahead of each further try to commit that."""
        at_us = self._now_us()
        used = usage_writes(turn, at_us)
        endings = [self._end_turn(turn, one, used, at_us=at_us) for one in (outcome, self._if_canceled(run))]
        turn.end()
        writes: list[Write] = [SettleRun(run.record.id, *endings)]
        for steered in ending:
            planned = canceled(steered.cancel_reason) if steered.cancel_reason is not None else outcome
            last = turn.ended(planned.finish.reason)
            writes.append(
                SettleRun(
                    steered.record.id,
                    end_with(steered.record, planned, last, (), at_us=at_us, host=turn.run_id),
                    end_with(steered.record, self._if_canceled(steered), last, (), at_us=at_us, host=turn.run_id),
                )
            )
        writes += [QueueRun(steered.record.id) for steered in returning]
        await self._settle((run, *ending), tuple(writes), before_retry)

    async def settle_steered(self, run: AcceptedRun, outcome: Outcome) -> None:
        """End a steered run that was canceled alone: its words stay in the turn that took it in (R12)."""
        ending = end_with(run.record, outcome, None, (), at_us=self._now_us())
        await self._settle((run,), (SettleRun(run.record.id, ending, ending),))

    def end_left(
        self, run: RunRecord, messages: Sequence[Message], outcome: Outcome, *, title: tuple[UpdateSession, ...] = ()
    ) -> EndingCommit:
        """Send the ending of a run that an earlier server left on its way, made from the messages that it left (R25).
        It is for the caller to wait, and for how long."""
        handle, at_us = AcceptedRun(run), self._now_us()
        if run.state is not RunState.ACTIVE:
            return EndingCommit((handle,), (self._unbegun(handle, outcome),), self._submit)

        def ending(outcome: Outcome) -> Ending:
            turn = close_turn(run, messages, outcome, at_us=at_us)
            return end_with(run, outcome, turn.last, (*turn.writes, *title), at_us=at_us)

        settle = SettleRun(run.id, ending(outcome), ending(self._if_canceled(handle)))
        return EndingCommit((handle,), (settle,), self._submit)

    def end_left_steered(self, run: RunRecord, last: Message | None, outcome: Outcome) -> EndingCommit:
        """The same for a run that was steered into another's turn, whose last message is given if it ends with that."""
        at_us = self._now_us()
        endings = [end_with(run, one, last, (), at_us=at_us) for one in (outcome, self._if_canceled(AcceptedRun(run)))]
        return EndingCommit((AcceptedRun(run),), (SettleRun(run.id, *endings),), self._submit)

    def end_left_bare(self, run: RunRecord, outcome: Outcome) -> EndingCommit:
        """The same for a run whose messages cannot be read: the bare fact."""
        ending = Ending(state=outcome.state, at_us=self._now_us(), error=outcome.error)
        return EndingCommit((AcceptedRun(run),), (SettleRun(run.id, ending, as_canceled(ending)),), self._submit)

    def commit_for(self, run: RunRecord, writes: tuple[Write, ...]) -> EndingCommit:
        """Send other writes of a run that an earlier server left on their way."""
        return EndingCommit((AcceptedRun(run),), writes, self._submit)

    def _end_turn(self, turn: RunTurn, outcome: Outcome, used: tuple[UpdateSession, ...], *, at_us: int) -> Ending:
        finish = outcome.finish
        last = turn.ended(finish.reason, title=finish.title, details=finish.details)
        notice: AgentFinished | AgentFailed | None = None
        if outcome.state is RunState.COMPLETED:
            notice = AgentFinished(turn.session_id, turn.run_id)
        elif outcome.error is not None:
            notice = AgentFailed(turn.session_id, turn.run_id, outcome.error)
        writes = (*closing_writes(turn, outcome, last, at_us=at_us), *used)
        ending = end_with(turn.run, outcome, last, writes, at_us=at_us)
        return msgspec.structs.replace(ending, notice=notice, usage=turn.usage)

    def _if_canceled(self, run: AcceptedRun) -> Outcome:
        return canceled(run.cancel_details or "canceled by the user")

    async def settle_bare(
        self, runs: tuple[AcceptedRun, ...], outcome: Outcome, returning: tuple[AcceptedRun, ...] = ()
    ) -> None:
        """End runs by the bare fact, because their ending could not even be made: a last resort (R18)."""
        ending = Ending(state=outcome.state, at_us=self._now_us(), error=outcome.error)
        ends = tuple(SettleRun(run.record.id, ending, as_canceled(ending)) for run in runs)
        await self._settle(runs, (*ends, *(QueueRun(run.record.id) for run in returning)))

    async def _settle(
        self,
        runs: tuple[AcceptedRun, ...],
        writes: tuple[Write, ...],
        before_retry: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Commit the ending of these runs, asking a troubled store again until the deadline; then go on beside the
        lane.

        It is submitted in the step in which it was made: a cancel that comes later finds it in the log.
        """
        commit = EndingCommit(runs, writes, self._submit, before_retry)
        with trio.move_on_after(self._settle_s, shield=True) as scope:
            await commit.wait()
        if scope.cancelled_caught:
            logger.error("run could not be settled in time; its lane goes on", run_id=runs[0].record.id)
            self._start(commit.wait)

    def _submit(self, writes: tuple[Write, ...]) -> Pending | None:
        try:
            return self._log.submit(Change(self._workspace_id, self._now_us(), writes))
        except StoreUnavailable as error:
            logger.warning("the log takes nothing", error=str(error))
            return None


def end_with(
    run: RunRecord,
    outcome: Outcome,
    last: Message | None,
    writes: EndingWrites,
    *,
    at_us: int,
    host: RunId | None = None,
) -> Ending:
    """The ending of a run whose last message is `last`."""
    return Ending(
        state=outcome.state, at_us=at_us, writes=writes, message_id=last.id if last else run.message_id,
        text=last.text if last else "", error=outcome.error, usage=Usage(), steered_into=host,
    )  # fmt: skip
