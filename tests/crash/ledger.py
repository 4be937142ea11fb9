"""What the clients of a server were told, over all its lives: what it will be held to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import trio


class Violation(AssertionError):
    """A promise was broken."""


def leaves(group: BaseExceptionGroup) -> list[BaseException]:
    """The errors in it."""
    inner = [leaves(error) if isinstance(error, BaseExceptionGroup) else [error] for error in group.exceptions]
    return [leaf for found in inner for leaf in found]


@dataclass
class Sent:
    """A prompt, and what was answered. Its text is its own: it is found again by it."""

    text: str
    session_id: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    run_id: str = ""  # known when it was answered with 202
    seq: int = 0
    refused: int = 0  # the status that it was refused with
    times: int = 0  # that it was sent

    @property
    def is_open(self) -> bool:
        """Whether nobody knows what became of it: it is to be sent again."""
        return not self.run_id and not self.refused


@dataclass
class Ledger:
    """The prompts, the cancels and the events of one workspace."""

    sent: dict[str, Sent] = field(default_factory=dict)  # by text
    acknowledged: dict[str, Sent] = field(default_factory=dict)  # by run id
    named: set[str] = field(default_factory=set)  # runs that the answer of a cancel named
    decided: dict[str, str] = field(default_factory=dict)  # requests that an answer was told to have decided, and how
    events: dict[int, bytes] = field(default_factory=dict)  # durable ones that a reader has seen
    ended: dict[str, str] = field(default_factory=dict)  # runs whose end was seen, and how
    on_end: Callable[[Sent, str], None] = lambda *_: None  # told of each end that is seen, once: the prompt, the state

    _changed: trio.Event = field(default_factory=trio.Event)

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until it is true; looked at after each event, and whenever somebody rings."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()

    def ring(self) -> None:
        """Wake whoever waits."""
        self._changed.set()
        self._changed = trio.Event()

    @property
    def in_flight(self) -> int:
        """Runs that were accepted, and whose end was not seen."""
        return len(self.acknowledged) - len(self.acknowledged.keys() & self.ended.keys())

    def runs_in_flight(self) -> list[str]:
        """Their ids."""
        return [run_id for run_id in self.acknowledged if run_id not in self.ended]

    def open_prompts(self) -> list[Sent]:
        """Those that were not answered."""
        return [sent for sent in self.sent.values() if sent.is_open]

    def accepted(self, sent: Sent, answer: Mapping[str, Any]) -> None:
        """A prompt was answered with 202: by the same run each time, whatever it was sent for."""
        run_id, seq = answer["run_id"], answer["seq"]
        if sent.run_id and (sent.run_id, sent.seq) != (run_id, seq):
            raise Violation(f"{sent.text}: run {sent.run_id} at first, and now {run_id} (R06)")
        if self.acknowledged.get(run_id, sent) is not sent:
            raise Violation(f"run {run_id} is the answer to two prompts (R06)")
        sent.run_id, sent.seq = run_id, seq
        self.acknowledged[run_id] = sent

    def refused(self, sent: Sent, status: int) -> None:
        """A prompt was answered with an error."""
        if sent.run_id:
            raise Violation(f"{sent.text}: accepted at first, and now {status} (R06)")
        sent.refused = status

    def decides(self, request_id: str, decision: str) -> None:
        """An answer to a request was told that it decided: no other one is (R31)."""
        if request_id in self.decided:
            raise Violation(f"request {request_id} was decided twice: {self.decided[request_id]}, {decision} (R31)")
        self.decided[request_id] = decision

    def seen(self, seq: int, data: bytes) -> None:
        """A reader has seen a durable event: the same under its number each time, for everybody."""
        if self.events.setdefault(seq, data) != data:
            raise Violation(f"event {seq} was {self.events[seq]!r} and is {data!r} (R27)")
        self.ring()
        if data.startswith(b'{"type":"run_complete"'):
            end = msgspec.json.decode(data)["payload"]["payload"]
            run_id, told = end["run_id"], f"{end['state']} {seq}"
            if run_id not in self.ended and run_id in self.acknowledged:
                self.on_end(self.acknowledged[run_id], end["state"])
            if self.ended.setdefault(run_id, told) != told:
                raise Violation(f"run {run_id} ended twice: {self.ended[run_id]}, then {seq} (R18)")
