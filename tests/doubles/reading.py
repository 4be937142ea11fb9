"""A reader that follows a workspace's events as a client does, and keeps what it was shown."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from engine.events.feed import Feed
from engine.records.event import (
    Event,
    MessageCreated,
    MessageProgress,
    MessageSnapshot,
    MessageUpdated,
    Reset,
)
from engine.records.ids import RunId
from engine.records.message import Message, Reasoning, Text
from engine.workspace import Workspace


class Reader:
    """Folds events into messages: whole ones replace what was there, and deltas must fit to what is there."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.got: list[Event] = []
        self.parts: dict[str, dict[int, str]] = defaultdict(dict)
        self.history: dict[str, list[str]] = defaultdict(list)  # each state of a message's text that was shown
        self.texts: dict[str, str] = {}
        self.is_at_end = False

    @property
    def numbers(self) -> list[int]:
        """The numbers of the durable events it got, in order."""
        return [event.seq for event in self.got if event.seq is not None]

    @property
    def progress(self) -> list[Event]:
        """What it got of messages being written."""
        return [event for event in self.got if isinstance(event.body, MessageProgress)]

    async def read(self) -> None:
        """Read until the workspace closes."""
        while not self.is_at_end:
            await self.read_once()

    async def read_once(self) -> None:
        """Take one batch of events."""
        try:
            events = await self.feed.receive()
        except trio.EndOfChannel:
            self.is_at_end = True
            return
        for event in events:
            assert event.seq is None or event.seq > max(self.numbers, default=-1), "a repeat, or out of order"
            self.got.append(event)
            self._fold(event)

    async def caught_up(self) -> None:
        """Return when it has read all there is."""
        await trio.testing.wait_all_tasks_blocked()

    def _fold(self, event: Event) -> None:
        match event.body:
            case MessageProgress(message, deltas):
                for delta in deltas:
                    parts = self.parts[delta.message_id]
                    before = parts.get(delta.part, "")
                    assert delta.offset == len(before), "a delta does not fit"
                    parts[delta.part] = before + delta.text
                assert self.parts[message.id] == words(message), "the deltas and the message tell different things"
                self._show(message)
            case MessageSnapshot(message) | MessageCreated(message) | MessageUpdated(message):
                self.parts[message.id] = words(message)
                self._show(message)
            case Reset():
                self.parts.clear()
            case _:
                pass

    def _show(self, message: Message) -> None:
        self.texts[message.id] = message.text
        self.history[message.id].append(message.text)


def words(message: Message) -> dict[int, str]:
    """The text of each part that has one, by its place."""
    found: dict[int, str] = {}
    for index, part in enumerate(message.parts):
        if isinstance(part, Text):
            found[index] = part.text
        elif isinstance(part, Reasoning):
            found[index] = part.thinking
    return found


@asynccontextmanager
async def read_along(
    workspace: Workspace, *, after: int | None = None, run_id: RunId | None = None
) -> AsyncIterator[Reader]:
    """A reader that reads whenever there is something, until the context is left."""
    async with workspace.open_feed(after=after, run_id=run_id) as feed, trio.open_nursery() as nursery:
        reader = Reader(feed)
        nursery.start_soon(reader.read)
        yield reader
        nursery.cancel_scope.cancel()
