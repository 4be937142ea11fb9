"""A reader's view of a workspace: the log from a number on, then live events, without loss or repetition (R28)."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import final

import trio

from engine.events.protocol import Bus, Lagged, Subscription
from engine.records.event import Event, MessageSnapshot, Reset
from engine.records.ids import RunId, SessionId, WorkspaceId
from engine.records.message import Message
from engine.store.protocol import EventRange, Store

PAGE = 256  # events read from the log at once
AT_ONCE = 64  # events given out at once: what is made of more would keep everybody else waiting (R29)
PAGE_BYTES = 4 << 20  # but no more than this, as they are stored: one event may hold a whole long message


@asynccontextmanager
async def open_feed(
    bus: Bus,
    store: Store,
    workspace_id: WorkspaceId,
    *,
    after: int | None,
    run_id: RunId | None = None,
    turn: trio.Lock,
    snapshots: Callable[[], Sequence[Message]],
    now_us: Callable[[], int],
) -> AsyncIterator["Feed"]:
    """Read the events of a workspace, or those of one run, with a number above `after`; None is from now on.

    `turn` is that of all readers: one of those that replay goes on in each pass of the scheduler, so that who has
    something else to do waits for one of them at most, however many there are (R29). `snapshots` gives the messages
    that are being written at this moment. Raises `StoreUnavailable`.
    """
    # Everything published from here on is buffered, so that nothing falls between the log and the live events.
    subscription = bus.subscribe(workspace_id, run_id)
    try:
        feed = Feed(bus, store, subscription, workspace_id, run_id, turn, snapshots, now_us)
        await feed.begin(after)
        yield feed
    finally:
        bus.unsubscribe(subscription)


@final
class Feed:
    """Reads in two ways, in turn. *Replaying*, it reads the log up to `_target`, the last number that was published
    when that began; then the snapshots of that moment are due; and then it is *live*, from that same moment on.

    Of one run it sees some of the numbers only, and relies on the bus to tell it of a loss; of the whole workspace it
    sees all of them, and takes a gap for a loss too.
    """

    def __init__(
        self,
        bus: Bus,
        store: Store,
        subscription: Subscription,
        workspace_id: WorkspaceId,
        run_id: RunId | None,
        turn: trio.Lock,
        snapshots: Callable[[], Sequence[Message]],
        now_us: Callable[[], int],
    ) -> None:
        self._bus = bus
        self._store = store
        self._subscription = subscription
        self._workspace_id = workspace_id
        self._run_id = run_id
        self._turn = turn
        self._snapshots = snapshots
        self._now_us = now_us
        self._last = 0  # everything up to this number was given out, or will never be
        self._target = 0
        self._is_behind = True  # what the bus gives next may not follow on `_last`
        self._due: list[Event] = []  # what the next `receive` gives
        self._due_when_live: list[Event] = []

    async def begin(self, after: int | None) -> None:
        """Lay down where reading begins. For `open_feed`."""
        numbers = await self._store.event_range(self._workspace_id)
        self._last = self._published(numbers) if after is None else after
        self._replay_from(numbers)

    async def receive(self) -> list[Event]:
        """Wait for events and take some, at least one and at most `AT_ONCE`, in order.

        Canceled, it has lost nothing. Raises `trio.EndOfChannel` when the workspace is closed and everything durable
        was given out, and `StoreUnavailable` when the log cannot be read; calling it again then goes on.
        """
        if self._due:
            await self._wait_turn()
        else:
            await trio.lowlevel.checkpoint()
        while not self._due:
            await self._advance()
        events, self._due = self._due[:AT_ONCE], self._due[AT_ONCE:]
        return events

    async def _advance(self) -> None:
        if self._is_behind:
            self._replay_from(await self._store.event_range(self._workspace_id))
        elif self._last < self._target:
            await self._read_page()
        elif self._due_when_live:
            await trio.lowlevel.checkpoint()
            self._due, self._due_when_live = self._due_when_live, []
        else:
            await self._read_live()

    def _published(self, numbers: EventRange) -> int:
        """The last number that was published. Before the first, that is the last in the log: what is there was written
        before the bus was opened, or is about to be published to a reader that need not hear of it twice."""
        published = self._bus.latest(self._workspace_id)
        return numbers.latest if published is None else published

    def _replay_from(self, numbers: EventRange) -> None:
        """Begin to replay after `_last`. One synchronous step, so that nothing is published in the middle of it: what
        is forgotten here is in the log up to `_target` or, being volatile, in the snapshots; the rest will come."""
        self._subscription.clear()
        self._target = self._published(numbers)
        self._due_when_live = [
            self._volatile(MessageSnapshot(message), message.run_id, message.session_id)
            for message in self._snapshots()
            if self._run_id is None or message.run_id == self._run_id
        ]
        latest = max(numbers.latest, self._target)
        if not numbers.oldest - 1 <= self._last <= latest:
            self._due = [self._volatile(Reset(self._last, numbers.oldest, latest), self._run_id)]
            self._last = latest if self._last > latest else max(numbers.oldest - 1, 0)
        self._is_behind = False

    async def _read_page(self) -> None:
        page = await self._store.events_after(
            self._workspace_id, self._last, limit=PAGE, run_id=self._run_id, max_bytes=PAGE_BYTES
        )
        if not page or page[0].seq != self._last + 1:
            numbers = await self._store.event_range(self._workspace_id)
            if numbers.oldest > self._last + 1:
                # Pruned while it was being read: the reader is told, and gets the rest.
                self._replay_from(numbers)
                return
        # What was published since is left to the bus: the snapshots come before it.
        self._due = [event for event in page if event.seq is not None and event.seq <= self._target]
        # A page that is not full may have been cut short by its size; only an empty one says that there is no more.
        has_more = self._due and len(self._due) == len(page)
        self._last = self._due[-1].seq or self._last if has_more else self._target
        await self._wait_turn()

    async def _wait_turn(self) -> None:
        async with self._turn:
            pass  # it lasts for one pass of the scheduler: a reader that stalls keeps nobody waiting

    async def _read_live(self) -> None:
        try:
            received = await self._subscription.receive()
        except Lagged:
            self._is_behind = True
            await trio.lowlevel.checkpoint()  # noted before it: this is not told twice
            return
        for event in received:
            if event.seq is not None:
                if event.seq <= self._last:
                    continue
                if self._run_id is None and event.seq != self._last + 1:
                    self._is_behind = True
                    break
                self._last = event.seq
            self._due.append(event)

    def _volatile(
        self, body: MessageSnapshot | Reset, run_id: RunId | None, session_id: SessionId | None = None
    ) -> Event:
        return Event(None, self._workspace_id, self._now_us(), body, run_id, session_id)
