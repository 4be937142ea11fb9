"""The body of an event stream: frames, chunks, silence, and its end."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio

from engine.errors import StoreUnavailable
from engine.records.event import Body, ConfigChanged, Event, MessageProgress, Reset, RunChanged, RunCompleted
from engine.records.ids import MessageId, RunId, SessionId, WorkspaceId
from engine.records.message import Message, Role, Text
from engine.records.run import Prompt, RunRecord, RunState
from web.sse import CHUNK_BYTES, EventBody, FrameCache, StreamMode

W = WorkspaceId("w1")
CHANGED = ConfigChanged(W)
ENDED = RunCompleted(RunId("r1"), SessionId("s1"), RunState.COMPLETED)
RUN = RunRecord(
    id=RunId("r1"),
    workspace_id=W,
    session_id=SessionId("s1"),
    seq=1,
    state=RunState.ACTIVE,
    prompt=Prompt(session_id=SessionId("s1"), text="hi"),
    accepted_at_us=0,
)


def event(seq: int | None, body: Body = CHANGED) -> Event:
    return Event(seq, W, 0, body)


def growing(text: str) -> MessageProgress:
    message = Message(
        id=MessageId("m"),
        session_id=SessionId("s1"),
        role=Role.ASSISTANT,
        parts=(Text(text),),
        turn=1,
        created_at_us=0,
        updated_at_us=0,
    )
    return MessageProgress(message, ())


class Source:
    """A feed under the test's hand."""

    def __init__(self, *batches: Sequence[Event] | Exception) -> None:
        self._batches = list(batches)
        self._more = trio.Event()
        self.is_closed = False

    def put(self, *events: Event) -> None:
        self._batches.append(events)
        self._more.set()

    def close(self) -> None:
        self.is_closed = True
        self._more.set()

    async def receive(self) -> list[Event]:
        await trio.lowlevel.checkpoint()
        while not self._batches:
            if self.is_closed:
                raise trio.EndOfChannel
            self._more = trio.Event()
            await self._more.wait()
        batch = self._batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return list(batch)


def body(source: Source, *, cache: FrameCache | None = None, **more: Any) -> EventBody:
    mode = {name: more.pop(name) for name in ("plain", "deltas", "ids") if name in more}
    return EventBody(source, StreamMode(**mode), cache or FrameCache(), **{"keep_alive_s": 15.0, **more})


async def everything(stream: EventBody) -> list[bytes]:
    async with stream:
        return [chunk async for chunk in stream]


FRAME = b'data: {"type":"config_changed","payload":{"type":"updated","payload":{"workspace_id":"w1"}}}\n\n'


async def test_the_first_bytes_come_before_any_event(autojump_clock: object) -> None:
    async with body(Source()) as stream:
        assert await stream.__anext__() == b"\n"
        assert trio.current_time() == 0


async def test_a_frame_is_one_data_line_and_a_blank_one(autojump_clock: object) -> None:
    source = Source([event(1)])
    source.close()
    assert await everything(body(source)) == [b"\n", FRAME]


async def test_what_waits_is_sent_as_one_chunk(autojump_clock: object) -> None:
    source = Source([event(1), event(2), event(3)], [event(4)])
    source.close()
    assert await everything(body(source)) == [b"\n", FRAME * 3, FRAME]


async def test_chunks_are_bounded_and_nothing_is_lost_or_reordered(autojump_clock: object) -> None:
    events = [event(None, growing(f"{number:06}" + "x" * 20_000)) for number in range(20)]
    source = Source(events, [event(None, growing("y" * 300_000))])
    source.close()
    chunks = await everything(body(source))
    assert max(len(chunk) for chunk in chunks[:-1]) <= CHUNK_BYTES
    assert len(chunks[-1]) > 300_000  # one frame is never split
    frames = b"".join(chunks[1:-1]).split(b"\n\n")[:-1]
    texts = [msgspec.json.decode(each[6:])["payload"]["payload"]["parts"][0]["data"]["text"] for each in frames]
    assert [text[:6] for text in texts] == [f"{number:06}" for number in range(20)]


