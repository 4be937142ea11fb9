"""Accepting: from a valid prompt to a registered, durable run."""

from collections.abc import Callable

import msgspec
import trio

from engine.errors import (
    Conflict,
    CountermandError,
    IdempotencyConflict,
    InvalidPrompt,
    NotFound,
    StoreError,
    StoreUnavailable,
)
from engine.events.log import EventLog, Pending
from engine.records.change import AcceptRun, Change, RequestCancel, Write
from engine.records.ids import WorkspaceId
from engine.records.run import Prompt
from engine.runs.acceptance import Accepted, check_prompt, check_same_request, new_run, request_hash
from engine.runs.accepted import AcceptedRun
from engine.runs.dispatch import SessionDispatch
from engine.runs.lanes import Lanes
from engine.sessions import Sessions
from engine.settings import EngineSettings
from engine.store.protocol import Store, StoredRun

Interrupt = Callable[[SessionDispatch, tuple[AcceptedRun, ...], str], None]
Conduct = Callable[[AcceptedRun, SessionDispatch, Pending | None, Callable[[], None] | None], None]


TRIES = 3  # looks at who else used the key: once before, once behind a conflict, once behind a twin


class AcceptSeams(msgspec.Struct, frozen=True, kw_only=True):
    """What accepting works with. `conduct` starts the task of a run; `interrupt` flags what it interrupts."""

    workspace_id: WorkspaceId
    settings: EngineSettings
    store: Store
    log: EventLog
    sessions: Sessions
    lanes: Lanes
    now_us: Callable[[], int]
    check_model: Callable[[str], None]
    interrupt: Interrupt
    conduct: Conduct


class Acceptor:
    """Accepts the prompts of one workspace."""

    def __init__(self, seams: AcceptSeams, *, latest_seq: int) -> None:
        self._seams = seams
        self._seq = latest_seq
        self._refusing: CountermandError | None = None

    @property
    def latest_seq(self) -> int:
        """The accept number that was given last."""
        return self._seq

    def refuse(self, error: CountermandError) -> None:
        """Accept nothing from now on (R04). The first reason wins."""
        self._refusing = self._refusing or error

    async def accept(self, prompt: Prompt) -> Accepted:
        """See `Workspace.accept`."""
        seams = self._seams
        check_prompt(prompt, seams.settings)
        refusal = self._refusal(prompt)
        if refusal is not None and prompt.run_id is None and prompt.idempotency_key is None:
            raise refusal
        await seams.sessions.get_own(prompt.session_id)
        hashed = request_hash(prompt)
        for _ in range(TRIES):
            if (stored := await self._stored(prompt)) is not None:
                return check_same_request(prompt, hashed, stored)
            # From here to the end of `_register` there is no checkpoint: every later cancel finds the run (R01).
            twin = seams.lanes.find(prompt.run_id, prompt.idempotency_key)
            if twin is None:
                # Not before: who sends a prompt again must not be told that it was refused when it was accepted (R06).
                self.check_open()
                if refusal is not None:
                    raise refusal
            run = twin or self._register(prompt, hashed)
            try:
                with trio.fail_after(seams.settings.accept_s):
                    await run.wait_decided()
            except Conflict:
                continue  # the key was committed by somebody else since we looked: answer with that run
            except trio.TooSlowError:
                raise StoreUnavailable("the store did not answer in time; retry with the same run_id") from None
            if twin is None:
                return Accepted(run.record)
        # Taken, and yet of no run that is stored: of one whose session was deleted.
        raise IdempotencyConflict("run_id", prompt.run_id or "")

    def _refusal(self, prompt: Prompt) -> InvalidPrompt | None:
        """Why the prompt cannot be run on the model that it asks for (R03). It may have been, when it came first."""
        if prompt.model is not None:
            try:
                self._seams.check_model(prompt.model)
            except NotFound as error:
                return InvalidPrompt("model", str(error))
        return None

    def check_open(self) -> None:
        """Raise what prompts are refused with, if they are (R04)."""
        if self._refusing is not None:
            raise self._refusing.with_traceback(None)  # it is raised many times, and must not grow with each

    def _register(self, prompt: Prompt, hashed: str) -> AcceptedRun:
        """Reserve the run in its lane, send its row on the way, and start its task: one synchronous step."""
        seams = self._seams
        seams.lanes.check_room()
        at_us = seams.now_us()
        record = new_run(prompt, workspace_id=seams.workspace_id, seq=self._seq + 1, at_us=at_us)
        run = AcceptedRun(record, seams.lanes.forget)
        lane = seams.lanes.lane(prompt.session_id)
        try:
            interrupted = lane.reserve(run)
        except CountermandError:
            seams.lanes.drop_if_idle(prompt.session_id)
            raise
        self._seq += 1
        reason = f"interrupted by run {record.id}"
        writes: tuple[Write, ...] = (AcceptRun(record, hashed),)
        on_accepted: Callable[[], None] | None = None
        if interrupted:
            # Accepted and interrupting are one commit; the flags follow in the step in which it is known (R02, R15).
            writes += (RequestCancel(tuple(one.record.id for one in interrupted), reason, at_us),)
            on_accepted = lambda: seams.interrupt(lane, interrupted, reason)  # noqa: E731
        try:
            acceptance = seams.log.submit(Change(seams.workspace_id, at_us, writes))
        except StoreError:
            lane.withdraw(run)
            seams.lanes.drop_if_idle(prompt.session_id)
            raise
        run.interrupt(interrupted, reason)
        seams.lanes.add(run)
        seams.conduct(run, lane, acceptance, on_accepted)
        return run

    async def _stored(self, prompt: Prompt) -> StoredRun | None:
        """The run that was accepted before under this id or key (R06)."""
        store, workspace_id, stored = self._seams.store, self._seams.workspace_id, None
        if prompt.run_id is not None:
            stored = await store.run(workspace_id, prompt.run_id)
        if stored is None and prompt.idempotency_key is not None:
            stored = await store.run_by_key(workspace_id, prompt.idempotency_key)
        await trio.lowlevel.checkpoint_if_cancelled()
        return stored
