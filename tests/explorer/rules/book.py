"""The book: the ledger of a schedule, ordered by runs."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from engine.errors import StoreUnavailable
from engine.records.event import RunChanged, RunCompleted, SessionCreated, SessionDeleted, SessionUpdated
from engine.records.run import RunRecord, RunState
from tests.explorer.ledger import Asked, Ledger
from tests.explorer.rules.work import Work, works_of
from tests.explorer.scenario import Scenario
from tests.explorer.script import STUBBORN

NEVER = math.inf


class Moment(msgspec.Struct, frozen=True):
    """When something became durable: its place in the ledger, Trio's time, and which server wrote it."""

    moment: int
    at: float
    server: int


class Life(msgspec.Struct):
    """One run, from the first to the last that the log tells of it."""

    accepted: Moment
    record: RunRecord  # as it was last told
    begun: Moment | None = None  # its first turn of its own
    marked: Moment | None = None  # a cancel of it was recorded
    ended: Moment | None = None
    ending: RunCompleted | None = None
    asked: list[Asked] = []  # the calls that were answered with it
    unheard: list[
        Asked
    ] = []  # those that may have made it, and were not told: they hung up, or the store was in trouble
    answered: int = 0  # how often an agent was asked

    @property
    def id(self) -> str:
        """The run's id."""
        return self.record.id

    @property
    def state(self) -> RunState:
        """How it ended, or where it is."""
        return self.ending.state if self.ending is not None else self.record.state

    @property
    def ended_moment(self) -> float:
        """Its place in the ledger, or never."""
        return NEVER if self.ended is None else self.ended.moment

    @property
    def first_asked(self) -> int:
        """When the first call began that was answered with it, or may have made it; else when it was accepted."""
        return min((asked.began for asked in (*self.asked, *self.unheard)), default=self.accepted.moment)

    @property
    def first_answered(self) -> float:
        """When somebody was first told that it is accepted, or never."""
        return min((asked.answered or NEVER for asked in self.asked), default=NEVER)


class Book:
    """What the rules look for, at hand."""

    def __init__(self, scenario: Scenario, ledger: Ledger, runs: Sequence[RunRecord]) -> None:
        self.scenario = scenario
        self.ledger = ledger
        self.runs = runs  # as they are stored
        self.costs: dict[str, float] = {}  # of sessions that are there
        self.works: dict[str, Work] = {}  # of sub-agents, by their session
        self.lives: dict[str, Life] = {}
        self.by_session: defaultdict[str, list[Life]] = defaultdict(list)
        for entry in ledger.committed:
            body = entry.event.body
            if type(body) is RunChanged:
                self._note_change(Moment(entry.moment, entry.at, entry.server), body.run)
            elif type(body) is RunCompleted:
                life = self.lives[body.run_id]
                life.ending, life.ended = body, Moment(entry.moment, entry.at, entry.server)
            elif type(body) is SessionUpdated:
                self.costs[body.session.id] = body.session.cost
            elif type(body) is SessionDeleted:
                self.costs.pop(body.session.id, None)
            elif type(body) is SessionCreated and body.session.parent_id is not None and not self.works:
                self.works = works_of(ledger)
        self._note_calls()
        for answering in ledger.answering:
            asked = self.lives.get(answering.run_id)
            if asked is not None and answering.session_id == asked.record.session_id:
                asked.answered += 1
        self.has_bug = any(closing.why == "a bug" for closing in ledger.closings)
        self.has_trouble = self.has_bug or any(one.disk.fails or one.disk.stalls for one in scenario.lifetimes)

    def sub_agents(self) -> Iterator[tuple[Work, Life]]:
        """Each sub-agent, and the run that it works for."""
        return ((work, self.lives[work.run_id]) for work in self.works.values())

    def parent_of(self, session_id: str) -> str | None:
        """The session that a sub-agent works for; None if this is not the session of one."""
        work = self.works.get(session_id)
        return work.parent_id if work is not None else None

    def is_stubborn(self, life: Life) -> bool:
        """Whether the run's agent, or a sub-agent, may go on, or end otherwise, when it is told to stop."""
        return not STUBBORN.isdisjoint(self.ledger.words(life.record.prompt.text))

    def script(self, life: Life) -> tuple[str, ...]:
        """What the run's agent does."""
        return self.ledger.scripts.get(life.record.prompt.text, ())

    def _note_calls(self) -> None:
        for asked in self.ledger.asked:
            if asked.run is not None and asked.run.id in self.lives:
                self.lives[asked.run.id].asked.append(asked)
            elif asked.run is None and isinstance(asked.error, StoreUnavailable | None):
                for life in self.by_session[asked.prompt.session_id]:
                    if life.record.prompt.text == asked.prompt.text:
                        life.unheard.append(asked)

    def _note_change(self, moment: Moment, run: RunRecord) -> None:
        life = self.lives.get(run.id)
        if life is None:
            life = self.lives[run.id] = Life(moment, run, asked=[], unheard=[])
            self.by_session[run.session_id].append(life)
        life.record = run
        if run.state is RunState.ACTIVE and run.steered_into is None and life.begun is None:
            life.begun = moment
        if run.cancel_requested_at_us is not None and life.marked is None:
            life.marked = moment