async def test_silence_is_broken_by_a_blank_line_every_fifteen_seconds(autojump_clock: object) -> None:
    source = Source()
    async with body(source) as stream:
        await stream.__anext__()
        for beat in (15, 30, 45):
            assert await stream.__anext__() == b"\n"
            assert trio.current_time() == beat
        await trio.sleep(10)
        source.put(event(1))
        assert await stream.__anext__() == FRAME
        assert trio.current_time() == 55
        assert await stream.__anext__() == b"\n"
        assert trio.current_time() == 70


async def test_durable_events_are_numbered_only_where_it_was_asked_for(autojump_clock: object) -> None:
    batch = [event(7), event(None, Reset(1, 2, 3)), event(8)]
    plain, numbered = Source(batch), Source(batch)
    plain.close()
    numbered.close()
    assert b"id:" not in b"".join(await everything(body(plain)))
    (_, chunk) = await everything(body(numbered, ids=True))
    frames = chunk.split(b"\n\n")
    assert frames[0] == b"id: 7\n" + FRAME.strip()
    assert frames[1].startswith(b'data: {"type":"reset"')
    assert frames[2].startswith(b"id: 8\ndata: ")


async def test_crush_is_spared_what_it_does_not_know(autojump_clock: object) -> None:
    source = Source([event(1, RunChanged(RUN)), event(None, Reset(1, 2, 3))], [event(2)])
    source.close()
    assert await everything(body(source, plain=True)) == [b"\n", FRAME]


async def test_the_stream_of_a_run_ends_after_its_terminal_event(autojump_clock: object) -> None:
    other = RunCompleted(RunId("r2"), SessionId("s1"), RunState.COMPLETED)
    source = Source([event(1, other), event(2)], [event(3, ENDED), event(4)], [event(5)])
    chunks = await everything(body(source, until=RunId("r1"), ids=True))
    numbers = [line for line in b"".join(chunks).splitlines() if line.startswith(b"id: ")]
    assert numbers == [b"id: 1", b"id: 2", b"id: 3"]


async def test_a_store_that_fails_ends_the_stream_properly(autojump_clock: object) -> None:
    assert await everything(body(Source([event(1)], StoreUnavailable("full")))) == [b"\n", FRAME]


async def test_a_reader_that_is_far_behind_lets_others_run(autojump_clock: object) -> None:
    source = Source([event(number, growing("x" * CHUNK_BYTES)) for number in range(100)])
    source.close()
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        assert len(await everything(body(source))) == 101
        nursery.cancel_scope.cancel()
    assert turns >= 100


def test_a_frame_is_encoded_once_for_all_readers_of_a_mode() -> None:
    cache, one = FrameCache(), event(1, RunChanged(RUN))
    first = cache.frames(one, StreamMode())
    assert cache.frames(one, StreamMode(ids=True)) is first
    assert cache.frames(one, StreamMode(plain=True)) == b""
    assert cache.frames(event(1, RunChanged(RUN)), StreamMode()) == first


def test_the_cache_is_bounded_by_bytes_and_forgets_the_oldest() -> None:
    cache = FrameCache(capacity=20_000)
    events = [event(number, growing("x" * 6_000)) for number in range(5)]
    frames = [cache.frames(each, StreamMode()) for each in events]
    assert cache.size <= 20_000
    assert cache.frames(events[4], StreamMode()) is frames[4]
    assert cache.frames(events[0], StreamMode()) is not frames[0]
    large = event(9, growing("x" * 30_000))
    assert cache.frames(large, StreamMode()) is not cache.frames(large, StreamMode())


@pytest.mark.parametrize("deltas", [False, True])
def test_a_frame_never_holds_a_line_break(deltas: bool) -> None:
    frames = FrameCache().frames(event(None, growing("a\nb\r\n\u2028")), StreamMode(deltas=deltas))
    assert frames.count(b"\n") == (0 if deltas else 2)
    assert b"\r" not in frames
