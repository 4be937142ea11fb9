"""R28: whoever resumes after a number gets every durable event after it, once, in order, and what is being written."""

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.events.run_cursor import RunCursor
from engine.records.event import MessageProgress, MessageSnapshot, Reset, RunCompleted
from engine.records.ids import RunId
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.reading import Reader, read_along
from tests.doubles.stages import HELD, At, open_staged


async def fill(watched: Watched) -> int:
    """Let some runs run; the latest number."""
    for _ in range(3):
        await watched.ended(await watched.send("hi"))
    return (await watched.workspace.event_range()).latest


async def test_r28_reader_gets_everything_after_any_number(watched: Watched, autojump_clock: object) -> None:
    latest = await fill(watched)
    for after in range(latest + 1):
        async with read_along(watched.workspace, after=after) as reader:
            await reader.caught_up()
            assert reader.numbers == list(range(after + 1, latest + 1))


async def test_r28_reader_without_a_number_gets_what_comes(watched: Watched, autojump_clock: object) -> None:
    latest = await fill(watched)
    async with read_along(watched.workspace) as reader:
        await reader.caught_up()
        assert reader.got == []
        await watched.ended(await watched.send("hi"))
        await reader.caught_up()
        assert reader.numbers == list(range(latest + 1, (await watched.workspace.event_range()).latest + 1))


async def test_r28_reader_that_drops_and_resumes_at_every_event_misses_none(
    watched: Watched, autojump_clock: object
) -> None:
    async def respond(turn: Turn) -> None:
        for _ in range(10):
            turn.say("word ")
            await trio.sleep(0.02)
            await turn.next_step()

    watched.agent.respond_with = respond
    run = await watched.send("hi")
    seen: list[int] = []
    last, ended = 0, False
    while not ended:
        async with watched.workspace.open_feed(after=last) as feed:
            reader = Reader(feed)
            await reader.read_once()
            seen += reader.numbers
            last = max(seen, default=0)
            ended = any(isinstance(event.body, RunCompleted) for event in reader.got)
        await trio.sleep(0.005)
    await watched.ended(run)
    assert seen == list(range(1, (await watched.workspace.event_range()).latest + 1))


async def forget(watched: Watched, oldest: int) -> None:
    """Prune, so that this is the first number of the log."""
    keep = (await watched.workspace.event_range()).latest + 1 - oldest
    await watched.backend.store.prune_events(watched.workspace.id, before_us=2**62, keep=keep, limit=9999)


@pytest.mark.parametrize("after", [None, 0])
@pytest.mark.parametrize("of_the_run", [False, True])
async def test_r28_message_being_written_arrives_as_a_snapshot_and_goes_on_from_there(
    of_the_run: bool, after: int | None, autojump_clock: object, tmp_path: object
) -> None:
    gate = Gate()
    model = RecordingModel(gates={"middle": gate})
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        steps: list[dict[str, object]] = [
            {"think": "Hm."},
            {"text": "The first half, "},
            {"gate": "middle"},
            {"text": "the second. ", "repeat": 9, "every": 0.02},
        ]
        run = await watched.send(script(steps))
        await gate.reached()
        await trio.sleep(1)
        async with read_along(watched.workspace, after=after, run_id=run.id if of_the_run else None) as reader:
            await reader.caught_up()
            [snapshot] = [event.body.message for event in reader.got if isinstance(event.body, MessageSnapshot)]
            assert snapshot.text == "The first half, "
            gate.open()
            await watched.ended(run)
            await reader.caught_up()
            # The reader has checked that each delta fits to what it had.
            assert reader.texts[snapshot.id] == "The first half, " + "the second. " * 9
            assert any(isinstance(event.body, MessageProgress) for event in reader.got)
            assert isinstance(reader.got[-1].body, RunCompleted)


async def test_r28_snapshot_comes_after_the_durable_events_it_builds_on(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.AGENT, tmp_path) as staged:
        await trio.sleep(1)
        async with read_along(staged.workspace, after=0) as reader:
            await reader.caught_up()
            assert [event.seq is None for event in reader.got] == [False] * (len(reader.got) - 1) + [True]
            assert reader.numbers == list(range(1, (await staged.workspace.event_range()).latest + 1))
            assert isinstance(reader.got[-1].body, MessageSnapshot)


async def test_r28_message_that_has_ended_has_no_snapshot(watched: Watched, autojump_clock: object) -> None:
    await fill(watched)
    async with read_along(watched.workspace, after=0) as reader:
        await reader.caught_up()
        assert not [event for event in reader.got if event.seq is None]


