"""Event streams, read from the other side: each durable event once, over as many connections as it takes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import httpx2
import msgspec
import trio

from web.client_errors import NotUnderstood, ServerProblem, ServerUnreachable, problem_of_response
from web.client_patience import GIVE_UP_S, is_away, pause_s
from web.wire.events import AgentEvent, ConfigChanged, MessageDelta, Reset, RunComplete
from web.wire.messages import Message
from web.wire.requests import PermissionNotification, PermissionRequest, QuestionBatch, QuestionBatchNotification
from web.wire.runs import Run
from web.wire.sessions import Session

SILENCE_S = 45.0  # a server says something every 15 s, if only a blank line; one that does not is gone
EVENT_BYTES_MAX = 64 << 20  # what one event may hold: a whole message, at most

Payload = (
    Message | Session | Run | RunComplete | AgentEvent | ConfigChanged | MessageDelta | Reset | PermissionRequest
    | PermissionNotification | QuestionBatch | QuestionBatchNotification | msgspec.Raw
)  # fmt: skip

_DECODERS: dict[str, msgspec.json.Decoder[Payload]] = {
    "message": msgspec.json.Decoder(Message),
    "session": msgspec.json.Decoder(Session),
    "run": msgspec.json.Decoder(Run),
    "run_complete": msgspec.json.Decoder(RunComplete),
    "agent_event": msgspec.json.Decoder(AgentEvent),
    "config_changed": msgspec.json.Decoder(ConfigChanged),
    "message_delta": msgspec.json.Decoder(MessageDelta),
    "reset": msgspec.json.Decoder(Reset),
    "permission_request": msgspec.json.Decoder(PermissionRequest),
    "permission_notification": msgspec.json.Decoder(PermissionNotification),
    "question_batch_request": msgspec.json.Decoder(QuestionBatch),
    "question_batch_notification": msgspec.json.Decoder(QuestionBatchNotification),
}


class ClientEvent(msgspec.Struct, frozen=True):
    """One event. `kind` is created, updated or deleted; `seq` its number, or None if it cannot be read again.

    The payload of a `type` that this version does not know is undecoded.
    """

    type: str
    kind: str
    payload: Payload
    seq: int | None
    data: bytes  # the JSON as it came


class _Inner(msgspec.Struct):
    type: str
    payload: msgspec.Raw


class _Envelope(msgspec.Struct):
    type: str
    payload: _Inner


_envelopes = msgspec.json.Decoder(_Envelope)


class EventParser:
    """Bytes to events; knows nothing of connections. `last` is the number of the last durable event, or what the server
    said that it would go on after."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self._pieces: list[bytes] = []
        self._held = 0
        self._number: int | None = None
        self._data = b""

    def feed(self, data: bytes) -> list[ClientEvent]:
        """The events that `data` completes. A durable one with a number that was seen already is left out."""
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces, self._held = [], 0
        self._pieces.append(rest)
        self._held += len(rest)
        if self._held > EVENT_BYTES_MAX:
            raise NotUnderstood(f"the server sent an event of more than {EVENT_BYTES_MAX} bytes")
        events = (self._take(line.removesuffix(b"\r")) for line in lines)
        return [event for event in events if event is not None]

    def restart(self) -> None:
        """A new connection begins: forget the half event that the last one left."""
        self._pieces, self._held, self._number, self._data = [], 0, None, b""

    def _take(self, line: bytes) -> ClientEvent | None:
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data = value
            elif name == b"id" and value.isdigit():
                self._number = int(value)
            return None
        number, data = self._number, self._data
        self._number, self._data = None, b""
        is_old = number is not None and self.last is not None and number <= self.last
        if number is not None and not is_old:
            self.last = number
        return None if is_old or not data else self._event(data, number)

    def _event(self, data: bytes, number: int | None) -> ClientEvent:
        try:
            envelope = _envelopes.decode(data)
            decoder = _DECODERS.get(envelope.type)
            payload = decoder.decode(envelope.payload.payload) if decoder else envelope.payload.payload
        except msgspec.DecodeError as error:
            raise NotUnderstood(f"the server sent an event that is not understood: {error}") from None
        if isinstance(payload, Reset):
            # Numbers begin anew from here, and may be lower than what was asked for.
            self.last = payload.latest if payload.requested > payload.latest else max(payload.oldest - 1, 0)
        return ClientEvent(envelope.type, envelope.payload.type, payload, number, data)


class EventReader(AsyncIterator[ClientEvent]):
    """The events of one stream. Made by the client; closed by the context that opened it.

    A connection that breaks or ends is made again, from the last number on. What was volatile in between is repaired by
    a snapshot that the server sends. Iterating never ends by itself: it raises ServerProblem when the server refuses
    the stream (404: the workspace is closed), and ServerUnreachable when there is no server for too long.
    """

    def __init__(self, connect: Callable[[int | None], Awaitable[httpx2.Response]], *, after: int | None) -> None:
        self._connect = connect
        self._parser = EventParser(after)
        self._response: httpx2.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._waiting: list[ClientEvent] = []
        self._failures = 0
        self._tried_at = self._alone_since = trio.current_time()

    @property
    def last(self) -> int | None:
        """The number to go on after, for whoever reads on later."""
        return self._parser.last

    async def connect(self) -> None:
        """Connect, once. Everything that happens after this returns will be read."""
        self._parser.restart()
        response = await self._connect(self._parser.last)
        if response.status_code != 200:
            await response.aread()
            raise problem_of_response(response)
        self._response, self._chunks = response, response.aiter_raw()

    async def wait_placed(self) -> None:
        """Read until it is known after which number reading goes on, however often the connection breaks."""
        await trio.lowlevel.checkpoint()
        while self._parser.last is None:
            await self._advance()

    async def __anext__(self) -> ClientEvent:
        """The next event. Canceled, it has lost nothing that is durable."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._advance()
        return self._waiting.pop(0)

    async def aclose(self) -> None:
        """Close the connection, if there is one."""
        await trio.lowlevel.checkpoint()
        response, chunks, self._response, self._chunks = self._response, self._chunks, None, None
        if chunks is not None:
            # httpx2 leaves its inner generators to the garbage collector when it is closed between two chunks, which
            # Trio resents. Reading on in a scope that is over unwinds them: what is buffered, then the cancellation.
            with trio.move_on_after(0), suppress(httpx2.TransportError, httpx2.StreamError):
                while await anext(chunks, None) is not None:
                    pass
        if response is not None:
            await response.aclose()

    async def _advance(self) -> None:
        if self._chunks is None:
            await self._reconnect()
        else:
            await self._read(self._chunks)

    async def _read(self, chunks: AsyncIterator[bytes]) -> None:
        try:
            data = await anext(chunks)
        except (httpx2.TransportError, httpx2.StreamError, StopAsyncIteration):
            await self.aclose()
            self._alone_since = trio.current_time()
        else:
            self._waiting.extend(self._parser.feed(data))
            if self._waiting:
                # Not before: a stream that ends at once, again and again, is not asked for without a pause.
                self._failures = 0

    async def _reconnect(self) -> None:
        await trio.lowlevel.checkpoint()
        if self._failures:
            # By the clock, so that whoever is canceled again and again gets on with waiting.
            await trio.sleep_until(self._tried_at + pause_s(self._failures))
        self._failures += 1
        self._tried_at = trio.current_time()
        try:
            await self.connect()
        except (ServerUnreachable, ServerProblem) as problem:
            if not is_away(problem) or trio.current_time() - self._alone_since > GIVE_UP_S:
                raise
