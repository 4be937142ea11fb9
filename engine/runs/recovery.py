"""Recovery: what becomes of the runs that an earlier server left unfinished (R24, R25).

Canceled ones end canceled, and active ones interrupted; what was waiting runs, and what is to be retried begins again.
A run is dealt with in one commit, so that a crash in the middle leaves nothing but less to do. The commits are sent a
page of runs at a time, and share transactions.
"""

from collections.abc import Callable, Sequence

import msgspec
import structlog
import trio

from engine.errors import StoreUnavailable
from engine.records.change import QueueRun, ResolveRequest, UpdateSession, Write
from engine.records.ids import RequestId, RunId, WorkspaceId
from engine.records.message import Message, Role
from engine.records.permission import Decision
from engine.records.run import OnCrash, RunError, RunRecord, RunState
from engine.runs.accept import Conduct
from engine.runs.accepted import AcceptedRun
from engine.runs.ending_commit import EndingCommit
from engine.runs.lanes import Lanes
from engine.runs.left_turn import RETRIED, close_turn, interruption
from engine.runs.outcome import Outcome, canceled, interrupted
from engine.runs.settle import Settler
from engine.runs.title import first_words
from engine.store.protocol import Store

PAGE = 64  # runs that are read together, with what they wrote
STALLED_S = 30.0  # a log that writes nothing for so long is stuck; one that writes has many workspaces to recover

UNREADABLE = RunError("store", "Interrupted", "The server stopped while this run was active, and what it had said "
                      "cannot be read; the server's log says why.")  # fmt: skip

logger = structlog.get_logger(__name__)


class RecoverySeams(msgspec.Struct, frozen=True, kw_only=True):
    """What recovering works with."""

    workspace_id: WorkspaceId
    store: Store
    settler: Settler
    lanes: Lanes
    conduct: Conduct
    now_us: Callable[[], int]
    max_attempts: int
    bound_s: float  # how long the store may refuse an ending
    committed: Callable[[], int]  # how many changes the log has written, whosever
    gives_titles: bool


