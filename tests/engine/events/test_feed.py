"""The feed: resuming, falling behind, and snapshots that fit what comes after them (R28, R29)."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from engine.errors import StoreUnavailable
from engine.events.feed import AT_ONCE, PAGE, PAGE_BYTES, open_feed
from engine.records.event import MessageProgress, MessageSnapshot, Reset
from engine.records.ids import WorkspaceId
from tests.doubles.gate import Gate
from tests.doubles.store import GatedStore
from tests.engine.events.watching import LIMIT, Scene
from tests.engine.store.samples import AT, W


async def prune(scene: Scene, oldest: int) -> None:
    """Make `oldest` the first number of the log."""
    latest = (await scene.store.event_range(W)).latest
    await scene.store.prune_events(W, before_us=AT + 99, keep=latest + 1 - oldest, limit=9999)


def upto(last: int, first: int = 1) -> list[int]:
    return list(range(first, last + 1))


# -- resuming


async def test_r28_a_reader_gets_what_came_after_its_number_then_what_comes(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.happen(4)
    async with scene.watch(2) as watcher:
        await watcher.catch_up()
        assert watcher.numbers == [3, 4, 5]
        await scene.happen(2)
        await watcher.catch_up()
        assert watcher.numbers == [3, 4, 5, 6, 7]


async def test_r28_from_now_on_is_from_now_on(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.happen(3)
    async with scene.watch(None) as watcher:
        await scene.happen(2)
        await watcher.catch_up()
        assert watcher.numbers == [5, 6]


async def test_r28_a_reader_of_a_log_that_nobody_has_written_to_since_the_start(
    scene: Scene, autojump_clock: MockClock
) -> None:
    assert scene.bus.latest(W) is None
    async with scene.watch(None) as from_now, scene.watch(0) as from_the_start:
        await scene.happen(1)
        await from_now.catch_up()
        await from_the_start.catch_up()
    assert (from_now.numbers, from_the_start.numbers) == ([2], [1, 2])


async def test_r29_long_logs_are_given_out_a_few_events_at_a_time(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.happen(2 * PAGE + 3)
    async with scene.watch(0) as watcher:
        sizes = [len(await watcher.receive()) for _ in range(2 * PAGE // AT_ONCE + 1)]
        assert sizes == [AT_ONCE] * (2 * PAGE // AT_ONCE) + [4]
        await watcher.catch_up()
        assert watcher.numbers == upto(2 * PAGE + 4)


async def test_r29_of_many_readers_of_long_logs_one_goes_on_at_a_time(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.happen(2 * PAGE)
    given = 0
    between: list[int] = []  # how many were given something from one step of somebody else to the next

    async def read() -> None:
        nonlocal given
        async with scene.watch(0) as watcher:
            while len(watcher.numbers) < 2 * PAGE:
                await watcher.receive()
                given += 1

    async def do_something_else() -> None:
        while True:
            before = given
            await trio.lowlevel.checkpoint()
            between.append(given - before)

    async with trio.open_nursery() as other:
        other.start_soon(do_something_else)
        async with trio.open_nursery() as readers:
            for _ in range(20):
                readers.start_soon(read)
        other.cancel_scope.cancel()
    assert given >= 20 * 2 * PAGE // AT_ONCE
    assert max(between) <= 2  # one in a pass: the last of this one and the first of the next


@pytest.mark.parametrize("run", [None, "r"])
async def test_r28_long_messages_are_read_a_few_at_a_time(
    scene: Scene, run: str | None, autojump_clock: MockClock
) -> None:
    for _ in range(8):
        await scene.happen(run="r", text="x" * (PAGE_BYTES // 3))
    async with scene.watch(1, run=run) as watcher:
        assert len(await watcher.receive()) == 2
        await watcher.catch_up()
        assert watcher.numbers == upto(9, 2)
        await scene.happen(run="r")
        await watcher.catch_up()
        assert watcher.numbers == upto(10, 2)


async def test_a_workspace_without_events_is_waited_for(scene: Scene, autojump_clock: MockClock) -> None:
    nothing = WorkspaceId("nothing yet")
    async with open_feed(
        scene.bus, scene.store, nothing, after=0, turn=scene.turn, snapshots=list, now_us=lambda: AT
    ) as feed:
        with trio.move_on_after(5) as scope:
            await feed.receive()
        assert scope.cancelled_caught


@pytest.mark.parametrize("after", [0, None])
async def test_r28_what_is_committed_and_not_yet_published_comes_once(
    scene: Scene, after: int | None, autojump_clock: MockClock
) -> None:
    await scene.happen(1)
    scene.store.after_commit = Gate()
    scene.submit()
    await scene.store.after_commit.reached()
    async with scene.watch(after) as watcher:
        await watcher.catch_up()
        scene.store.after_commit.open()
        await scene.happen(1)
        await watcher.catch_up()
        assert watcher.numbers == (upto(4) if after == 0 else [3, 4])


@pytest.mark.parametrize("run", [None, "r"])
async def test_r28_the_first_event_since_the_start_comes_once_though_it_is_in_the_log_before_it_is_published(
    scene: Scene, run: str | None, autojump_clock: MockClock
) -> None:
    scene.store.after_commit = Gate()
    scene.submit(run="r")
    await scene.store.after_commit.reached()
    async with scene.watch(1, run=run) as watcher:
        await watcher.catch_up()
        assert watcher.numbers == [2]
        scene.store.after_commit.open()
        await scene.happen(run="r")
        await watcher.catch_up()
        assert watcher.numbers == [2, 3]


@pytest.mark.parametrize("gate", ["after_range", "before_page", "after_page"])
async def test_r28_what_is_published_while_the_log_is_read_comes_once(
    scene: Scene, gate: str, autojump_clock: MockClock
) -> None:
    await scene.happen(2)
    held = Gate()
    setattr(scene.store, gate, held)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            async with scene.watch(1) as watcher:
                await watcher.catch_up()
                assert watcher.numbers == upto(6, 2)

        nursery.start_soon(read)
        await held.reached()
        await scene.happen(3)
        held.open()


# -- numbers that are not in the log


async def test_r28_a_number_that_was_pruned_gets_a_reset_first(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.happen(9)
    await prune(scene, 6)
    async with scene.watch(3) as watcher:
        await watcher.catch_up()
        assert watcher.shape == ["reset", 6, 7, 8, 9, 10]
        assert watcher.got[0].body == Reset(3, 6, 10)
    async with scene.watch(5) as watcher:
        await watcher.catch_up()
        assert watcher.shape == [6, 7, 8, 9, 10], "the one before the oldest is still a good number"


async def test_r28_a_number_from_the_future_gets_a_reset_and_what_comes(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.happen(2)
    async with scene.watch(99) as watcher:
        await watcher.catch_up()
        assert [event.body for event in watcher.got] == [Reset(99, 1, 3)]
        await scene.happen(2)
        await watcher.catch_up()
        assert watcher.shape == ["reset", 4, 5]


async def test_r28_a_log_that_is_all_pruned_goes_on(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.happen(3)
    await prune(scene, 5)
    async with scene.watch(0) as watcher, scene.watch(4) as up_to_date:
        await watcher.catch_up()
        assert [event.body for event in watcher.got] == [Reset(0, 5, 4)]
        await scene.happen(1)
        await watcher.catch_up()
        await up_to_date.catch_up()
        assert (watcher.shape, up_to_date.shape) == (["reset", 5], [5])


async def test_r28_what_is_pruned_while_it_is_being_read_is_told(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.happen(PAGE + 50)
    async with scene.watch(0) as watcher:
        await watcher.receive()
        await prune(scene, PAGE + 20)
        await watcher.catch_up()
        assert watcher.shape == [*upto(PAGE), "reset", *upto(PAGE + 51, PAGE + 20)]


# -- messages being written


async def test_r28_a_message_being_written_arrives_as_a_snapshot_that_the_next_delta_fits(
    scene: Scene, autojump_clock: MockClock
) -> None:
    id = await scene.begin()
    scene.stream(id, "so far")
    async with scene.watch(0) as watcher, scene.watch(None) as late:
        scene.stream(id, ", so good")
        for reader in (watcher, late):
            await reader.catch_up()
            assert reader.texts[id] == "so far, so good"
        assert watcher.shape == [1, 2, "snapshot", "progress"]
        assert late.shape == ["snapshot", "progress"]
        snapshot = late.got[0]
        assert isinstance(snapshot.body, MessageSnapshot)
        assert (snapshot.workspace_id, snapshot.session_id, snapshot.at_us) == (W, "s", AT)


@pytest.mark.parametrize("gate", ["after_range", "before_page", "after_page"])
async def test_r28_what_is_streamed_while_the_log_is_read_is_neither_lost_nor_doubled(
    scene: Scene, gate: str, autojump_clock: MockClock
) -> None:
    id = await scene.begin()
    scene.stream(id, "a")
    held = Gate()
    setattr(scene.store, gate, held)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            async with scene.watch(0) as watcher:
                await watcher.catch_up()
                assert watcher.texts[id] == "abcd"

        nursery.start_soon(read)
        await held.reached()
        scene.stream(id, "b")
        await scene.happen()
        scene.stream(id, "c")
        held.open()
        await trio.testing.wait_all_tasks_blocked()
        scene.stream(id, "d")


async def test_r28_a_message_that_ends_while_the_log_is_read_is_not_taken_back(
    scene: Scene, autojump_clock: MockClock
) -> None:
    id = await scene.begin()
    scene.stream(id, "so f")
    scene.store.before_page = Gate()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            async with scene.watch(0) as watcher:
                await watcher.catch_up()
                assert watcher.texts[id] == "so far"
                assert watcher.shape == [1, 2, "snapshot", "progress", 3], "its end comes last, not the snapshot"

        nursery.start_soon(read)
        await scene.store.before_page.reached()
        scene.stream(id, "ar")
        await scene.finish(id)
        scene.store.before_page.open()


# -- falling behind


async def test_r29_a_reader_that_falls_behind_gets_every_durable_event_and_a_new_snapshot(
    scene: Scene, autojump_clock: MockClock
) -> None:
    async with scene.watch(0) as watcher:
        await watcher.catch_up()
        id = await scene.begin()
        for n in range(3 * LIMIT):
            scene.stream(id, str(n % 10))
            if n % 3 == 0:
                await scene.happen()
        await watcher.catch_up()
        assert watcher.numbers == upto(2 + LIMIT)
        assert watcher.texts[id] == scene.streaming[id].text
        assert not any(isinstance(event.body, MessageProgress) for event in watcher.got), "those were lost"
        scene.stream(id, "!")
        await watcher.catch_up()
        assert watcher.texts[id].endswith("!")
    assert scene.bus.statistics().lagged >= 1


async def test_r29_a_reader_from_now_on_that_falls_behind_at_once_loses_nothing(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.happen(3)
    async with scene.watch(None) as watcher:
        await scene.happen(3 * LIMIT)
        await watcher.catch_up()
        assert watcher.numbers == upto(4 + 3 * LIMIT, 5)


async def test_r29_a_reader_may_fall_behind_again_while_it_catches_up(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.watch(0) as watcher:
        for _ in range(5):
            await scene.happen(2 * LIMIT)
            await watcher.receive()
        await watcher.catch_up()
        assert watcher.numbers == upto(1 + 10 * LIMIT)


async def test_r29_a_reader_behind_what_was_pruned_is_told(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.watch(0) as watcher:
        await watcher.catch_up()
        await scene.happen(3 * LIMIT)
        await prune(scene, 20)
        await watcher.catch_up()
        assert watcher.shape == [1, "reset", *upto(1 + 3 * LIMIT, 20)]
        assert watcher.got[1].body == Reset(1, 20, 25)


async def test_r29_a_reader_does_not_make_the_others_wait(scene: Scene, autojump_clock: MockClock) -> None:
    async with scene.watch(0), scene.watch(0) as watcher:
        started = trio.current_time()
        await scene.happen(100)
        assert trio.current_time() == started
        await watcher.catch_up()
        assert watcher.numbers == upto(101)


async def test_r28_a_gap_that_the_bus_does_not_tell_of_is_read_from_the_log(
    scene: Scene, autojump_clock: MockClock
) -> None:
    async with scene.watch(0) as watcher:
        await watcher.catch_up()
        missed = scene.bus.subscribe(W)
        await scene.happen(1)
        await watcher.catch_up()
        async with scene.watch(2) as other:
            await scene.happen(3)
            events = await missed.receive()
            other.feed._subscription.clear()
            scene.bus.publish(events[-1])
            await other.catch_up()
            assert other.numbers == [3, 4, 5]


# -- one run


async def test_r28_the_events_of_one_run_come_alone(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.happen(run="r")
    await scene.happen(run="other")
    await scene.happen(run="r")
    mine, others = await scene.begin(run="r"), await scene.begin(run="other")
    async with scene.watch(0, run="r") as watcher:
        await watcher.catch_up()
        assert watcher.shape == [2, 4, 5, "snapshot"]
        scene.stream(mine, "x")
        scene.stream(others, "y")
        await scene.happen(run="other")
        await scene.happen()
        await scene.happen(run="r")
        await watcher.catch_up()
        assert watcher.shape == [2, 4, 5, "snapshot", "progress", 9]
        assert watcher.texts[mine] == "x"


async def test_r29_a_reader_of_one_run_that_falls_behind_gets_all_of_it(
    scene: Scene, autojump_clock: MockClock
) -> None:
    async with scene.watch(0, run="r") as watcher:
        for _ in range(2 * LIMIT):
            await scene.happen(run="r")
            await scene.happen(run="other")
        await watcher.catch_up()
        assert watcher.numbers == upto(1 + 4 * LIMIT, 2)[::2]
    assert scene.bus.statistics().lagged == 1


async def test_r28_a_run_among_many_is_read_over_pages(scene: Scene, autojump_clock: MockClock) -> None:
    for n in range(2 * PAGE + 10):
        await scene.happen(run="r" if n % 2 else "other")
    async with scene.watch(0, run="r") as watcher:
        await watcher.catch_up()
        assert watcher.numbers == upto(2 * PAGE + 11, 3)[::2]


async def test_r28_a_run_whose_beginning_was_pruned_is_told(scene: Scene, autojump_clock: MockClock) -> None:
    await scene.happen(10, run="r")
    await prune(scene, 5)
    async with scene.watch(1, run="r") as watcher:
        await watcher.catch_up()
        assert watcher.shape == ["reset", *upto(11, 5)]


# -- the end


async def test_closing_the_workspace_ends_the_feed_after_everything_durable(
    scene: Scene, autojump_clock: MockClock
) -> None:
    await scene.happen(2)
    async with scene.watch(0) as behind, scene.watch(0) as live, scene.watch(0) as lagged:
        await live.catch_up()
        await lagged.catch_up()
        await scene.happen(2)
        await live.catch_up()
        await scene.happen(LIMIT)
        scene.bus.close_workspace(W)
        for watcher in (behind, live, lagged):
            await watcher.catch_up()
            assert watcher.is_at_end
            assert watcher.numbers == upto(5 + LIMIT)


async def test_closing_while_the_log_is_read_loses_nothing(scene: Scene, autojump_clock: MockClock) -> None:
    scene.store.after_range = Gate()
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            async with scene.watch(0) as watcher:
                await watcher.catch_up()
                assert watcher.is_at_end
                assert watcher.numbers == [1, 2, 3]

        nursery.start_soon(read)
        await scene.store.after_range.reached()
        await scene.happen(2)
        scene.bus.close_workspace(W)
        scene.store.after_range.open()


async def test_leaving_the_feed_unsubscribes_it(scene: Scene) -> None:
    async with scene.watch(0):
        assert scene.bus.statistics().subscriptions == 1
    assert scene.bus.statistics().subscriptions == 0


# -- cancellation and trouble


async def test_a_receive_canceled_in_the_moment_it_learns_of_a_loss_goes_back_to_the_log(
    scene: Scene, autojump_clock: MockClock
) -> None:
    id = await scene.begin()
    async with scene.watch(0) as watcher:
        await watcher.catch_up()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watcher.receive)
                await trio.testing.wait_all_tasks_blocked()
                # Awake already when the cancellation comes, it meets that at its next checkpoint.
                for _ in range(LIMIT + 1):
                    scene.stream(id, "x")
                scope.cancel()
        await watcher.catch_up()
        assert watcher.texts[id] == "x" * (LIMIT + 1)


@pytest.mark.parametrize("gate", ["after_range", "before_page", "after_page"])
async def test_a_canceled_receive_loses_nothing(scene: Scene, gate: str, autojump_clock: MockClock) -> None:
    id = await scene.begin()
    async with scene.watch(0) as watcher:
        await watcher.catch_up()
        await scene.happen(2 * LIMIT)
        scene.stream(id, "x")
        setattr(scene.store, gate, Gate())
        with trio.move_on_after(1) as scope:
            await watcher.receive()
        assert scope.cancelled_caught
        setattr(scene.store, gate, Gate(is_open=True))
        await watcher.catch_up()
        assert watcher.numbers == upto(2 + 2 * LIMIT)
        assert watcher.texts[id] == "x"


class Unreadable(GatedStore):
    """A store whose log cannot be read while `is_down`."""

    is_down = False

    async def event_range(self, *args: object, **others: object) -> object:  # type: ignore[override]
        if self.is_down:
            raise StoreUnavailable("the disk is gone, says a test")
        return await super().event_range(*args, **others)  # type: ignore[arg-type]


async def test_r26_a_log_that_cannot_be_read_is_told_and_read_again_afterwards(
    store: GatedStore, autojump_clock: MockClock
) -> None:
    unreadable = Unreadable(store)
    scene = Scene(unreadable)
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.log.run)
        async with scene.watch(0) as watcher:
            await watcher.catch_up()
            await scene.happen(2 * LIMIT)
            unreadable.is_down = True
            for _ in range(2):
                with pytest.raises(StoreUnavailable):
                    await watcher.receive()
            with pytest.raises(StoreUnavailable):
                async with scene.watch(0):
                    pass  # pragma: no cover
            assert scene.bus.statistics().subscriptions == 1
            unreadable.is_down = False
            await watcher.catch_up()
            assert watcher.numbers == upto(1 + 2 * LIMIT)
        scene.log.close()
