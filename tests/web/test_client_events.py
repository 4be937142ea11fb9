"""Reading an event stream: bytes to events, and each durable event once over connections that break."""

import itertools
from collections.abc import Callable

import httpx2
import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from engine.records.event import Body, Event, PermissionAsked, PermissionResolved, QuestionsAsked, QuestionsResolved
from engine.records.ids import RequestId, RunId, SessionId, WorkspaceId
from engine.records.permission import Decision, PermissionRequest
from engine.records.question import Question, QuestionBatch
from web.client_errors import NotUnderstood, ServerProblem, ServerUnreachable
from web.client_events import ClientEvent, EventParser, EventReader
from web.client_patience import GIVE_UP_S
from web.sse import encode_frame
from web.wire.events import ConfigChanged, Reset, envelopes

PERMISSION = PermissionRequest(
    id=RequestId("p"), session_id=SessionId("s"), run_id=RunId("r"), tool_call_id="c", tool_name="edit", action="write",
    path="/w",
)  # fmt: skip
QUESTIONS = QuestionBatch(
    id=RequestId("q"), session_id=SessionId("s"), run_id=RunId("r"), tool_call_id="c",
    questions=(Question(id="1", type="yes_no", question="Sure?"),),
)  # fmt: skip


def frame(number: int | None, text: str = "w") -> bytes:
    body = {"type": "config_changed", "payload": {"type": "updated", "payload": {"workspace_id": text}}}
    before = b"" if number is None else b"id: %d\n" % number
    return before + b"data: " + msgspec.json.encode(body) + b"\n\n"


def texts(events: list[ClientEvent]) -> list[str]:
    return [event.payload.workspace_id for event in events if isinstance(event.payload, ConfigChanged)]


def test_an_event_is_decoded_with_its_number() -> None:
    [event] = EventParser().feed(frame(7, "x"))
    assert (event.type, event.kind, event.seq) == ("config_changed", "updated", 7)
    assert event.payload == ConfigChanged("x")


def test_a_volatile_event_has_no_number() -> None:
    parser = EventParser()
    first, second = parser.feed(frame(7, "x") + frame(None, "y"))
    assert (first.seq, second.seq) == (7, None)
    assert parser.last == 7


def test_a_number_without_data_is_where_to_go_on() -> None:
    parser = EventParser()
    assert parser.feed(b"id: 12\n\n") == []
    assert parser.last == 12


def test_blank_lines_comments_and_unknown_fields_are_nothing() -> None:
    assert EventParser().feed(b"\n\n: a comment\n\nretry: 5\n\nevent: x\n\n") == []


def test_line_ends_may_have_a_carriage_return() -> None:
    assert texts(EventParser().feed(frame(1, "x").replace(b"\n", b"\r\n"))) == ["x"]


@pytest.mark.parametrize(
    "body",
    [
        PermissionAsked(PERMISSION),
        PermissionResolved(RequestId("p"), SessionId("s"), "c", Decision.DENY),
        QuestionsAsked(QUESTIONS),
        QuestionsResolved(RequestId("q"), SessionId("s")),
    ],
    ids=lambda body: type(body).__name__,
)
def test_what_is_asked_and_that_it_is_over_is_decoded(body: Body) -> None:
    event = Event(7, WorkspaceId("w"), 0, body)
    for envelope in envelopes(event, plain=False, deltas=False):
        [told] = EventParser().feed(encode_frame(envelope))
        assert not isinstance(told.payload, msgspec.Raw)
        assert msgspec.json.encode(told.payload) in told.data


def test_an_event_of_an_unknown_type_is_handed_on_undecoded() -> None:
    [event] = EventParser().feed(b'data: {"type":"new","payload":{"type":"created","payload":{"a":1}}}\n\n')
    assert (event.type, event.kind) == ("new", "created")
    assert isinstance(event.payload, msgspec.Raw)


def test_an_event_that_was_seen_is_left_out() -> None:
    parser = EventParser(5)
    assert texts(parser.feed(frame(4, "a") + frame(5, "b") + frame(6, "c") + frame(6, "d"))) == ["c"]


