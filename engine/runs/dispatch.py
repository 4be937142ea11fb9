"""SessionDispatch: the lane of a session, as a state machine without a single `await`.

Everything that decides what happens to a run (reserve, enter, cancel, steer, leave) is a plain function here. Trio
switches tasks at checkpoints alone, and there are none in this file: each call is atomic, so there is no lock, and all
interleavings can be explored without an event loop.

Two rules carry it. A cancel flags the handles that exist, so a later one cannot be poisoned. And since Trio starts
tasks in any order, a run that enters before an earlier accepted one parks behind it; whoever leaves takes the next one
over in the same step, so the lane is never left with a parked run and nobody to start it.
"""

from collections.abc import Iterable
from enum import Enum, auto

import msgspec

from engine.errors import QueueFull, SessionBusy
from engine.records.run import IfBusy
from engine.runs.accepted import AcceptedRun, Stage


class Entry(Enum):
    """What becomes of a run that enters."""

    CANCELED = auto()  # a cancel came first: persist the canceled turn, then leave
    QUEUED = auto()  # parked: somebody ahead will take it over
    START = auto()  # it holds the lane


class Cancellation(msgspec.Struct, frozen=True):
    """What a cancel reached: every run that it flagged, and those among them that nobody runs: the caller settles
    them."""

    covered: tuple[AcceptedRun, ...] = ()
    orphaned: tuple[AcceptedRun, ...] = ()


class DispatchStatistics(msgspec.Struct, frozen=True):
    """How many runs stand where in a lane."""

    entering: int
    queued: int
    folded: int
    is_active: bool


