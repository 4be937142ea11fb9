"""Readers of the feed: each checks, event by event, that it is shown everything once and in order (R27-R30)."""

from engine.events.feed import Feed
from engine.records.event import (
    Event,
    MessageCreated,
    MessageProgress,
    MessageSnapshot,
    MessageUpdated,
    Reset,
    RunCompleted,
)
from engine.records.message import Message, Part, Reasoning, Text
from tests.explorer.ledger import Ledger


class Reader:
    """One client that reads along, over disconnections and over the ends of servers. It goes on behind the last event
    that it has seen; before it has seen one, `after` says where it begins."""

    def __init__(self, ledger: Ledger, name: str, *, after: int | None, run_id: str | None) -> None:
        self.name = name
        self.run_id = run_id
        self.last = after
        self.is_reading = False
        self.seen: list[int] = []
        self._ledger = ledger
        self._shown: dict[str, list[str]] = {}  # the words of each message that is being written
        self._ended: set[str] = set()

    @property
    def is_up_to_date(self) -> bool:
        """Whether nothing is left for it to see, as far as that can be known."""
        latest = self._ledger.latest(self.run_id)
        return not self.is_reading or self.last is None or latest <= self.last

    def begin(self) -> None:
        """A connection begins: what is being written will be shown as a whole."""
        self._shown.clear()

    async def take(self, feed: Feed) -> None:
        """Receive once, and look at everything."""
        for event in await feed.receive():
            self._look_at(event)

    def look_back(self) -> None:
        """Between the first and the last event that it was shown there was nothing else for it to see (R28, R29)."""
        told = [entry.event for entry in self._ledger.committed if self.run_id in (None, entry.event.run_id)]
        first, last = (self.seen[0], self.seen[-1]) if self.seen else (0, 0)
        due = [event.seq for event in told if event.seq is not None and first <= event.seq <= last]
        if due != self.seen and self.seen:
            self._violate(f"was shown {self.seen} of {due} (R28)")

    def _look_at(self, event: Event) -> None:
        if event.seq is not None:
            self._follow(event, event.seq)
        match event.body:
            case Reset():
                self._violate(f"was told to begin anew: {event.body} (R28)")
            case RunCompleted(run_id):
                self._ended.add(run_id)
            case MessageCreated(message) | MessageUpdated(message):
                self._shown[message.id] = words(message)
            case MessageSnapshot(message):
                if event.run_id in self._ended:
                    self._violate(f"was shown a snapshot of {event.run_id} after its ending (R28)")
                self._shown[message.id] = words(message)
            case MessageProgress():
                self._append(event, event.body)

    def _follow(self, event: Event, seq: int) -> None:
        if self.run_id is not None and event.run_id != self.run_id:
            self._violate(f"was shown an event of {event.run_id} (R28)")
        if self.seen and (seq <= self.seen[-1] or (self.run_id is None and seq != self.seen[-1] + 1)):
            self._violate(f"was shown {seq} after {self.seen[-1]} (R27, R28)")
        if not self.seen and self.last is not None and self.run_id is None and seq != self.last + 1:
            self._violate(f"was shown {seq} first, and began after {self.last} (R28)")
        if seq > self._ledger.latest():
            self._violate(f"was shown {seq} before it was durable (R27)")
        self.seen.append(seq)
        self.last = seq

    def _append(self, event: Event, progress: MessageProgress) -> None:
        if event.run_id in self._ended:
            self._violate(f"was shown words of {event.run_id} after its ending (R19)")
        shown = self._shown.get(progress.message.id)
        if shown is None:
            self._violate(f"was shown words of a message of {event.run_id} that it does not know (R28)")
            return
        for delta in progress.deltas:
            shown += [""] * (delta.part + 1 - len(shown))
            if len(shown[delta.part]) != delta.offset:
                self._violate(f"has {len(shown[delta.part])} characters, and gets words at {delta.offset} (R29)")
            shown[delta.part] += delta.text
        whole = words(progress.message)
        if [each for each in whole if each] != [each for each in shown if each]:
            self._violate(f"has {shown} of a message, which is {whole} (R29)")

    def _violate(self, what: str) -> None:
        self._ledger.violate(f"reader {self.name} {what}")


def words(message: Message) -> list[str]:
    """What each part of a message says."""
    return [said(part) for part in message.parts]


def said(part: Part) -> str:
    """The words of a part; of a tool call, none."""
    if isinstance(part, Text):
        return part.text
    return part.thinking if isinstance(part, Reasoning) else ""