@pytest.mark.parametrize(
    ("reset", "next_number"),
    [(Reset(requested=3, oldest=10, latest=20), 10), (Reset(requested=99, oldest=1, latest=20), 21)],
)
def test_after_a_reset_numbers_go_on_from_where_the_server_says(reset: Reset, next_number: int) -> None:
    parser = EventParser(reset.requested)
    body = {"type": "reset", "payload": {"type": "created", "payload": reset}}
    events = parser.feed(b"data: " + msgspec.json.encode(body) + b"\n\n" + frame(next_number, "x"))
    assert [event.type for event in events] == ["reset", "config_changed"]


@pytest.mark.parametrize("data", [b"nonsense", b"{}", b'{"type":"run","payload":{"type":"updated","payload":{}}}'])
def test_what_cannot_be_understood_is_an_error(data: bytes) -> None:
    with pytest.raises(NotUnderstood):
        EventParser().feed(b"data: " + data + b"\n\n")


@given(st.lists(st.text(min_size=1, max_size=5), max_size=6), st.lists(st.integers(0, 500), max_size=8))
def test_how_the_bytes_are_cut_does_not_matter(said: list[str], cuts: list[int]) -> None:
    stream = b"".join(frame(number, text) for number, text in enumerate(said, 1))
    parser = EventParser()
    pieces = itertools.pairwise([0, *sorted(cuts), len(stream)])
    assert texts([event for start, end in pieces for event in parser.feed(stream[start:end])]) == said


# --- connections ---


class Chunks(httpx2.AsyncByteStream):
    """The body of one connection, and how it ends."""

    def __init__(self, chunks: list[bytes], ends: Exception | trio.Event | None) -> None:
        self._chunks = chunks
        self._ends = ends
        self.is_closed = False

    def __aiter__(self) -> "Chunks":
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._chunks:
            return self._chunks.pop(0)
        if isinstance(self._ends, trio.Event):
            await self._ends.wait()
        if isinstance(self._ends, Exception):
            raise self._ends
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.is_closed = True
        await trio.lowlevel.checkpoint()


class Server:
    """A scripted server: what it answers to each connection, in turn; the last answer is repeated."""

    def __init__(self, *answers: Callable[[], httpx2.Response]) -> None:
        self._answers = list(answers)
        self.asked: list[int | None] = []
        self.asked_at: list[float] = []

    async def connect(self, last: int | None) -> httpx2.Response:
        await trio.lowlevel.checkpoint()
        self.asked.append(last)
        self.asked_at.append(trio.current_time())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer()


def says(*chunks: bytes, ends: Exception | trio.Event | None = None) -> Callable[[], httpx2.Response]:
    return lambda: httpx2.Response(200, stream=Chunks(list(chunks), ends))


def refuses(status: int) -> Callable[[], httpx2.Response]:
    return lambda: httpx2.Response(status, json={"message": f"it is {status}", "type": "word", "field": "f"})


def is_away() -> httpx2.Response:
    raise ServerUnreachable("nobody is there")


ENDS = [None, httpx2.ReadError("reset"), httpx2.RemoteProtocolError("half"), httpx2.ReadTimeout("silence")]


async def take(reader: EventReader, count: int) -> list[str]:
    return texts([await anext(reader) for _ in range(count)])


async def open_reader(server: Server, after: int | None = None) -> EventReader:
    reader = EventReader(server.connect, after=after)
    await reader.connect()
    return reader


@pytest.mark.parametrize("ends", ENDS)
async def test_a_connection_that_ends_is_made_again_from_the_last_number(
    autojump_clock: MockClock, ends: Exception | None
) -> None:
    server = Server(says(frame(1, "a"), frame(2, "b"), ends=ends), says(frame(2, "b"), frame(3, "c")))
    reader = await open_reader(server)
    assert await take(reader, 3) == ["a", "b", "c"]
    assert server.asked == [None, 2]
    await reader.aclose()


