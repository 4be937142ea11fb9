"""What the tests of the feed write and watch."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
import trio

from engine.events.feed import Feed, open_feed
from engine.events.local_bus import LocalBus
from engine.events.log import EventLog
from engine.records.change import CreateMessage, UpdateMessage
from engine.records.event import (
    Delta,
    Event,
    MessageCreated,
    MessageProgress,
    MessageSnapshot,
    MessageUpdated,
    Reset,
)
from engine.records.ids import MessageId, RunId
from engine.records.message import Finish, FinishReason, Message, Text
from tests.doubles.store import GatedStore
from tests.engine.store.samples import AT, W, change, message

LIMIT = 8  # events that the bus of a scene buffers for a reader


class Scene:
    """A store, a log and a bus, and messages that are being streamed into them."""

    def __init__(self, store: GatedStore, *, limit: int = LIMIT) -> None:
        self.store = store
        self.bus = LocalBus(limit=limit)
        self.log = EventLog(store, self.bus)
        self.turn = trio.Lock()
        self.streaming: dict[MessageId, Message] = {}
        self._made = 0

    async def happen(self, count: int = 1, *, run: str | None = None, text: str = "words") -> None:
        """Commit so many events, one commit each."""
        for _ in range(count):
            await self.log.commit(change(CreateMessage(self._message(run, text))))

    def submit(self, *, run: str | None = None) -> None:
        """Send one event on its way."""
        self.log.submit(change(CreateMessage(self._message(run))))

    async def begin(self, *, run: str | None = None) -> MessageId:
        """Begin to stream a message."""
        new = msgspec.structs.replace(self._message(run), parts=(Text(""),))
        self.streaming[new.id] = new
        await self.log.commit(change(CreateMessage(new)))
        return new.id

    def stream(self, id: MessageId, text: str) -> None:
        """Show more of a message, as a message writer does: at once, and to those who are there."""
        before = self.streaming[id]
        after = msgspec.structs.replace(before, parts=(Text(before.text + text),))
        self.streaming[id] = after
        body = MessageProgress(after, (Delta(id, 0, len(before.text), text),))
        self.log.publish_volatile(Event(None, W, AT, body, run_id=after.run_id, session_id=after.session_id))

    async def finish(self, id: MessageId) -> Message:
        """End a message."""
        last = self.streaming[id]
        last = msgspec.structs.replace(last, parts=(*last.parts, Finish(FinishReason.END_TURN)))
        pending = self.log.submit(change(UpdateMessage(last)))
        del self.streaming[id]
        await pending.wait()
        return last

    def open_feed(self, after: int | None, *, run: str | None = None) -> AbstractAsyncContextManager[Feed]:
        return open_feed(
            self.bus,
            self.store,
            W,
            after=after,
            run_id=None if run is None else RunId(run),
            turn=self.turn,
            snapshots=lambda: list(self.streaming.values()),
            now_us=lambda: AT,
        )

    @asynccontextmanager
    async def watch(self, after: int | None, *, run: str | None = None) -> AsyncIterator["Watcher"]:
        """A reader that is asked for what it has got."""
        async with self.open_feed(after, run=run) as feed:
            yield Watcher(feed)

    def _message(self, run: str | None, text: str = "words") -> Message:
        self._made += 1
        return message(f"m{self._made}", text, run=run)


class Watcher:
    """Folds what a feed gives as a client does, and checks the order and the fit of it."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.got: list[Event] = []
        self.texts: dict[MessageId, str] = {}
        self.is_at_end = False

    @property
    def numbers(self) -> list[int]:
        """The durable events it got."""
        return [event.seq for event in self.got if event.seq is not None]

    @property
    def shape(self) -> list[int | str]:
        """Numbers of durable events, names of volatile ones."""
        names = {MessageProgress: "progress", MessageSnapshot: "snapshot", Reset: "reset"}
        return [names[type(event.body)] if event.seq is None else event.seq for event in self.got]

    async def receive(self) -> list[Event]:
        """One batch, at least one event; fails the test if there is none."""
        with trio.fail_after(60):
            events = await self.feed.receive()
        assert events
        for event in events:
            self._fold(event)
        return events

    async def catch_up(self) -> None:
        """Take everything that comes without time passing; under a clock that jumps."""
        try:
            with trio.move_on_after(1):
                while True:
                    await self.receive()
        except trio.EndOfChannel:
            self.is_at_end = True

    def _fold(self, event: Event) -> None:
        assert event.seq is None or event.seq > max(self.numbers, default=-1), "a repeat, or out of order"
        self.got.append(event)
        match event.body:
            case MessageProgress(_, deltas):
                for delta in deltas:
                    assert delta.offset == len(self.texts[delta.message_id]), "the delta does not fit"
                    self.texts[delta.message_id] += delta.text
            case MessageSnapshot(message) | MessageCreated(message) | MessageUpdated(message):
                self.texts[message.id] = message.text
            case _:
                pass
