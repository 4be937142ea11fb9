"""Bugs in what decides about runs: accepting, entering, canceling, leaving."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import trio

from engine.errors import Conflict
from engine.records.ids import RunId
from engine.records.run import Prompt
from engine.runs.accept import Acceptor
from engine.runs.acceptance import Accepted, check_prompt, check_same_request, request_hash
from engine.runs.accepted import AcceptedRun, Stage
from engine.runs.answering import Answering
from engine.runs.cancel import Canceler
from engine.runs.dispatch import Cancellation, Entry, SessionDispatch
from engine.runs.turn import RunTurn
from engine.store.rows import Row
from engine.store.sqlite_transaction import Writing
from tests.explorer.planted.registry import bug, put


@bug(first=28)
def entry_check_dropped() -> Iterator[None]:
    """A run does not look at its flag when it enters, nor does the store when it begins (R07, R09)."""
    usual_enter, usual_execute = SessionDispatch.enter, Writing.execute

    def enter(lane: SessionDispatch, run: AcceptedRun) -> Entry:
        flag, run.cancel_reason = run.cancel_reason, None
        try:
            return usual_enter(lane, run)
        finally:
            run.cancel_reason = flag

    def bind(run: AcceptedRun, interrupt: Callable[[], None]) -> None:
        run._interrupt = interrupt

    def execute(writing: Writing, statement: str, values: Row) -> bool:
        return usual_execute(writing, statement.replace(" AND cancel_requested_at_us IS NULL", ""), values)

    is_free = property(lambda run: not run.parked)
    with (
        put(SessionDispatch, "enter", enter),
        put(AcceptedRun, "bind", bind),
        put(AcceptedRun, "is_free", is_free),
        put(Writing, "execute", execute),
    ):
        yield


@bug(first=120)
def flag_cleared_on_enqueue() -> Iterator[None]:
    """A run that has to wait is queued before anybody looks at its flag, and that is cleared (R07)."""
    usual = SessionDispatch.enter

    def enter(lane: SessionDispatch, run: AcceptedRun) -> Entry:
        if lane.active is not None or lane._waiting[0] is not run:
            run.cancel_reason = None
        return usual(lane, run)

    with put(SessionDispatch, "enter", enter):
        yield


@bug()
def cancel_sticks_to_the_session() -> Iterator[None]:
    """A cancel is remembered for the session, and finds the next run too (R08)."""
    usual_cancel, usual_register = Canceler.cancel_session, Acceptor._register
    canceled: dict[str, str] = {}

    async def cancel_session(canceler: Canceler, session_id: str, reason: str) -> tuple[RunId, ...]:
        canceled[session_id] = reason
        return await usual_cancel(canceler, session_id, reason)

    def register(acceptor: Acceptor, prompt: Prompt, hashed: str) -> AcceptedRun:
        run = usual_register(acceptor, prompt, hashed)
        if (reason := canceled.pop(prompt.session_id, None)) is not None:
            run.cancel(reason)
        return run

    with put(Canceler, "cancel_session", cancel_session), put(Acceptor, "_register", register):
        yield


@bug(first=46)
def cancel_misses_what_is_entering() -> Iterator[None]:
    """A session's cancel takes what is active and queued, and not what is accepted but has not entered (R07)."""

    async def cancel_session(canceler: Canceler, session_id: str, reason: str) -> tuple[RunId, ...]:
        runs = [run for run in canceler._lanes.of_session(session_id) if run.stage is not Stage.ENTERING]
        lane = canceler._lanes.existing_lane(session_id)
        flagged = lane.cancel_runs(runs, reason) if lane is not None else Cancellation()
        return await canceler._record(tuple(runs), flagged, reason)

    with put(Canceler, "cancel_session", cancel_session):
        yield


@bug(first=1258)
def order_lost_on_withdraw() -> Iterator[None]:
    """A run whose acceptance failed hands the lane to the last that waits, not to the first (R14)."""

    def withdraw(lane: SessionDispatch, run: AcceptedRun) -> AcceptedRun | None:
        lane._waiting.remove(run)
        run.stage = Stage.GONE
        lane._waiting.reverse()
        return lane._take_next()

    with put(SessionDispatch, "withdraw", withdraw):
        yield