async def test_half_an_event_is_read_again_from_its_beginning(autojump_clock: MockClock) -> None:
    server = Server(says(frame(1, "a") + frame(2, "b")[:20], ends=httpx2.ReadError("reset")), says(frame(2, "b")))
    reader = await open_reader(server)
    assert await take(reader, 2) == ["a", "b"]
    await reader.aclose()


async def test_reading_begins_where_it_is_told_to(autojump_clock: MockClock) -> None:
    server = Server(says(frame(5, "old"), frame(6, "new")))
    reader = await open_reader(server, after=5)
    assert await take(reader, 1) == ["new"]
    assert server.asked == [5]
    assert reader.last == 6
    await reader.aclose()


async def test_a_server_that_is_away_for_a_while_is_waited_for(autojump_clock: MockClock) -> None:
    server = Server(says(frame(1, "a")), is_away, refuses(503), is_away, says(frame(2, "b")))
    reader = await open_reader(server)
    assert await take(reader, 2) == ["a", "b"]
    waits = [later - earlier for earlier, later in itertools.pairwise(server.asked_at[1:])]
    assert waits == pytest.approx([0.25, 0.5, 1.0])
    await reader.aclose()


async def test_a_server_that_is_away_for_too_long_is_an_error(autojump_clock: MockClock) -> None:
    reader = await open_reader(Server(says(frame(1, "a")), is_away))
    assert await take(reader, 1) == ["a"]
    began = trio.current_time()
    with pytest.raises(ServerUnreachable):
        await anext(reader)
    assert GIVE_UP_S < trio.current_time() - began < GIVE_UP_S + 10
    await reader.aclose()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_stream_that_is_refused_is_an_error(autojump_clock: MockClock, status: int) -> None:
    reader = await open_reader(Server(says(frame(1, "a")), refuses(status)))
    assert await take(reader, 1) == ["a"]
    with pytest.raises(ServerProblem) as refused:
        await anext(reader)
    assert (refused.value.status, refused.value.type, refused.value.field) == (status, "word", "f")
    assert str(refused.value) == f"it is {status}"
    await reader.aclose()


async def test_a_stream_that_is_refused_at_first_is_an_error_at_once(autojump_clock: MockClock) -> None:
    for answer, error in ((refuses(503), ServerProblem), (is_away, ServerUnreachable)):
        with pytest.raises(error):
            await open_reader(Server(answer))


async def test_a_stream_that_ends_at_once_is_not_asked_for_without_a_pause(autojump_clock: MockClock) -> None:
    server = Server(says())
    reader = await open_reader(server)
    with trio.move_on_after(10):
        await anext(reader)
    assert len(server.asked) < 10
    await reader.aclose()


async def test_reading_that_is_canceled_loses_nothing(autojump_clock: MockClock) -> None:
    quiet = trio.Event()
    server = Server(says(frame(1, "a"), ends=quiet), says(frame(2, "b")))
    reader = await open_reader(server)
    assert await take(reader, 1) == ["a"]
    with trio.move_on_after(1) as scope:
        await anext(reader)
    assert scope.cancelled_caught
    assert await take(reader, 1) == ["b"]
    assert server.asked == [None, 1]
    await reader.aclose()


async def test_waiting_that_is_canceled_again_and_again_comes_to_an_end(autojump_clock: MockClock) -> None:
    server = Server(says(frame(1, "a")), *[is_away] * 6, says(frame(2, "b")))
    reader = await open_reader(server)
    assert await take(reader, 1) == ["a"]
    for _ in range(200):
        with trio.move_on_after(0.1) as scope:
            assert await take(reader, 1) == ["b"]
        if not scope.cancelled_caught:
            break
    assert reader.last == 2
    await reader.aclose()


async def test_closing_closes_the_connection(autojump_clock: MockClock) -> None:
    body = Chunks([frame(1, "a")], trio.Event())
    reader = await open_reader(Server(lambda: httpx2.Response(200, stream=body)))
    assert await take(reader, 1) == ["a"]
    await reader.aclose()
    assert body.is_closed
    await reader.aclose()
