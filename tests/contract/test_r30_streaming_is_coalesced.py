"""R30: streamed words go out at most every 33 ms, to the store and to readers; changes of structure go out at once."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.clock import MICROSECONDS
from engine.records.change import UpdateMessage
from engine.records.event import MessageProgress, MessageUpdated
from engine.records.message import Reasoning
from engine.settings import EngineSettings
from engine.store.protocol import Store
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import Watched, open_watched
from tests.doubles.holding_store import HoldingStore
from tests.doubles.reading import read_along

FLUSH_S = EngineSettings().flush_s


@pytest.mark.parametrize(("tokens", "every"), [(1000, 0.001), (4000, 0.00025), (20, 0.2)])
async def test_r30_stream_makes_as_many_updates_as_its_time_allows_and_not_as_its_tokens(
    tokens: int, every: float, autojump_clock: object, tmp_path: object
) -> None:
    stores: list[HoldingStore] = []

    def wrap(store: Store) -> Store:
        stores.append(HoldingStore(store))
        return stores[0]

    async with open_watched(path=str(tmp_path), wrap_store=wrap, **coder(RecordingModel())) as watched:
        async with read_along(watched.workspace) as reader:
            run = await watched.send(script([{"text": "token ", "repeat": tokens, "every": every}]))
            await watched.ended(run)
            await reader.caught_up()
        most = min(tokens, int(tokens * every / FLUSH_S) + 2)
        assert most / 2 < len(reader.progress) <= most
        quiet = [write for write in stores[0].written if isinstance(write, UpdateMessage) and write.quiet]
        assert most / 2 < len(quiet) <= most
        assert max(reader.texts.values(), key=len) == "token " * tokens
        at = [event.at_us for event in reader.progress]
        assert all(later - earlier >= FLUSH_S * MICROSECONDS - 1 for earlier, later in pairwise(at))


async def test_r30_first_words_are_shown_at_once_and_the_last_within_one_interval_of_silence(
    watched: Watched, autojump_clock: object
) -> None:
    async def respond(turn: Any) -> None:
        for word in ("one ", "two ", "three"):
            turn.say(word)
        await trio.sleep(1)

    watched.agent.respond_with = respond
    async with read_along(watched.workspace) as reader:
        run = await watched.send("hi")
        await watched.ended(run)
        await reader.caught_up()
    begun = (await watched.workspace.run(run.id)).started_at_us
    assert begun is not None
    shown = [
        (event.body.message.text, event.at_us - begun)
        for event in reader.got
        if isinstance(event.body, MessageProgress)
    ]
    [(first, at_once), (rest, later)] = shown
    assert (first, at_once) == ("one ", 0)
    assert rest == "one two three"
    assert later <= 2 * FLUSH_S * MICROSECONDS


async def test_r30_silence_makes_no_updates(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Any) -> None:
        turn.say("word")
        await trio.sleep(60)

    watched.agent.respond_with = respond
    async with read_along(watched.workspace) as reader:
        await watched.ended(await watched.send("hi"), 100)
        await reader.caught_up()
    assert len(reader.progress) == 1


def make_call(turn: Turn) -> None:
    turn.begin_tool_call("a", "tool")
    turn.end_tool_call("a")


CHANGES: dict[str, Callable[[Turn], object]] = {
    "thinking ends with a signature": lambda turn: turn.think("", "signature"),
    "thinking ends with words": lambda turn: turn.say("words"),
    "a tool call begins": lambda turn: turn.begin_tool_call("a", "tool"),
    "a tool call ends": make_call,
    "all is taken back": lambda turn: turn.reset(),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_r30_change_of_structure_is_told_at_once_when(
    change: str, watched: Watched, autojump_clock: object
) -> None:
    moment = 0

    async def respond(turn: Any) -> None:
        nonlocal moment
        turn.think("hm ")
        await trio.sleep(FLUSH_S / 4)
        turn.think("hm ")
        await trio.sleep(FLUSH_S / 4)  # in the middle of an interval
        moment = watched.backend._clock.now_us()
        CHANGES[change](turn)
        await trio.sleep(FLUSH_S * 10)

    watched.agent.respond_with = respond
    async with read_along(watched.workspace, after=0) as reader:
        await watched.ended(await watched.send("hi"))
        await reader.caught_up()
    [message, *more] = [
        event.body.message for event in reader.got if isinstance(event.body, MessageUpdated) and event.at_us == moment
    ]
    assert len(more) == (change == "a tool call ends") + (change in {"a tool call begins", "a tool call ends"})
    if change != "all is taken back":
        reasoning = message.parts[0]
        assert isinstance(reasoning, Reasoning)
        assert (reasoning.thinking, reasoning.finished_at_us) == ("hm hm ", moment)


async def test_r30_finish_is_told_at_once(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Any) -> None:
        turn.say("a")
        turn.say("b")
        await trio.sleep(FLUSH_S / 2)
        turn.say("c")

    watched.agent.respond_with = respond
    ended = await watched.ended(await watched.send("hi"))
    assert ended.ended_at_us is not None
    assert ended.started_at_us is not None
    assert ended.ended_at_us - ended.started_at_us == round(FLUSH_S / 2 * MICROSECONDS)
    _, answer = await watched.messages()
    assert answer.text == "abc"


async def test_r30_words_do_not_overtake_the_change_of_structure_that_they_follow(
    autojump_clock: object, tmp_path: object
) -> None:
    stores: list[HoldingStore] = []

    def wrap(store: Store) -> Store:
        stores.append(HoldingStore(store))
        return stores[0]

    async def respond(turn: Any) -> None:
        turn.begin_tool_call("a", "tool")
        turn.end_tool_call("a")
        for _ in range(20):
            turn.say("word ")
            await trio.sleep(0.02)

    async with open_watched(path=str(tmp_path), wrap_store=wrap) as watched:
        watched.agent.respond_with = respond
        gate = stores[0].hold(lambda write: isinstance(write, UpdateMessage) and bool(write.message.tool_calls))
        async with read_along(watched.workspace, after=0) as reader:
            run = await watched.send("hi")
            await gate.reached()
            await trio.sleep(0.2)
            assert not reader.progress
            gate.open()
            await watched.ended(run)
            await reader.caught_up()
        kinds = [type(event.body) for event in reader.got]
        assert kinds.index(MessageUpdated) < kinds.index(MessageProgress)


async def test_r30_long_message_is_flushed_more_rarely(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Any) -> None:
        for _ in range(40):
            turn.say("x" * 100_000)
            await trio.sleep(0.1)

    watched.agent.respond_with = respond
    async with read_along(watched.workspace) as reader:
        await watched.ended(await watched.send("hi"))
        await reader.caught_up()
    shown = sum(len(e.body.message.text) for e in reader.got if isinstance(e.body, MessageProgress))
    assert shown < 12 * 4_000_000, "the bytes grow with the square of the length"
    assert max(map(len, reader.texts.values())) == 4_000_000