async def test_r28_number_that_was_pruned_or_never_was_gets_a_reset_first(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_watched(path=str(tmp_path), check=False) as watched:
        latest = await fill(watched)
        pruned = await watched.backend.store.prune_events(watched.workspace.id, before_us=2**62, keep=5, limit=9999)
        assert pruned == latest - 5
        for after in (0, 1, pruned - 1, latest + 1, latest + 1000):
            async with read_along(watched.workspace, after=after) as reader:
                await reader.caught_up()
                first = reader.got[0].body
                assert isinstance(first, Reset)
                assert (first.requested, first.oldest, first.latest) == (after, pruned + 1, latest)
                assert reader.numbers == (list(range(pruned + 1, latest + 1)) if after < latest else [])
        async with read_along(watched.workspace, after=pruned) as reader:
            await reader.caught_up()
            assert reader.numbers == list(range(pruned + 1, latest + 1))
            assert len(reader.got) == 5


async def test_r28_reader_of_one_run_gets_that_run_from_its_beginning(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        cursor = await staged.workspace.run_cursor(HELD)
        async with read_along(staged.workspace, after=cursor.after, run_id=HELD) as reader:
            staged.ahead.open()
            await staged.ended()
            await reader.caught_up()
            assert {event.run_id for event in reader.got} == {RunId(HELD)}
            assert reader.numbers == [event.seq for event in await staged.watched.events() if event.run_id == HELD]
            assert isinstance(reader.got[-1].body, RunCompleted)


async def test_r28_run_whose_first_events_were_pruned_is_told_with_a_reset(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.AGENT, tmp_path, check=False) as staged:
        w = staged.workspace
        latest = (await w.event_range()).latest
        await forget(staged.watched, latest)
        for number in (None, 0, 1):
            cursor = await w.run_cursor(HELD, number)
            async with read_along(w, after=cursor.after, run_id=HELD) as reader:
                await reader.caught_up()
                assert isinstance(reader.got[0].body, Reset)
                assert reader.numbers == [latest]
        cursor = await w.run_cursor(HELD, latest - 1)
        async with read_along(w, after=cursor.after, run_id=HELD) as reader:
            staged.release()
            await staged.ended()
            await reader.caught_up()
            assert reader.numbers == list(range(latest, (await w.event_range()).latest + 1))
            assert not any(isinstance(event.body, Reset) for event in reader.got), "it had read what is gone"


async def test_r28_run_of_which_nothing_was_pruned_needs_no_reset(autojump_clock: object, tmp_path: object) -> None:
    async with open_watched(path=str(tmp_path), check=False) as watched:
        latest = await fill(watched)
        run = await watched.ended(await watched.send("hi"))
        await forget(watched, latest + 1)
        cursor = await watched.workspace.run_cursor(run.id)
        async with read_along(watched.workspace, after=cursor.after, run_id=run.id) as reader:
            await reader.caught_up()
            assert reader.numbers == list(range(latest + 1, (await watched.workspace.event_range()).latest + 1))
            assert all(event.seq for event in reader.got)


async def test_r28_run_that_is_over_and_gone_from_the_log_is_told_so(autojump_clock: object, tmp_path: object) -> None:
    async with open_watched(path=str(tmp_path), check=False) as watched:
        run = await watched.ended(await watched.send("hi"))
        latest = (await watched.workspace.event_range()).latest
        assert await watched.workspace.run_cursor(run.id, latest) == RunCursor(latest, is_over=True)
        await forget(watched, latest + 1)
        missed = RunCursor(0, is_over=True, reset=Reset(0, latest + 1, latest))
        assert await watched.workspace.run_cursor(run.id) == missed
        assert await watched.workspace.run_cursor(run.id, latest) == RunCursor(latest, is_over=True)
        beyond = RunCursor(latest + 7, is_over=True, reset=Reset(latest + 7, latest + 1, latest))
        assert await watched.workspace.run_cursor(run.id, latest + 7) == beyond


@pytest.mark.parametrize("head_start", range(8))
async def test_r28_reader_that_comes_while_events_are_published_misses_none(
    head_start: int, watched: Watched, autojump_clock: object
) -> None:
    for _ in range(3):
        run = await watched.send("hi")
        for _ in range(head_start):
            await trio.lowlevel.checkpoint()
        async with read_along(watched.workspace, after=0) as reader:
            await watched.ended(run)
            await reader.caught_up()
            assert reader.numbers == list(range(1, (await watched.workspace.event_range()).latest + 1))