class Recovery:
    """Takes up the runs of one workspace, before anything new is accepted there."""

    def __init__(self, seams: RecoverySeams) -> None:
        self._seams = seams
        self._waiting: list[AcceptedRun] = []
        self._requests: dict[RunId, list[RequestId]] = {}  # that wait for a person's answer
        self._ended = 0

    async def run(self) -> None:
        """End what was canceled or interrupted, then start what was waiting and what is to be retried, in accept order.

        Raises StoreUnavailable if that cannot be written; whatever was is done, and the rest is there the next time.
        """
        seams = self._seams
        commits: list[EndingCommit] = []
        after = 0
        for request in await seams.store.open_requests(seams.workspace_id):
            self._requests.setdefault(request.run_id, []).append(request.id)
        while page := await seams.store.unsettled_runs(seams.workspace_id, after=after, limit=PAGE):
            after = page[-1].seq
            messages = await self._messages_of(page)
            found = [await self._deal_with(run, messages.get(run.id)) for run in page]
            await self._written(commits)  # the page before: this one was read meanwhile
            commits = [commit for commit in found if commit is not None]
        await self._written(commits)
        for run in self._waiting:
            lane = seams.lanes.lane(run.record.session_id)
            lane.readmit(run)
            seams.lanes.add(run)
            seams.conduct(run, lane, None, None)
        if self._waiting or self._ended:
            logger.info("runs taken up", workspace_id=seams.workspace_id, ended=self._ended, waiting=len(self._waiting))

    async def _messages_of(self, page: Sequence[RunRecord]) -> dict[RunId, list[Message]]:
        """What those wrote that have begun a turn of their own; one whose messages cannot be read is left out."""
        store, workspace_id = self._seams.store, self._seams.workspace_id
        begun = [run.id for run in page if run.state is RunState.ACTIVE and run.steered_into is None]
        await trio.lowlevel.checkpoint()
        if not begun:
            return {}
        try:
            return {run_id: [] for run_id in begun} | await store.messages_of_runs(workspace_id, begun)
        except StoreUnavailable as error:
            logger.error("messages cannot be read together", workspace_id=workspace_id, error=str(error))
        messages: dict[RunId, list[Message]] = {}
        for run_id in begun:
            try:
                messages[run_id] = await store.run_messages(workspace_id, run_id)
            except StoreUnavailable as error:
                logger.error("messages of a run cannot be read", run_id=run_id, error=str(error))
        return messages

    async def _deal_with(self, run: RunRecord, messages: list[Message] | None) -> EndingCommit | None:
        """Send on its way what has to be written of this run, if anything has, and note whether it waits."""
        if run.state is RunState.ACTIVE and run.steered_into is not None:
            return await self._deal_with_steered(run, run.steered_into)
        await trio.lowlevel.checkpoint_if_cancelled()
        if run.cancel_requested_at_us is not None:
            return self._end(run, messages, canceled(run.cancel_reason or ""))
        if run.state is not RunState.ACTIVE:
            self._take_up(run)
            return None
        if run.prompt.on_crash is OnCrash.RETRY and run.attempt < self._seams.max_attempts and messages is not None:
            return self._retry(run, messages)
        return self._end(run, messages, interruption(run, self._seams.max_attempts))

    async def _deal_with_steered(self, run: RunRecord, host_id: RunId) -> EndingCommit:
        """A run in the turn of another: it ends with that, unless it is to be retried or that was canceled alone. Then
        it runs as a turn of its own (R12)."""
        settler, store, workspace_id = self._seams.settler, self._seams.store, self._seams.workspace_id
        await trio.lowlevel.checkpoint()
        if run.cancel_requested_at_us is not None:
            self._ended += 1
            return settler.end_left_steered(run, None, canceled(run.cancel_reason or ""))
        host = await store.run(workspace_id, host_id)
        is_host_canceled = host is not None and host.run.cancel_requested_at_us is not None
        if is_host_canceled or run.prompt.on_crash is OnCrash.RETRY:
            self._take_up(msgspec.structs.replace(run, steered_into=None))
            return settler.commit_for(run, (*self._withdrawals(run), QueueRun(run.id)))
        said = await store.run_messages(workspace_id, host_id)
        said = [message for message in said if message.session_id == run.session_id]  # and not what sub-agents said
        last = next((message for message in reversed(said) if message.role is Role.ASSISTANT), None)
        self._ended += 1
        return settler.end_left_steered(run, last, interruption(run, self._seams.max_attempts))

    def _end(self, run: RunRecord, messages: list[Message] | None, outcome: Outcome) -> EndingCommit:
        self._ended += 1
        if run.state is RunState.ACTIVE and messages is None:
            is_canceled = outcome.state is RunState.CANCELED
            return self._seams.settler.end_left_bare(run, outcome if is_canceled else interrupted(UNREADABLE))
        return self._seams.settler.end_left(run, messages or (), outcome, title=self._title(run))

    def _retry(self, run: RunRecord, messages: list[Message]) -> EndingCommit:
        """Close the attempt that was broken off, so that what it left is marked and complete; the next one begins
        behind it. Until then the run stays active, and goes back to no earlier state."""
        turn = close_turn(run, messages, interrupted(RETRIED), at_us=self._seams.now_us())
        writes: tuple[Write, ...] = (*turn.writes, *self._title(run), *self._withdrawals(run))
        again = self._take_up(msgspec.structs.replace(run, attempt=run.attempt + 1))
        again.attempted = turn.shown_again()
        return self._seams.settler.commit_for(run, writes)

    def _take_up(self, run: RunRecord) -> AcceptedRun:
        handle = AcceptedRun(msgspec.structs.replace(run, state=RunState.QUEUED), self._seams.lanes.forget)
        self._waiting.append(handle)
        return handle

    def _withdrawals(self, run: RunRecord) -> tuple[Write, ...]:
        """Nobody waits any more for what an attempt asked a person (R10)."""
        at_us = self._seams.now_us()
        return tuple(ResolveRequest(id, Decision.WITHDRAWN, at_us) for id in self._requests.get(run.id, ()))

    def _title(self, run: RunRecord) -> tuple[UpdateSession, ...]:
        """If the crash came while the session was given a title, the first words of the prompt are one."""
        if not self._seams.gives_titles or run.state is not RunState.ACTIVE:
            return ()
        at_us, title = self._seams.now_us(), first_words(run.prompt)
        return (UpdateSession(session_id=run.session_id, at_us=at_us, title=title, only_if_title=""),)

    async def _written(self, commits: Sequence[EndingCommit]) -> None:
        """Wait until they are written. There may be many before them: as long as the log gets on, so does this."""
        stalled_s = 0.0
        while True:
            before = self._seams.committed()
            with trio.move_on_after(self._seams.bound_s) as scope:
                await trio.lowlevel.checkpoint()
                for commit in commits:
                    await commit.wait()
            if not scope.cancelled_caught:
                return
            trouble = next((commit.trouble for commit in commits if commit.trouble is not None), None)
            stalled_s = stalled_s + self._seams.bound_s if self._seams.committed() == before else 0.0
            if trouble is not None or stalled_s >= STALLED_S:
                break
        kind, why = (type(trouble), f": {trouble}") if trouble is not None else (StoreUnavailable, "")
        raise kind(f"the store does not take the endings of the runs that were left unfinished{why}")
