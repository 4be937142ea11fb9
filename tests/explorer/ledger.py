"""The ledger: what callers asked and were told, what the agents were asked, and what became durable, in one order.

A moment is a number that goes up with every entry. Since all of it happens on one thread, of any two entries it is
known which came first.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
import trio

from engine.errors import CountermandError
from engine.records.event import Event
from engine.records.permission import Decision
from engine.records.run import Prompt, RunRecord, Usage

Script = tuple[str, ...]


def sub_prompt(text: str, number: int) -> str:
    """What a sub-agent is asked by the agent of a prompt, counted from 0."""
    return f"{text}, sub-agent {number}"


class Asked(msgspec.Struct):
    """One call of accept."""

    prompt: Prompt
    began: int
    at: float  # Trio time
    server: int
    answered: int | None = None
    run: RunRecord | None = None
    replayed: bool = False
    error: CountermandError | None = None
    refused: int | None = None


class Countermanded(msgspec.Struct):
    """One call that cancels: of a session, a run, a queue, or of a session that is to be deleted."""

    kind: Literal["session", "run", "queue", "delete"]
    target: str
    reason: str
    began: int
    server: int
    answered: int | None = None
    answered_at: float = 0.0  # Trio time
    named: tuple[str, ...] = ()
    error: CountermandError | None = None


class Committed(msgspec.Struct):
    """An event, and the moment at which it became durable; `at` is Trio time."""

    moment: int
    at: float
    server: int
    event: Event


class Answering(msgspec.Struct):
    """An agent was asked to answer a run, or as a sub-agent a part of it, which has a session of its own."""

    run_id: str
    session_id: str
    moment: int
    server: int
    ended: int | None = None
    how: Literal["returned", "failed", "canceled"] | None = None


class Used(msgspec.Struct):
    """An agent accounted for something."""

    run_id: str
    session_id: str
    usage: Usage


class Answered(msgspec.Struct):
    """One answer to a request of a tool; `decision` is None for questions."""

    request_id: str
    decision: Decision | None
    began: int
    server: int
    ended: int | None = None
    is_decided: bool | None = None

    @property
    def is_question(self) -> bool:
        """Whether it answers questions, rather than a request for permission."""
        return self.decision is None


class Changed(msgspec.Struct):
    """A tool that had asked for permission went on. A sub-agent's session is its own."""

    run_id: str
    session_id: str
    call_id: str
    moment: int


class Closing(msgspec.Struct):
    """A workspace was told to close, or was made to fail."""

    why: str
    moment: int
    server: int


class Ledger:
    """Everything of one schedule. `server` counts the servers that were started."""

    def __init__(self) -> None:
        self.moment = 0
        self.server = 0
        self.asked: list[Asked] = []
        self.countermanded: list[Countermanded] = []
        self.committed: list[Committed] = []
        self.answering: list[Answering] = []
        self.used: list[Used] = []
        self.answered: list[Answered] = []
        self.changed: list[Changed] = []
        self.closings: list[Closing] = []
        self.scripts: dict[str, Script] = {}  # of the agents, by the text of their prompt
        self.violations: list[str] = []
        self.story: list[str] = []  # of the schedule, if somebody wants to read it

    def tick(self) -> int:
        """A new moment."""
        self.moment += 1
        return self.moment

    def violate(self, what: str) -> None:
        """Something happened that must not."""
        self.violations.append(what)

    def ask(self, prompt: Prompt) -> Asked:
        """A prompt is sent."""
        asked = Asked(prompt, self.tick(), trio.current_time(), self.server)
        self.asked.append(asked)
        return asked

    def countermand(self, kind: Literal["session", "run", "queue", "delete"], target: str) -> Countermanded:
        """A cancel is sent, with a reason that nothing else has."""
        reason = f"{kind} {target} was canceled by call {len(self.countermanded)}"
        made = Countermanded(kind, target, reason, self.tick(), self.server)
        self.countermanded.append(made)
        return made

    def begin_answer(self, request_id: str, decision: Decision | None) -> Answered:
        """Somebody answers a request of a tool."""
        answered = Answered(request_id, decision, self.tick(), self.server)
        self.answered.append(answered)
        return answered

    def end_answer(self, answered: Answered, *, is_decided: bool) -> None:
        """They are told whether it was this answer that decided it."""
        answered.ended, answered.is_decided = self.tick(), is_decided

    def change(self, run_id: str, session_id: str, call_id: str) -> None:
        """A tool that had asked for permission goes on."""
        self.changed.append(Changed(run_id, session_id, call_id, self.tick()))

    def close(self, why: str) -> None:
        """A workspace is told to close, or made to fail."""
        self.closings.append(Closing(why, self.tick(), self.server))

    def latest(self, run_id: str | None = None) -> int:
        """The number of the last event, of a run if it is given; 0 if there is none."""
        found = (one.event.seq for one in reversed(self.committed) if run_id is None or one.event.run_id == run_id)
        return next(found, 0) or 0

    def commit(self, events: Sequence[Event]) -> None:
        """These became durable."""
        moment, at = self.tick(), trio.current_time()
        self.committed += [Committed(moment, at, self.server, event) for event in events]

    def direct(self, text: str, script: Script, sub_agents: Sequence[Script]) -> None:
        """What the agent of a prompt is to do, and what its sub-agents are."""
        self.scripts[text] = script
        for number, each in enumerate(sub_agents):
            self.scripts[sub_prompt(text, number)] = each

    def words(self, text: str) -> set[str]:
        """What the agent of a prompt does, and what its sub-agents do: the words of their scripts, without numbers."""
        scripts, asked = [self.scripts.get(text, ())], sub_prompt(text, 0)
        while asked in self.scripts:
            scripts.append(self.scripts[asked])
            asked = sub_prompt(text, len(scripts) - 1)
        return {word.partition(":")[0] for script in scripts for word in script}

    def answer(self, run_id: str, session_id: str) -> Answering:
        """An agent is asked."""
        answering = Answering(run_id, session_id, self.tick(), self.server)
        self.answering.append(answering)
        return answering

    def end_answering(self, answering: Answering, how: Literal["returned", "failed", "canceled"]) -> None:
        """It has come to an end."""
        answering.ended, answering.how = self.tick(), how

    def use(self, run_id: str, session_id: str, usage: Usage) -> None:
        """An agent has accounted for something."""
        self.used.append(Used(run_id, session_id, usage))

    def accept(self, asked: Asked, run: RunRecord, *, replayed: bool) -> None:
        """It was accepted."""
        asked.answered, asked.run, asked.replayed = self.tick(), run, replayed

    def refuse(self, asked: Asked, error: CountermandError) -> None:
        """It was refused."""
        asked.refused, asked.error = self.tick(), error

    def name(self, made: Countermanded, run_ids: Sequence[str]) -> None:
        """The cancel is promised to cover these."""
        made.answered, made.named = self.tick(), tuple(run_ids)
        made.answered_at = trio.current_time()

    def fail(self, made: Countermanded, error: CountermandError) -> None:
        """The cancel may have happened or not."""
        made.error = error

    def run_id(self, name: str) -> str:
        """The id of the run that was accepted under a key; else the name is the id."""
        for asked in self.asked:
            if asked.prompt.idempotency_key == name and asked.run is not None:
                return asked.run.id
        return name