class SessionDispatch:
    """The serial order of a session's runs: at most one is active, the others wait in accept order (R14)."""

    def __init__(self, *, queue_limit: int) -> None:
        self._queue_limit = queue_limit
        self._waiting: list[AcceptedRun] = []  # entering and queued, by accept number
        self._folded: list[AcceptedRun] = []
        self._held = False
        self.active: AcceptedRun | None = None

    def reserve(self, run: AcceptedRun) -> tuple[AcceptedRun, ...]:
        """Register the run at the end of the lane (R01), and return the runs that it is to interrupt.

        They are not canceled yet: that happens once the acceptance is durable, in the same commit (R02, R15).
        Raises SessionBusy and QueueFull; then nothing changed.
        """
        policy = run.record.prompt.if_busy
        if policy is IfBusy.REJECT and not self.is_idle:
            raise SessionBusy(run.record.session_id)
        if len(self._waiting) >= self._queue_limit:
            raise QueueFull("session", self._queue_limit)
        interrupted = self._members() if policy is IfBusy.INTERRUPT else ()
        self._waiting.append(run)
        return interrupted

    def readmit(self, run: AcceptedRun) -> None:
        """Register a run that an earlier server accepted: whatever bound there is, it was promised to run (R24)."""
        self._waiting.append(run)

    def withdraw(self, run: AcceptedRun) -> AcceptedRun | None:
        """Give the reservation back, because the acceptance failed; return the run that this lets start."""
        self._waiting.remove(run)
        run.stage = Stage.GONE
        return self._take_next()

    def enter(self, run: AcceptedRun) -> Entry:
        """Present an accepted run, once. START and CANCELED end with `leave`; QUEUED asks nothing more of the
        caller."""
        is_first = self._waiting[0] is run
        if run.is_canceled:
            self._waiting.remove(run)
            run.stage = Stage.GONE
            if is_first and self.active is None:
                self._activate(run)  # keeps its place until its canceled turn is stored
            return Entry.CANCELED
        if self.active is not None or not is_first or self._held:
            run.stage = Stage.QUEUED
            return Entry.QUEUED
        self._waiting.pop(0)
        self._activate(run)
        return Entry.START

    def leave(self, run: AcceptedRun) -> AcceptedRun | None:
        """The run has ended; return the next one, which is active from now on and is the caller's to run."""
        run.stage = Stage.GONE
        if self.active is run:
            self.active = None
        return self._take_next()

    def put_back(self, run: AcceptedRun) -> None:
        """The active run has not begun, and is not to begin here: it waits again, as the first of a lane that starts
        nothing any more (R24). So a cancel still finds it (R07)."""
        self.active = None
        run.stage = Stage.QUEUED
        self._waiting.insert(0, run)

    def cancel(self, reason: str) -> Cancellation:
        """Flag every run of the lane: active, steered, queued, and accepted but not entered (R07)."""
        return self.cancel_runs(self._members(), reason)

    def cancel_runs(self, runs: Iterable[AcceptedRun], reason: str) -> Cancellation:
        """Flag these runs, as far as they are still in the lane, and no other (R12)."""
        covered = [run for run in runs if run.stage is not Stage.GONE]
        orphaned = [
            run
            for run in covered
            if run.stage is Stage.QUEUED or (run.stage is Stage.FOLDED and self.active not in covered)
        ]
        for run in orphaned:
            (self._waiting if run.stage is Stage.QUEUED else self._folded).remove(run)
            run.stage = Stage.GONE
        for run in covered:
            run.cancel(reason)
        return Cancellation(tuple(covered), tuple(orphaned))

    def clear_queue(self, reason: str) -> Cancellation:
        """Flag what waits behind another run; a run that is just about to start is not in the queue (R17)."""
        return self.cancel_runs(self.queue(), reason)

    def queue(self) -> tuple[AcceptedRun, ...]:
        """The runs that wait behind another, in order."""
        starts_now = self.active is None and not self._held
        return tuple(self._waiting[1:] if starts_now else self._waiting)

    def take_steered(self, host: AcceptedRun) -> tuple[AcceptedRun, ...]:
        """Fold the parked runs that want to steer into the active turn, in accept order (R15)."""
        # The flags of an interrupting run follow its commit: until it is known, nobody is taken into a turn that it
        # ends.
        is_interrupting = any(
            run.stage is Stage.ENTERING and run.record.prompt.if_busy is IfBusy.INTERRUPT for run in self._waiting
        )
        if self.active is not host or host.is_canceled or self._held or is_interrupting:
            return ()
        steered = tuple(
            run for run in self._waiting if run.stage is Stage.QUEUED and run.record.prompt.if_busy is IfBusy.STEER
        )
        for run in steered:
            self._waiting.remove(run)
            run.stage, run.steered_into = Stage.FOLDED, host.record.id
            self._folded.append(run)
        return steered

    def give_back(self, runs: Iterable[AcceptedRun]) -> None:
        """These runs could not be taken in after all: they wait again, each in its place."""
        returning = [run for run in runs if run.stage is Stage.FOLDED and not run.is_canceled]
        self._folded = [run for run in self._folded if run not in returning]
        for run in returning:
            run.stage, run.steered_into = Stage.QUEUED, None
        self._waiting = sorted((*returning, *self._waiting), key=lambda run: run.record.seq)

    def unfold(self, host: AcceptedRun) -> tuple[tuple[AcceptedRun, ...], tuple[AcceptedRun, ...]]:
        """The active turn is ending: return the runs that end with it, and those that go back to the queue.

        A steered run that was not canceled does not end because its host was canceled alone (R12): it goes back in its
        place and becomes a turn of its own.
        """
        if self.active is not host:
            return (), ()
        returning = tuple(run for run in self._folded if host.is_canceled and not run.is_canceled)
        ending = tuple(run for run in self._folded if run not in returning)
        self.give_back(returning)
        self._folded.clear()
        for run in ending:
            run.stage = Stage.GONE
        return ending, returning

    def hold(self) -> None:
        """Start nothing from now on: what waits stays, for the next start of the server (R24)."""
        self._held = True

    @property
    def is_idle(self) -> bool:
        """Whether no run is registered here."""
        return self.active is None and not self._waiting

    def statistics(self) -> DispatchStatistics:
        """How many runs stand where."""
        queued = sum(run.stage is Stage.QUEUED for run in self._waiting)
        return DispatchStatistics(len(self._waiting) - queued, queued, len(self._folded), self.active is not None)

    def turn_members(self) -> tuple[AcceptedRun, ...]:
        """The active run, and those that were steered into it."""
        return (*(() if self.active is None else (self.active,)), *self._folded)

    def _members(self) -> tuple[AcceptedRun, ...]:
        return (*self.turn_members(), *self._waiting)

    def _activate(self, run: AcceptedRun) -> None:
        run.stage = Stage.ACTIVE
        self.active = run

    def _take_next(self) -> AcceptedRun | None:
        if self.active is not None or self._held or not self._waiting or self._waiting[0].stage is not Stage.QUEUED:
            return None
        run = self._waiting.pop(0)
        self._activate(run)
        return run
