"""Readers that come, fall behind or leave, against what is committed at that moment."""

from typing import Any

import trio
import trio.testing

from engine.records.event import RunCompleted
from engine.records.run import RunState
from tests.doubles.engine import Watched, open_watched
from tests.doubles.holding_store import settles
from tests.doubles.racing import orders, race, rounds
from tests.doubles.reading import Reader, read_along
from tests.doubles.stages import HELD, At, open_staged
from tests.doubles.waiting import pause


@orders
async def test_subscribe_and_commit(order: str, watched: Watched, autojump_clock: object) -> None:
    for number in rounds(order):
        after = (await watched.workspace.event_range()).latest
        readers: list[Reader] = []
        done = trio.Event()

        async def subscribe(after: int = after, readers: list[Reader] = readers, done: trio.Event = done) -> None:
            if order == "first":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(follow, after, readers, done)
                    await pause(5)
                    await commit(done)
            else:
                await follow(after, readers, done)

        async def follow(after: int, readers: list[Reader], done: trio.Event) -> None:
            async with read_along(watched.workspace, after=after) as reader:
                readers.append(reader)
                await done.wait()
                await reader.caught_up()

        async def commit(done: trio.Event = done) -> None:
            await watched.ended(await watched.send("hi"))
            done.set()

        if order == "first":
            await subscribe()
        else:
            await race(order, number, subscribe, commit)
        latest = (await watched.workspace.event_range()).latest
        assert readers[0].numbers == list(range(after + 1, latest + 1))


@orders
async def test_subscribe_and_commit_that_is_written_and_not_yet_published(
    order: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with open_staged(At.AGENT, tmp_path) as staged:
            written = staged.store.hold(settles(HELD), after=True)
            staged.held.open()
            await written.reached()
            readers: list[Reader] = []

            async def subscribe(staged: Any = staged, readers: list[Reader] = readers) -> None:
                async with staged.workspace.open_feed(after=0) as feed:
                    reader = Reader(feed)
                    readers.append(reader)
                    while not any(isinstance(event.body, RunCompleted) for event in reader.got):
                        await reader.read_once()

            async def publish(written: Any = written) -> None:
                await pause(4 if order == "first" else 0)
                written.open()

            with trio.fail_after(1):
                await race("together" if order == "first" else order, number, subscribe, publish)
            assert readers[0].numbers == list(range(1, (await staged.workspace.event_range()).latest + 1))


@orders
async def test_lag_and_settle(order: str, autojump_clock: object, tmp_path: object) -> None:
    async def respond(turn: Any) -> None:
        for _ in range(900):
            turn.say("word ")
            await trio.sleep(0.04)

    for number in range(3 if order == "together" else 1):
        async with open_watched(path=str(tmp_path)) as watched:
            watched.agent.respond_with = respond
            async with watched.workspace.open_feed(after=0) as feed:
                reader = Reader(feed)
                run = await watched.send("hi")
                await trio.sleep(25)  # by now it has lost what was buffered

                async def read(reader: Reader = reader) -> None:
                    with trio.move_on_after(100):
                        while not any(isinstance(event.body, RunCompleted) for event in reader.got):
                            await reader.read_once()

                async def settle(watched: Watched = watched, run: Any = run) -> None:
                    await watched.workspace.cancel_run(run.id)
                    assert (await watched.ended(run)).state is RunState.CANCELED

                if order == "first":
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(read)
                        await trio.sleep(1)
                        await settle()
                else:
                    await race(order, number, read, settle)
            assert reader.numbers == list(range(1, (await watched.workspace.event_range()).latest + 1))
            answer = (await watched.messages())[-1]
            assert reader.texts[answer.id] == answer.text
            assert isinstance(reader.got[-1].body, RunCompleted)


@orders
async def test_reader_that_leaves_and_publishing(order: str, watched: Watched, autojump_clock: object) -> None:
    for number in rounds(order):
        scope = trio.CancelScope()

        async def read(scope: trio.CancelScope = scope) -> None:
            with scope:
                async with read_along(watched.workspace, after=0):
                    await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await pause(8)

            async def leave(scope: trio.CancelScope = scope) -> None:
                scope.cancel()

            await race(order, number, leave, watched.send)
    await trio.testing.wait_all_tasks_blocked()
    assert watched.backend._bus.statistics().subscriptions == 0
    assert watched.workspace.statistics().feeds == 0
