"""The bus inside one process: a bounded buffer for each reader, and nothing that waits."""

from collections import deque
from typing import final

import msgspec
import trio

from engine.events.protocol import Lagged, Subscription
from engine.records.event import Event
from engine.records.ids import RunId, WorkspaceId

BUFFER = 512  # events kept for one reader; one more and all of them go, since the log has what mattered (R29)


class LocalBusStatistics(msgspec.Struct, frozen=True):
    """What a bus is doing: now, and since it was made."""

    workspaces: int
    subscriptions: int
    buffered: int
    published: int
    lagged: int  # times that a reader fell behind


@final
class LocalSubscription:
    """Implements `Subscription`, for one reading task. Made by `LocalBus.subscribe`."""

    def __init__(self, workspace_id: WorkspaceId, run_id: RunId | None, limit: int) -> None:
        self.workspace_id = workspace_id
        self.run_id = run_id
        self._limit = limit
        self._buffer: deque[Event] = deque()
        self._has_lagged = False
        self._is_closed = False
        self._reader = trio.lowlevel.ParkingLot()

    @property
    def buffered(self) -> int:
        """How many events wait for the reader."""
        return len(self._buffer)

    async def receive(self) -> list[Event]:
        if self._buffer or self._has_lagged or self._is_closed:
            await trio.lowlevel.checkpoint()
        else:
            await self._reader.park()
        # From taking to returning there is no checkpoint: a reader that is canceled has lost nothing.
        while not self._buffer:
            if self._has_lagged:
                self._has_lagged = False
                raise Lagged
            if self._is_closed:
                raise trio.EndOfChannel
            await self._reader.park()
        events = list(self._buffer)
        self._buffer.clear()
        return events

    def clear(self) -> None:
        self._buffer.clear()
        self._has_lagged = False

    def put(self, event: Event) -> bool:
        """Buffer an event of this reader's workspace; say whether it was the one too many. For the bus."""
        if self._has_lagged or (self.run_id is not None and event.run_id != self.run_id):
            return False
        if len(self._buffer) < self._limit:
            self._buffer.append(event)
        else:
            self._buffer.clear()
            self._has_lagged = True
        self._reader.unpark()
        return self._has_lagged

    def close(self) -> None:
        """Let the reader find the end after what is buffered. For the bus."""
        self._is_closed = True
        self._reader.unpark_all()


@final
class LocalBus:
    """Implements `Bus` for one process. Needs no lock: all of it runs on Trio's thread, and nothing in it is async."""

    def __init__(self, *, limit: int = BUFFER) -> None:
        self._limit = limit
        # Dictionaries for their order and their cheap removal; the values say nothing.
        self._subscriptions: dict[WorkspaceId, dict[LocalSubscription, None]] = {}
        self._latest: dict[WorkspaceId, int] = {}
        self._published = 0
        self._lagged = 0

    def publish(self, event: Event) -> None:
        self._published += 1
        if event.seq is not None:
            self._latest[event.workspace_id] = event.seq
        for subscription in self._subscriptions.get(event.workspace_id, ()):
            self._lagged += subscription.put(event)

    def latest(self, workspace_id: WorkspaceId) -> int | None:
        return self._latest.get(workspace_id)

    def subscribe(self, workspace_id: WorkspaceId, run_id: RunId | None = None) -> LocalSubscription:
        subscription = LocalSubscription(workspace_id, run_id, self._limit)
        self._subscriptions.setdefault(workspace_id, {})[subscription] = None
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        assert isinstance(subscription, LocalSubscription), "it is not of this bus"
        readers = self._subscriptions.get(subscription.workspace_id, {})
        readers.pop(subscription, None)
        if not readers:
            self._subscriptions.pop(subscription.workspace_id, None)
        subscription.clear()
        subscription.close()

    def close_workspace(self, workspace_id: WorkspaceId) -> None:
        for subscription in self._subscriptions.pop(workspace_id, ()):
            subscription.close()
        # `_latest` stays: a reader that is on its way to the end still measures by it.

    def statistics(self) -> LocalBusStatistics:
        """A snapshot."""
        readers = [subscription for some in self._subscriptions.values() for subscription in some]
        return LocalBusStatistics(
            workspaces=len(self._subscriptions),
            subscriptions=len(readers),
            buffered=sum(reader.buffered for reader in readers),
            published=self._published,
            lagged=self._lagged,
        )
