"""Workspace: one directory being worked on, with the nursery that its runs live in."""

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVarTuple

import msgspec
import structlog
import trio

from engine.claims import ClientClaims
from engine.errors import CountermandError, NotFound, StoreUnavailable, WorkspaceClosing, WorkspaceUnavailable
from engine.events.feed import Feed, open_feed
from engine.events.log import Pending
from engine.events.run_cursor import RunCursor, find_run_cursor
from engine.model_choice import Size
from engine.preferences import WorkspacePreferences
from engine.project import Project
from engine.records.ids import ClientId, RunId
from engine.records.run import Prompt, RunRecord, RunState
from engine.runs.accept import Acceptor, AcceptSeams
from engine.runs.acceptance import Accepted
from engine.runs.accepted import AcceptedRun
from engine.runs.cancel import USER_CANCEL, CancelAnswer, Canceler
from engine.runs.closing import Closing, wait_settled
from engine.runs.dispatch import SessionDispatch
from engine.runs.flusher import Flusher
from engine.runs.lanes import Lanes
from engine.runs.message_writer import MessageOutlet
from engine.runs.recovery import Recovery, RecoverySeams
from engine.runs.run import UNDECIDED, Runner, RunSeams
from engine.runs.title import give_title
from engine.sessions import Sessions
from engine.shell import Shell, ShellSeams
from engine.store.protocol import EventRange
from engine.tools.jobs import Jobs, open_jobs
from engine.tools.toolbox import OpenTools, ToolSeams, tool_seams
from engine.workspace_config import NOTHING, WorkspaceConfig, read_workspace_config
from engine.workspace_seams import WorkspaceSeams
from engine.workspace_statistics import WorkspaceStatistics

DELETE_TRIES = 3

Args = TypeVarTuple("Args")

logger = structlog.get_logger(__name__)


