"""The log: one writer, the order of submitting, and nobody left waiting."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.errors import Conflict, StoreUnavailable
from engine.events import log as logs
from engine.events.local_bus import LocalBus
from engine.events.log import EventLog, Pending
from engine.records.change import Change, CreateMessage, UpdateMessage
from engine.records.event import ConfigChanged, Event
from engine.store.protocol import Committed, Store
from tests.doubles.gate import Gate
from tests.doubles.store import FailingStore, GatedStore, nth
from tests.engine.store.samples import AT, W, accept, change, message, numbers, progress


@asynccontextmanager
async def open_log(store: Store, bus: LocalBus | None = None, *, limit: int = logs.LIMIT) -> AsyncIterator[EventLog]:
    log = EventLog(store, bus or LocalBus(), limit=limit)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        try:
            yield log
        finally:
            log.close()


def create(n: int) -> Change:
    return change(CreateMessage(message(str(n))))


async def last_number(pending: Pending) -> int | None:
    return (await pending.wait()).events[-1].seq


async def test_a_commit_gives_what_the_store_gave(store: GatedStore, autojump_clock: MockClock) -> None:
    async with open_log(store) as log:
        committed = await log.commit(create(1))
    assert (committed.applied, numbers(committed.events)) == ((True,), [2])


async def test_r27_the_order_of_submitting_is_the_order_of_numbers_whoever_waits_first(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    async with open_log(store) as log:
        waiting = [log.submit(create(n)) for n in range(20)]
        given = [await last_number(pending) for pending in reversed(waiting)]
    assert given == list(range(21, 1, -1))


async def test_what_waits_shares_a_commit(store: GatedStore, autojump_clock: MockClock) -> None:
    store.before_commit = Gate()
    async with open_log(store) as log:
        first = log.submit(create(0))
        await store.before_commit.reached()
        later = [log.submit(create(n)) for n in range(1, 600)]
        assert log.statistics().waiting == 599
        assert log.statistics().writing == 1
        store.before_commit.open()
        for pending in (first, *later):
            await pending.wait()
    assert store.batches == [1, 512, 87]
    assert (log.statistics().commits, log.statistics().committed) == (3, 600)


async def test_what_was_submitted_before_the_writer_runs_is_written(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    log = EventLog(store, LocalBus())
    pending = log.submit(create(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        assert await last_number(pending) == 2
        log.close()


# -- publishing


async def test_r27_events_are_published_after_their_commit_and_in_its_order(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    bus = LocalBus()
    subscription = bus.subscribe(W)
    store.after_commit = Gate()
    async with open_log(store, bus) as log:
        for n in range(5):
            log.submit(create(n))
        await store.after_commit.reached()
        assert (await store.event_range(W)).latest > 1, "it is committed"
        assert bus.statistics().published == 0, "and not yet told"
        store.after_commit.open()
        await log.wait_drained()
    assert numbers(await subscription.receive()) == [2, 3, 4, 5, 6]


async def test_r27_who_is_woken_finds_every_event_of_the_batch_published(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    bus = LocalBus()
    seen: list[tuple[int | None, int | None]] = []

    async def wait(pending: Pending) -> None:
        number = await last_number(pending)
        seen.append((number, bus.latest(W)))

    async with open_log(store, bus) as log, trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(wait, log.submit(create(n)))
    assert sorted(seen) == [(2, 4), (3, 4), (4, 4)]


async def test_a_failed_change_publishes_nothing_and_its_neighbours_do(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    bus = LocalBus()
    subscription = bus.subscribe(W)
    async with open_log(store, bus) as log:
        await log.commit(change(accept("r")))
        good, bad, also_good = (log.submit(c) for c in (create(1), change(accept("r", 2)), create(2)))
        assert (await last_number(good), await last_number(also_good)) == (3, 4)
        with pytest.raises(Conflict):
            await bad.wait()
        with pytest.raises(Conflict):
            await bad.wait()
        assert log.statistics().failed == 1
    assert numbers(await subscription.receive()) == [2, 3, 4]


async def test_r26_a_store_that_fails_one_change_fails_its_waiter_alone(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    failing = FailingStore(store, nth(2))
    async with open_log(failing) as log:
        first, second, third = (log.submit(create(n)) for n in range(3))
        assert (await last_number(first), await last_number(third)) == (2, 3)
        with pytest.raises(StoreUnavailable):
            await second.wait()
    assert failing.failed == 1


async def test_volatile_events_are_published_at_once(store: GatedStore, autojump_clock: MockClock) -> None:
    bus = LocalBus()
    subscription = bus.subscribe(W)
    log = EventLog(store, bus)
    log.publish_volatile(progress(message("m")))
    assert numbers(await subscription.receive()) == [None]
    with pytest.raises(AssertionError):
        log.publish_volatile(Event(7, W, AT, ConfigChanged(W)))


# -- bounds


async def test_r26_a_log_that_is_full_refuses_and_recovers(store: GatedStore, autojump_clock: MockClock) -> None:
    store.before_commit = Gate()
    async with open_log(store, limit=3) as log:
        first = log.submit(create(0))
        await store.before_commit.reached()
        waiting = [log.submit(create(n)) for n in (1, 2, 3)]
        with pytest.raises(StoreUnavailable, match="the store is behind: 3 changes wait"):
            log.submit(create(4))
        store.before_commit.open()
        for pending in (first, *waiting):
            await pending.wait()
        assert numbers((await log.commit(create(4))).events) == [6]


async def test_r30_flushes_are_dropped_when_the_log_is_half_full(store: GatedStore, autojump_clock: MockClock) -> None:
    store.before_commit = Gate()
    flush = change(UpdateMessage(message("0", "more"), quiet=True))
    async with open_log(store, limit=10) as log:
        log.submit(create(0))
        await store.before_commit.reached()
        assert [log.submit_droppable(flush) for _ in range(8)] == [True] * 6 + [False] * 2
        assert log.statistics().dropped == 2
        log.submit(create(1))
        store.before_commit.open()
        await log.wait_drained()
        assert log.submit_droppable(flush)
        await log.wait_drained()
    assert (await store.messages(W, message("0").session_id))[0].text == "more"
    assert log.submit_droppable(flush) is False, "closed"


# -- cancellation and endings


async def test_canceling_a_waiter_withdraws_nothing(store: GatedStore, autojump_clock: MockClock) -> None:
    store.before_commit = Gate()
    async with open_log(store) as log:
        with trio.move_on_after(1) as scope:
            await log.commit(create(1))
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await log.commit(create(2))
        store.before_commit.open()
    assert [m.id for m in await store.messages(W, message("1").session_id)] == ["1", "2"]


async def test_a_change_can_be_waited_for_by_many_and_afterwards(store: GatedStore, autojump_clock: MockClock) -> None:
    async with open_log(store) as log:
        pending = log.submit(create(1))
        assert (pending.is_done, pending.outcome) == (False, None)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(pending.wait)
        assert await last_number(pending) == 2
        assert (pending.is_done, pending.outcome) == (True, await pending.wait())


async def test_a_closed_log_writes_what_it_has_and_takes_nothing(store: GatedStore, autojump_clock: MockClock) -> None:
    store.before_commit = Gate()
    async with open_log(store) as log:
        waiting = [log.submit(create(n)) for n in range(3)]
        log.close()
        log.close()
        with pytest.raises(StoreUnavailable, match="the log is closed"):
            log.submit(create(9))
        store.before_commit.open()
        assert [await last_number(pending) for pending in waiting] == [2, 3, 4]


async def test_waiting_until_it_is_drained_waits_for_what_is_being_written_too(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    store.after_commit = Gate()
    async with open_log(store) as log, trio.open_nursery() as nursery:
        log.submit(create(1))
        await store.after_commit.reached()
        drained = Gate(is_open=True)

        async def wait() -> None:
            await log.wait_drained()
            await drained.pass_through()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert drained.arrivals == 0
        store.after_commit.open()
    assert drained.arrivals == 1


class BrokenStore(GatedStore):
    """A store with a mistake in it: it raises, where it should return an error for each change."""

    async def commit(self, changes: Sequence[Change]) -> list[Committed | Exception]:
        await self.before_commit.pass_through()
        raise ZeroDivisionError


async def test_r22_when_the_writer_dies_everybody_who_waits_is_told(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    broken = BrokenStore(store)
    broken.before_commit = Gate()
    log = EventLog(broken, LocalBus())
    told: list[str] = []

    async def wait(pending: Pending) -> None:
        with pytest.raises(StoreUnavailable, match="it is not known whether") as caught:
            await pending.wait()
        told.append(str(caught.value))

    async def run() -> None:
        with pytest.raises(ZeroDivisionError):
            await log.run()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, log.submit(create(1)))
            nursery.start_soon(run)
            await broken.before_commit.reached()
            nursery.start_soon(wait, log.submit(create(2)))
            nursery.start_soon(log.wait_drained)
            await trio.testing.wait_all_tasks_blocked()
            broken.before_commit.open()
    assert len(told) == 2
    with pytest.raises(StoreUnavailable, match="closed"):
        log.submit(create(3))


async def test_a_commit_that_never_answers_is_given_up(store: GatedStore, autojump_clock: MockClock) -> None:
    store.before_commit = Gate()
    log = EventLog(store, LocalBus())
    pending = log.submit(create(1))
    started = trio.current_time()
    with pytest.raises(StoreUnavailable, match="has not answered for 120 s; check the disk"):
        await log.run()
    assert trio.current_time() - started == logs.COMMIT_SECONDS
    with pytest.raises(StoreUnavailable, match="the log has stopped"):
        await pending.wait()


# -- the writer is canceled together with those who need it


async def test_r23_a_canceled_writer_still_writes_the_endings_of_those_canceled_with_it(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    log = EventLog(store, LocalBus())
    settled: list[int | None] = []

    async def run_then_settle() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(10, shield=True):
                await trio.sleep(1)
                settled.append(await last_number(log.submit(create(1))))

    started = trio.current_time()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as writer:
            await writer.start(log.run)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(run_then_settle)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            finally:
                log.close()
    assert scope.cancelled_caught
    assert settled == [2]
    assert trio.current_time() - started == 1, "closed, it waits for nothing more"


async def test_a_canceled_writer_that_nobody_closes_ends_at_its_deadline(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    log = EventLog(store, LocalBus())
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        nursery.cancel_scope.cancel()
    assert trio.current_time() - started == logs.LAST_WORDS_SECONDS
    with pytest.raises(StoreUnavailable):
        log.submit(create(1))


async def test_r27_a_commit_in_flight_is_published_though_the_writer_is_canceled(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    bus = LocalBus()
    subscription = bus.subscribe(W)
    store.after_commit = Gate()
    log = EventLog(store, bus)
    async with trio.open_nursery() as nursery:
        await nursery.start(log.run)
        pending = log.submit(create(1))
        await store.after_commit.reached()
        nursery.cancel_scope.cancel()
        log.close()
        store.after_commit.open()
    assert await last_number(pending) == 2
    assert numbers(await subscription.receive()) == [2]
