"""The ledger of one example: what clients sent, were told and read, in one order.

A moment is a number that goes up with every entry. `durable` says of each number in the log when it was committed: the
one thing that no client sees, and that orders what they were told.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from engine.records.event import Event

NEVER = float("inf")
TOLD_MAX = 200  # characters of an answer, in the story


class Durable(msgspec.Struct, frozen=True):
    """When an event became durable, by Trio's clock too, and which server wrote it."""

    moment: int
    at: float
    server: int


class Call(msgspec.Struct, kw_only=True, eq=False):
    """One request, and what came of it. `target` is the session or the run that it is about."""

    kind: str
    method: str
    path: str
    target: str = ""
    body: bytes = b""
    headers: dict[str, str] = {}
    server: int = 0
    began: int = 0
    answered: float = NEVER
    answered_at: float = NEVER
    status: int = 0  # 0: nobody answered
    told: Any = None
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)

    @property
    def named(self) -> tuple[str, ...]:
        """The runs that a cancel promised to cover."""
        return tuple(self.told["canceled"]) if self.status == 200 else ()

    @property
    def problem(self) -> str:
        """The stable word of a refusal."""
        return str(self.told.get("type")) if isinstance(self.told, dict) and self.status >= 400 else ""


class Sent(msgspec.Struct, kw_only=True, eq=False):
    """A prompt, and each time that it was sent. Another body under the same id or key is another prompt."""

    name: str
    session_id: str
    text: str
    if_busy: str | None = None
    run_id: str | None = None
    key: str | None = None
    timeout_s: float | None = None
    on_crash: str | None = None
    calls: list[Call] = []

    @property
    def told_id(self) -> str | None:
        """The id of its run, as far as any client knows it."""
        return next((call.told["run_id"] for call in self.calls if call.status == 202), self.run_id)

    @property
    def first_sent(self) -> int:
        """When it was sent first."""
        return self.calls[0].began

    @property
    def first_accepted(self) -> float:
        """When a client was first told that it is accepted, or never."""
        return min((call.answered for call in self.calls if call.status == 202), default=NEVER)

    @property
    def policy(self) -> str:
        """What happens to it behind another run."""
        return self.if_busy or ("enqueue" if self.run_id else "steer")

    @property
    def is_safe(self) -> bool:
        """Whether it may be sent again (R06)."""
        return self.run_id is not None or self.key is not None

    @property
    def content(self) -> tuple[str, str, str]:
        """What tells it from other prompts: its session, its words, its policy."""
        return self.session_id, self.text, self.policy

    def __repr__(self) -> str:
        return f"<{self.name}: {self.text!r}>"


class Asked(msgspec.Struct, frozen=True):
    """The agent was asked to answer a run, and shown these prompts of earlier ones."""

    run_id: str
    session_id: str
    moment: int
    history: frozenset[str]


class Ledger:
    """Everything of one example."""

    def __init__(self) -> None:
        self.moment = 0
        self.server = 0
        self.calls: list[Call] = []
        self.sent: list[Sent] = []
        self.asked: list[Asked] = []
        self.durable: dict[int, Durable] = {}
        self.stops: dict[int, int] = {}  # when each server was told to stop, or killed
        self.drains: set[int] = set()  # the servers that were told to stop
        self.kills: set[int] = set()  # the servers that were killed, some of them while they stopped
        self.violations: list[str] = []
        self.story: list[str] = []

    def tick(self) -> int:
        """A new moment."""
        self.moment += 1
        return self.moment

    def violate(self, what: str) -> None:
        """Something happened that must not."""
        self.violations.append(what)
        self.tell("VIOLATION", what)

    def tell(self, *words: object) -> None:
        """Something happened that a reader of the example wants to know."""
        self.story.append(f"{self.moment:5} {trio.current_time():9.3f}  " + " ".join(map(str, words)))

    def commit(self, events: Sequence[Event]) -> None:
        """These became durable."""
        now = Durable(self.tick(), trio.current_time(), self.server)
        for event in events:
            assert event.seq is not None
            if event.seq in self.durable:
                self.violate(f"number {event.seq} was given twice (R27)")
            self.durable[event.seq] = now
            self.tell("    event", event.seq, type(event.body).__name__, event.run_id or "")

    def begin(self, call: Call) -> None:
        """It is sent."""
        call.began, call.server = self.tick(), self.server
        self.calls.append(call)
        self.tell("→", call.kind, call.target, call.method, call.path, call.body.decode(errors="replace"))

    def answer(self, call: Call, status: int, told: Any) -> None:
        """It is answered."""
        call.answered, call.answered_at, call.status, call.told = self.tick(), trio.current_time(), status, told
        self.tell("←", call.kind, call.target, status, str(told)[:TOLD_MAX])

    def of(self, *kinds: str) -> list[Call]:
        """The requests of these kinds."""
        return [call for call in self.calls if call.kind in kinds]

    def ask(self, run_id: str, session_id: str, history: frozenset[str]) -> None:
        """The agent is asked."""
        self.asked.append(Asked(run_id, session_id, self.tick(), history))
        self.tell("    agent is asked", run_id)
