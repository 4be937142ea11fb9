"""AcceptedRun: the small handle made at acceptance. It is all that crosses from a request into the nursery."""

from collections.abc import Callable
from enum import Enum, auto

import trio

from engine.records.ids import RunId
from engine.records.message import Message
from engine.records.run import RunRecord


class Stage(Enum):
    """Where a handle stands in its lane."""

    ENTERING = auto()  # registered; its task has not presented it yet
    QUEUED = auto()  # presented, and parked behind another; no task
    ACTIVE = auto()  # holds the lane
    FOLDED = auto()  # steered into the active turn
    GONE = auto()  # left the lane, by whatever way


class AcceptedRun:
    """One registered run, from its reservation to its ending.

    `cancel_reason` is the cancel flag. It belongs to this object alone: a run that is accepted after a cancel is
    another object, so no cancel can stick to it (R08). It is set synchronously and never cleared; it is looked at when
    the run enters and when it settles, and a canceler that finds the run active reaches its scope through `bind` (R07).
    """

    __slots__ = (
        "_decided",
        "_forget",
        "_interrupt",
        "_settled",
        "attempted",
        "cancel_reason",
        "has_begun",
        "interrupters",
        "interrupts",
        "parked",
        "record",
        "refusal",
        "stage",
        "steered_into",
    )

    def __init__(self, record: RunRecord, forget: Callable[["AcceptedRun"], None] | None = None) -> None:
        self.record = record
        self.stage = Stage.ENTERING
        self.cancel_reason: str | None = None
        self.interrupts: tuple[AcceptedRun, ...] = ()  # it flags them in the step in which it is known to be accepted
        self.interrupters: dict[RunId, str] = {}  # with their reasons, until that is known (R15)
        self.has_begun = False  # the row that makes it active is on its way, or written
        self.attempted: tuple[Message, ...] = ()  # what earlier attempts left in the turn, the prompt first
        self.parked = False
        self.steered_into: RunId | None = None
        self._forget = forget
        self.refusal: Exception | None = None
        self._interrupt: Callable[[], None] | None = None
        self._decided = trio.Event()
        self._settled = trio.Event()

    def __repr__(self) -> str:
        flag = f", canceled: {self.cancel_reason}" if self.is_canceled else ""
        return f"<AcceptedRun {self.record.seq} {self.record.id} {self.stage.name}{flag}>"

    @property
    def is_canceled(self) -> bool:
        """Whether the flag is set."""
        return self.cancel_reason is not None

    @property
    def is_cut_short(self) -> bool:
        """Whether its turn may end canceled, whatever it has come to: a cancel came, or its record is on its way ahead
        of the flag (R15). No process outlives such a turn (R10)."""
        return self.is_canceled or bool(self.interrupters)

    @property
    def cancel_details(self) -> str | None:
        """The reason of the cancel that came, or else of one whose record is on its way."""
        return next(iter(self.interrupters.values()), None) if self.cancel_reason is None else self.cancel_reason

    def interrupt(self, runs: tuple["AcceptedRun", ...], reason: str) -> None:
        """The cancel of these is on its way to the store, in the commit that accepts this run (R15)."""
        self.interrupts = runs
        for run in runs:
            run.interrupters[self.record.id] = reason

    def interrupt_nobody(self) -> None:
        """This run was refused, and the cancels with it: whom it was to interrupt goes on as if it had not come."""
        for run in self.interrupts:
            run.interrupters.pop(self.record.id, None)

    def cancel(self, reason: str) -> None:
        """Set the flag, and interrupt the run if it is active. The first reason wins: two cancels are one (R08)."""
        if self.cancel_reason is None:
            self.cancel_reason = reason
            if self._interrupt is not None:
                self._interrupt()

    def park(self) -> None:
        """Interrupt a run that has not begun, without canceling it: its row stays as it is, for the next start
        (R24)."""
        if self.has_begun:
            return
        self.parked = True
        if self._interrupt is not None:
            self._interrupt()

    def bind(self, interrupt: Callable[[], None]) -> None:
        """Give the canceler a way to reach the active run; a cancel that came before acts at once (R07)."""
        self._interrupt = interrupt
        if self.is_canceled or self.parked:
            interrupt()

    def decide(self, refusal: Exception | None = None) -> None:
        """The acceptance is committed, or was refused. The first word counts."""
        if not self._decided.is_set():
            self.refusal = refusal
            self._decided.set()

    async def wait_known(self) -> None:
        """Return once it is known whether the acceptance is durable."""
        await self._decided.wait()

    async def wait_decided(self) -> None:
        """Return once the acceptance is durable; raise what refused it otherwise (R02)."""
        await self._decided.wait()
        if self.refusal is not None:
            raise self.refusal

    def mark_settled(self) -> None:
        """The run has its terminal event, or was left to the next start."""
        self._interrupt = None
        if self._forget is not None and not self.is_settled:
            self._forget(self)
        self._settled.set()

    @property
    def is_free(self) -> bool:
        """Whether nothing keeps the run from beginning."""
        return not self.is_canceled and not self.parked

    @property
    def is_waiting(self) -> bool:
        """Whether the run is still to begin: in the queue, or first of its session and without a slot."""
        return self.stage in {Stage.ENTERING, Stage.QUEUED} or (self.stage is Stage.ACTIVE and not self.has_begun)

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will happen to this handle."""
        return self._settled.is_set()

    async def wait_settled(self) -> None:
        """Return once nothing more will happen to this handle."""
        await self._settled.wait()
