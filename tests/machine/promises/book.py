"""The book: what was told and read of an example, ordered by runs."""

from collections import defaultdict
from typing import Any

import msgspec

from tests.machine.account import Account
from tests.machine.ledger import NEVER, Call, Durable, Sent
from tests.machine.world import World

TERMINAL = frozenset({"completed", "canceled", "failed", "interrupted"})


class Life(msgspec.Struct, eq=False):
    """One run, from the first to the last that the log tells of it."""

    id: str
    session_id: str
    text: str
    number: int  # its accept number
    accepted: Durable
    run: dict[str, Any]  # as it was told last
    sent: Sent | None = None
    begun: Durable | None = None  # its first turn of its own
    ended: Durable | None = None
    ending: dict[str, Any] = {}
    events: list[dict[str, Any]] = []

    @property
    def content(self) -> tuple[str, str, str]:
        """What tells its prompt from others."""
        return self.session_id, self.text, str(self.run["if_busy"])

    @property
    def state(self) -> str:
        """How it ended, or where it is."""
        return str(self.ending.get("state", self.run["state"]))

    @property
    def host(self) -> str:
        """The run that took it in, if one did."""
        return str(self.ending.get("steered_into", ""))

    @property
    def ended_moment(self) -> float:
        """When it ended, or never."""
        return NEVER if self.ended is None else self.ended.moment

    @property
    def first_sent(self) -> int:
        """When it was sent first."""
        return self.sent.first_sent if self.sent is not None else self.accepted.moment

    @property
    def first_told(self) -> float:
        """When a client was first told that it is accepted, or never."""
        return self.sent.first_accepted if self.sent is not None else NEVER

    def __str__(self) -> str:
        return f"run {self.id} ({self.text!r})"


class Book:
    """Everything of one example."""

    def __init__(self, world: World, account: Account) -> None:
        self.ledger = ledger = world.ledger
        self.account = account
        self.readers = world.readers
        self.queue = world.queue
        self.lives: dict[str, Life] = {}
        self.runs: dict[str, dict[str, Any]] = {run["id"]: run for run in account.runs}
        self.deleted = {call.target for call in ledger.of("delete session") if call.status == 200}
        sent = {one.content: one for one in ledger.sent if one.calls}
        for event in account.log:
            self._enter(event, ledger.durable[int(event["id"])], sent)
        self.by_session: defaultdict[str, list[Life]] = defaultdict(list)
        for life in self.lives.values():
            self.by_session[life.session_id].append(life)

    def cancels(self) -> list[Call]:
        """Every request that cancels something by name."""
        return self.ledger.of("cancel session", "cancel run", "clear")

    def closings(self) -> list[Call]:
        """Every request to close the workspace."""
        return self.ledger.of("close")

    def _enter(self, event: dict[str, Any], durable: Durable, sent: dict[tuple[str, str, str], Sent]) -> None:
        body, run_id = event["payload"]["payload"], run_of(event)
        if event["type"] == "run":
            if run_id not in self.lives:
                life = Life(run_id, body["session_id"], body["prompt"], body["seq"], durable, body)
                life.sent = sent.get(life.content)
                self.lives[run_id] = life
            life = self.lives[run_id]
            life.run = body
            if body["state"] == "active" and not body["steered_into"]:
                life.begun = life.begun or durable
        if run_id in self.lives:
            life = self.lives[run_id]
            life.events.append(event)
            if event["type"] == "run_complete":
                life.ended, life.ending = life.ended or durable, life.ending or body


def run_of(event: dict[str, Any]) -> str:
    """The run that an event is about; none: empty."""
    body = event["payload"]["payload"]
    return str(body["id"] if event["type"] == "run" else body.get("run_id", ""))