class Workspace:
    """Accepts, cancels and answers for the runs of one directory. Made, and ended, by `open_workspace`."""

    def __init__(
        self, seams: WorkspaceSeams, nursery: trio.Nursery, desk: ToolSeams, opened: OpenTools, *,
        config: WorkspaceConfig, jobs: Jobs, latest_seq: int,
    ) -> None:  # fmt: skip
        self.id = seams.id
        self.path = seams.path
        self.root = seams.root
        self.problem = seams.problem
        self.config = config
        self.settings = seams.settings
        self.preferences = WorkspacePreferences(seams.preferences, seams.id, config.options.over(seams.options))
        settings, now_us = seams.settings, seams.clock.now_us
        self.claims = ClientClaims(create_hold_s=settings.create_hold_s, detach_grace_s=settings.detach_grace_s)
        self.sessions = Sessions(seams.store, seams.log, seams.id, now_us)
        self.lanes = Lanes(
            queue_per_session=settings.queue_per_session, queue_per_workspace=settings.queue_per_workspace
        )
        self.flusher = Flusher(flush_s=settings.flush_s)
        self._seams = seams
        self._nursery = nursery
        self._feeds = 0
        self._is_closed = False
        self.files, self.permissions, self.questions = desk.files, desk.permissions, desk.questions
        self.project = Project(
            self.preferences, seams.store, seams.log, seams.id, now_us, root=seams.root, disk=desk.files.disk
        )
        self._outlet = MessageOutlet(seams.log, seams.id, now_us, self.flusher.mark)
        self._runner = Runner(
            RunSeams(
                workspace_id=seams.id, root=seams.root, settings=settings, store=seams.store, log=seams.log,
                agent=seams.agent, tools=opened.tools, end_run=opened.end_run, permissions=self.permissions,
                slots=seams.slots, outlet=self._outlet, now_us=now_us, on_first_turn=self._on_first_turn,
                chosen_model=lambda: self.chosen_model("large"),
                before_entry=seams.before_entry, drop_lane=self.lanes.drop_if_idle, start=self.start,
            )
        )  # fmt: skip
        self._acceptor = Acceptor(
            AcceptSeams(
                workspace_id=seams.id, settings=settings, store=seams.store, log=seams.log, sessions=self.sessions,
                lanes=self.lanes, now_us=now_us, check_model=seams.choice.check, conduct=self._conduct,
                interrupt=lambda *interrupted: self._canceler.interrupt(*interrupted),
            ),
            latest_seq=latest_seq,
        )  # fmt: skip
        self._canceler = Canceler(
            self.lanes, seams.log, seams.id, now_us=now_us,
            settle_orphan=lambda run: self.start(self._runner.settle_orphan, run),
        )  # fmt: skip
        self.shell = Shell(
            ShellSeams(
                workspace_id=seams.id, root=seams.root, environment=seams.environment, jobs=jobs, log=seams.log,
                sessions=self.sessions, lanes=self.lanes, now_us=now_us, check_open=self._acceptor.check_open,
                latest_seq=lambda: self._acceptor.latest_seq,
            )
        )  # fmt: skip
        self._closing = Closing(self.lanes, self._canceler, bound_s=2 * settings.settle_s + settings.unwind_s)

    async def accept(self, prompt: Prompt) -> Accepted:
        """Accept a prompt, and return once it is durable (R02); a repeated request gets the same run (R06).

        Raises InvalidPrompt, NotFound, WorkspaceClosing, ServerStopping, SessionBusy, QueueFull, IdempotencyConflict
        and StoreError; then nothing of the run remains. Cancellation after the first checkpoint leaves the run accepted
        or refused, never half (R05): its own task waits for the commit.
        """
        return await self._acceptor.accept(prompt)

    async def cancel_session(self, session_id: str, reason: str = USER_CANCEL) -> tuple[RunId, ...]:
        """Cancel every run of the session that is registered now; those that are returned end `canceled`, whatever
        happens next (R07, R11). A cancel of an idle or unknown session does nothing (R08)."""
        self._check_open()
        return await self._canceler.cancel_session(session_id, reason)

    async def cancel_run(self, run_id: str, reason: str = USER_CANCEL) -> CancelAnswer:
        """Cancel one run, whatever its state, and no other (R12). Raises NotFound."""
        self._check_open()
        return await self._canceler.cancel_run(run_id, reason, self.run)

    async def clear_queue(self, session_id: str) -> tuple[RunId, ...]:
        """Cancel what waits in the session behind another run; the active one goes on (R17)."""
        self._check_open()
        return await self._canceler.clear_queue(session_id)

    def queued_prompts(self, session_id: str) -> list[str]:
        """The texts that wait in the session behind another run, in order (R17)."""
        lane = self.lanes.existing_lane(session_id)
        return [run.record.prompt.text for run in lane.queue()] if lane else []

    def is_session_busy(self, session_id: str) -> bool:
        """Whether a run of the session is active."""
        lane = self.lanes.existing_lane(session_id)
        return lane is not None and lane.active is not None

    @property
    def is_busy(self) -> bool:
        """Whether any session is busy."""
        return self.lanes.is_busy

    async def run(self, run_id: str) -> RunRecord:
        """One run as it is stored. Raises NotFound."""
        stored = await self._seams.store.run(self.id, RunId(run_id))
        if stored is None:
            raise NotFound("run", run_id)
        return stored.run

    async def runs(
        self,
        *,
        session_id: str | None = None,
        states: tuple[RunState, ...] = (),
        before: int | None = None,
        limit: int = 50,
    ) -> list[RunRecord]:
        """Runs, the newest first, with a `seq` below `before`."""
        session = None if session_id is None else (await self.sessions.get(session_id)).id
        return await self._seams.store.runs(self.id, session_id=session, states=states, before=before, limit=limit)

    async def wait_run(self, run_id: str, timeout_s: float) -> RunRecord:
        """The run once it has ended, or as it is when the time is up. Raises NotFound."""
        if (run := self.lanes.find(run_id)) is not None:
            with trio.move_on_after(timeout_s):
                await run.wait_settled()
        return await self.run(run_id)

    async def delete_session(self, session_id: str) -> None:
        """Cancel the session's runs, wait for their ends, and delete it with what sub-agents did for it. Raises
        NotFound, ChildSession, and StoreUnavailable if a run of it cannot be ended."""
        for _ in range(DELETE_TRIES):  # more than one, because prompts may still come
            await self.sessions.get_own(session_id)
            await self.cancel_session(session_id, "the session was deleted")
            with trio.move_on_after(self._closing.bound_s):
                await wait_settled(self.lanes.of_session(session_id))
            if await self.sessions.delete(session_id):
                return
        raise StoreUnavailable(f"session {session_id!r} still has a run that has not ended; it was not deleted")

    @asynccontextmanager
    async def open_feed(self, *, after: int | None, run_id: RunId | None = None) -> AsyncIterator[Feed]:
        """The events after a number, or from now on (R28). Raises what prompts are refused with, once it has closed."""
        seams = self._seams
        self._check_open()
        self._feeds += 1
        try:
            async with open_feed(
                seams.bus, seams.store, self.id, after=after, run_id=run_id, turn=seams.replay_turn,
                snapshots=self._outlet.snapshots, now_us=seams.clock.now_us,
            ) as feed:  # fmt: skip
                yield feed
        finally:
            self._feeds -= 1

    async def run_cursor(self, run_id: str, after: int | None = None) -> RunCursor:
        """Where reading one run begins: after a number, or with its acceptance. Raises NotFound."""
        return await find_run_cursor(self._seams.store, await self.run(run_id), after)

    async def event_range(self) -> EventRange:
        """Which event numbers can be read."""
        return await self._seams.store.event_range(self.id)

    @contextmanager
    def attach(self, client_id: ClientId) -> Iterator[None]:
        """Hold a claim for as long as the client's stream is open."""
        self.claims.attach(client_id, trio.current_time())
        self._seams.on_claims_changed()
        try:
            yield
        finally:
            self.claims.detach(client_id, trio.current_time())
            self._seams.on_claims_changed()

    def chosen_model(self, size: Size) -> str:
        """The model in force here, as `provider/model`."""
        return self._seams.choice.in_force(self.id, size, self.config.model(size))

    async def choose_model(self, size: Size, name: str, *, everywhere: bool = False) -> None:
        """Choose a model for this workspace, or for the whole server. Raises NotFound."""
        await self._seams.choice.choose(self.id, size, name, everywhere=everywhere)

    def statistics(self) -> WorkspaceStatistics:
        """How many runs are where."""
        lanes = self.lanes.statistics()
        return WorkspaceStatistics(
            active=sum(lane.is_active for lane in lanes), waiting=sum(lane.queued + lane.entering for lane in lanes),
            clients=self.claims.statistics().clients, feeds=self._feeds,
        )  # fmt: skip

    async def recover(self) -> None:
        """Take up what an earlier server left unfinished, before anything new is accepted (R24, R25)."""
        seams = self._seams
        recovery = RecoverySeams(
            workspace_id=self.id, store=seams.store, settler=self._runner.settler, lanes=self.lanes,
            conduct=self._conduct, now_us=seams.clock.now_us, max_attempts=seams.settings.max_attempts,
            bound_s=seams.settings.settle_s, committed=lambda: seams.log.statistics().committed,
            gives_titles=seams.titler is not None,
        )  # fmt: skip
        await Recovery(recovery).run()

    async def close(self, reason: str) -> None:
        """Refuse what comes, cancel every run, and return when each has committed its ending (R23)."""
        self.refuse(WorkspaceClosing(self.id))
        await self._closing.close(reason)

    async def drain(self, drain_s: float) -> None:
        """Start nothing more, let what is active finish for a while, then cancel it (R24)."""
        await self._closing.drain(drain_s)

    def stop_waiting(self) -> None:
        """Cut the drain short: the second signal (R24)."""
        self._closing.stop_waiting()

    def refuse(self, error: CountermandError) -> None:
        """Accept nothing from now on (R04). The first reason wins."""
        self._acceptor.refuse(error)

    def end_feeds(self) -> None:
        """Refuse everything, and end the feeds after what is already published."""
        self.refuse(WorkspaceClosing(self.id))
        self._is_closed = True
        self._seams.bus.close_workspace(self.id)

    def abandon(self) -> None:
        """Nothing more happens to the runs that are left: those who wait for one are told. Their rows stay."""
        for run in self.lanes.all_runs():
            run.decide(StoreUnavailable(UNDECIDED))
            run.mark_settled()

    def start(self, task: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
        """Start a task of this workspace, in an empty context: nothing of a request comes along."""
        contextvars.Context().run(lambda: self._nursery.start_soon(task, *args))

    def _check_open(self) -> None:
        if self._is_closed:
            self._acceptor.check_open()

    def _conduct(
        self,
        run: AcceptedRun,
        lane: SessionDispatch,
        acceptance: Pending | None,
        on_accepted: Callable[[], None] | None,
    ) -> None:
        self.start(self._runner.conduct, run, lane, acceptance, on_accepted)

    def _on_first_turn(self, run: RunRecord) -> None:
        seams = self._seams
        if seams.titler is not None:
            self.start(give_title, run, seams.titler, seams.store, seams.log, seams.clock.now_us)


@asynccontextmanager
async def open_workspace(seams: WorkspaceSeams) -> AsyncIterator[Workspace]:
    """A workspace with its nursery, recovered. Leaving it ends every task of it: close or drain it first. Raises
    ConfigInvalid, if its own file cannot be used."""
    latest_seq = await seams.store.latest_run_seq(seams.id)
    config = NOTHING
    if seams.problem is None:
        config = await read_workspace_config(seams.root, in_thread=seams.settings.data_dir is not None)
        config.check_models(seams.choice.check, seams.root)
    seams = msgspec.structs.replace(seams, settings=config.narrow(seams.settings))
    await seams.preferences.load(seams.id)
    left: list[Workspace] = []
    try:
        desk = tool_seams(
            id=seams.id, root=seams.root, settings=seams.settings, store=seams.store, log=seams.log,
            now_us=seams.clock.now_us, environment=seams.environment,
        )  # fmt: skip
        # The tools outlive the runs: they are still usable while these unwind.
        async with (
            open_jobs(seams.clock.now_us) as jobs, seams.toolbox(desk) as opened, trio.open_nursery() as nursery
        ):  # fmt: skip
            workspace = Workspace(seams, nursery, desk, opened, config=config, jobs=jobs, latest_seq=latest_seq)
            if seams.problem is not None:
                workspace.refuse(WorkspaceUnavailable(seams.id, seams.problem))
                workspace.lanes.hold()
            left.append(workspace)
            nursery.start_soon(workspace.flusher.run)
            await workspace.recover()
            try:
                yield workspace
            finally:
                workspace.end_feeds()
                nursery.cancel_scope.cancel()
    finally:
        for workspace in left:  # when every task of it has ended, and those that could be settled are
            workspace.abandon()
