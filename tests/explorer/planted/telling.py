"""Bugs in what readers are shown."""

from collections.abc import Iterator

from engine.events.feed import Feed
from engine.events.local_bus import LocalSubscription
from engine.records.event import Event
from engine.store.protocol import EventRange
from tests.explorer.planted.registry import bug, put


@bug(first=69)
def loss_not_told() -> Iterator[None]:
    """A reader that falls behind loses the oldest of what it has not read, and is not told (R29)."""

    def put_quietly(subscription: LocalSubscription, event: Event, chars: int) -> bool:
        if subscription.run_id is not None and event.run_id != subscription.run_id:
            return False
        if len(subscription._buffer) >= subscription._limit:
            subscription._buffer.popleft()
        subscription._buffer.append(event)
        subscription._reader.unpark()
        return False

    with put(LocalSubscription, "put", put_quietly):
        yield


@bug(first=29)
def no_snapshots() -> Iterator[None]:
    """Who begins to read in the middle of a message is not shown what it says so far (R28)."""
    usual = Feed._replay_from

    def replay_from(feed: Feed, numbers: EventRange) -> None:
        usual(feed, numbers)
        feed._due_when_live = []

    with put(Feed, "_replay_from", replay_from):
        yield


@bug()
def last_event_comes_again() -> Iterator[None]:
    """Who goes on behind an event is shown that event again (R28)."""
    usual = Feed.begin

    async def begin(feed: Feed, after: int | None) -> None:
        await usual(feed, max(after - 1, 0) if after is not None else None)

    with put(Feed, "begin", begin):
        yield


@bug(first=397)
def log_read_before_subscribing() -> Iterator[None]:
    """What is published while a reader's place in the log is being looked up is lost to it (R28)."""

    def published(feed: Feed, numbers: EventRange) -> int:
        return numbers.latest

    with put(Feed, "_published", published):
        yield