@bug(first=1602)
def lane_kept_on_withdraw() -> Iterator[None]:
    """A run whose acceptance failed hands the lane to nobody (R02, R22)."""

    def withdraw(lane: SessionDispatch, run: AcceptedRun) -> None:
        lane._waiting.remove(run)
        run.stage = Stage.GONE

    with put(SessionDispatch, "withdraw", withdraw):
        yield


@bug(first=25)
def place_kept_on_refusal() -> Iterator[None]:
    """A run whose acceptance failed keeps its place in the lane (R02)."""
    with put(SessionDispatch, "withdraw", lambda lane, run: None):
        yield


@bug()
def next_run_forgotten() -> Iterator[None]:
    """Who leaves the lane takes nobody over (R14, R22)."""
    usual = SessionDispatch.leave

    def leave(lane: SessionDispatch, run: AcceptedRun) -> None:
        if (following := usual(lane, run)) is not None:
            lane.active, following.stage = None, Stage.QUEUED
            lane._waiting.insert(0, following)

    with put(SessionDispatch, "leave", leave):
        yield


@bug()
def two_runs_at_once() -> Iterator[None]:
    """A run enters beside one that is active (R14)."""
    usual = SessionDispatch.enter

    def enter(lane: SessionDispatch, run: AcceptedRun) -> Entry:
        active, lane.active = lane.active, None
        entry = usual(lane, run)
        lane.active = lane.active or active  # type: ignore[redundant-expr]
        return entry

    with put(SessionDispatch, "enter", enter):
        yield


@bug(first=3124)
def steered_run_ends_with_its_host() -> Iterator[None]:
    """A run that was steered is canceled because its host was canceled alone (R12)."""

    def unfold(lane: SessionDispatch, host: AcceptedRun) -> tuple[tuple[AcceptedRun, ...], tuple[AcceptedRun, ...]]:
        ending, lane._folded = tuple(lane._folded), []
        for run in ending:
            run.stage = Stage.GONE
        return ending, ()

    with put(SessionDispatch, "unfold", unfold):
        yield


@bug(first=17)
def everybody_steers() -> Iterator[None]:
    """A turn takes in whoever waits, also one that wants a turn of its own (R15)."""

    def take_steered(lane: SessionDispatch, host: AcceptedRun) -> tuple[AcceptedRun, ...]:
        taken = [run for run in lane._waiting if run.stage is Stage.QUEUED and lane.active is host]
        for run in taken:
            lane._waiting.remove(run)
            run.stage, run.steered_into = Stage.FOLDED, host.record.id
        lane._folded += taken
        return tuple(taken)

    with put(SessionDispatch, "take_steered", take_steered):
        yield


@bug(first=471)
def checked_before_registering() -> Iterator[None]:
    """Whether prompts are taken, and who else has the key, is looked at a checkpoint before the registration (R01)."""

    async def accept(acceptor: Acceptor, prompt: Prompt) -> Accepted:
        seams, hashed = acceptor._seams, request_hash(prompt)
        check_prompt(prompt, seams.settings)
        await seams.sessions.get(prompt.session_id)
        twin = seams.lanes.find(prompt.run_id, prompt.idempotency_key)
        if twin is None:
            acceptor.check_open()
        if (stored := await acceptor._stored(prompt)) is not None:
            return check_same_request(prompt, hashed, stored)
        run = twin or acceptor._register(prompt, hashed)
        with suppress(Conflict):
            await run.wait_decided()
        return Accepted(run.record)

    with put(Acceptor, "accept", accept):
        yield


@bug(first=14)
def agent_waited_for_on_cancel() -> Iterator[None]:
    """A canceled run waits for its agent to come to an end by itself (R13)."""

    async def wait(answering: Answering, *, unwind_s: float) -> None:
        with trio.CancelScope(shield=True):
            await answering._done.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    with put(Answering, "wait", wait):
        yield


@bug()
def open_calls_left_open() -> Iterator[None]:
    """The calls of a canceled turn get no result (R10)."""
    with put(RunTurn, "open_calls", lambda turn: ()):
        yield
