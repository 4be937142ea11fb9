"""A local HTTP server that stands for a model provider: scripted replies, and what its clients did.

What is in the replies is the business of the protocols: `openai_server`, `anthropic_server` and so on.

    async with open_model_server() as server:
        server.enqueue(answer(say("Hello"), stop()))
        ...  # a client asks server.base_url
        assert server.requests[0].body["stream"] is True

A reply is a status, headers and moves. A move is bytes (sent as one HTTP chunk), a number (seconds to wait), a
`trio.Event` (a gate), or one of the ends below; without one the body ends as it should.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
import trio

MAX_REQUEST_BYTES = 64 * 1024 * 1024


class End(Enum):
    """How a reply ends other than well."""

    CUT = "cut"  # the connection closes before the body does
    RESET = "reset"  # the same, with a TCP reset
    HANG = "hang"  # nothing more comes, until the client goes


CUT, RESET, HANG = End.CUT, End.RESET, End.HANG
Move = bytes | float | trio.Event | End


@dataclass(frozen=True)
class Reply:
    """What the server does with one request. With a status of 0 it does not say that it heard it."""

    moves: tuple[Move, ...] = ()
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "text/event-stream"})


@dataclass(eq=False)
class Request:
    """What the server was asked, and what became of it. `gone` is set when the client closed the connection before the
    reply was over, at `gone_at` of Trio's clock; `answered` when it was over first."""

    path: str
    headers: dict[str, str]
    raw_body: bytes
    connection: int
    gone: trio.Event = field(default_factory=trio.Event)
    gone_at: float | None = None
    answered: trio.Event = field(default_factory=trio.Event)

    @property
    def body(self) -> dict[str, Any]:
        """The JSON body."""
        decoded: dict[str, Any] = msgspec.json.decode(self.raw_body)
        return decoded


class ModelServer:
    """The running server."""

    def __init__(self, port: int) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.root}/v1"
        self.requests: list[Request] = []
        self.default: Reply | Callable[[Request], Reply] | None = None  # for when nothing is enqueued
        self.connections = 0
        self._replies: deque[Reply] = deque()
        self._arrived = trio.Event()

    def enqueue(self, *replies: Reply) -> None:
        """Replies for the next requests, in the order in which those arrive."""
        self._replies.extend(replies)

    async def wait_request(self, number: int = 1) -> Request:
        """The request with this number, counted from 1, as soon as it is there."""
        while len(self.requests) < number:
            await self._arrived.wait()
        await trio.lowlevel.checkpoint()
        return self.requests[number - 1]

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, for as many requests as the client likes."""
        self.connections += 1
        connection = _Connection(stream, self.connections)
        async with stream:
            try:
                while (request := await connection.read_request()) is not None:
                    if not await self._answer(connection, request):
                        return
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    async def _answer(self, connection: "_Connection", request: Request) -> bool:
        reply = self._replies.popleft() if self._replies else self.default
        if callable(reply):
            reply = reply(request)
        self.requests.append(request)
        self._arrived.set()
        self._arrived = trio.Event()
        if reply is None:
            reply = refusal(501, {"error": {"message": "no reply was enqueued for this request"}})
        is_reusable = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.watch, request, nursery.cancel_scope)
            try:
                is_reusable = await connection.send_reply(reply)
                request.answered.set()
                nursery.cancel_scope.cancel()
            except trio.BrokenResourceError:
                await trio.sleep_forever()  # the watcher sees it too
        return request.answered.is_set() and is_reusable


class _Connection:
    def __init__(self, stream: trio.SocketStream, number: int) -> None:
        self._stream = stream
        self._number = number
        self._buffer = b""

    async def read_request(self) -> Request | None:
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        request_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        assert length <= MAX_REQUEST_BYTES
        while len(self._buffer) < length:
            if not await self._more():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Request(request_line.split(" ")[1], headers, body, self._number)

    async def _more(self) -> bool:
        data = await self._stream.receive_some()
        self._buffer += data
        return bool(data)

    async def watch(self, request: Request, scope: trio.CancelScope) -> None:
        """Sees the client go while its request is being answered, and stops answering."""
        try:
            while await self._more():
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        request.gone_at = trio.current_time()
        request.gone.set()
        scope.cancel()

    async def send_reply(self, reply: Reply) -> bool:
        """Whether the connection can be used again."""
        headers = {"Transfer-Encoding": "chunked", **reply.headers}
        head = f"HTTP/1.1 {reply.status} Scripted\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        if reply.status:
            await self._stream.send_all(head.encode("latin-1"))
        for move in reply.moves:
            if isinstance(move, bytes):
                await self._stream.send_all(b"%x\r\n%b\r\n" % (len(move), move))
            elif isinstance(move, trio.Event):
                await move.wait()
            elif not isinstance(move, End):
                await trio.sleep(move)
            elif move is HANG:
                await trio.sleep_forever()
            else:
                if move is RESET:
                    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # on, for no time: closing resets
                    self._stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
                return False
        await self._stream.send_all(b"0\r\n\r\n")
        return headers.get("Connection") != "close"


@asynccontextmanager
async def open_model_server() -> AsyncIterator[ModelServer]:
    """A server on a free port of 127.0.0.1. Leaving drops every connection."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server = ModelServer(listeners[0].socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, server.serve, listeners))
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


# -- what replies are made of ------------------------------------------------------------------------------------------


def event(data: object, *, newline: bytes = b"\n") -> bytes:
    """One server-sent event; `data` is bytes as they are, or something to be put into JSON."""
    payload = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return b"data: " + payload + newline + newline


def refusal(status: int, body: object, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply with another status and a JSON body, or a text."""
    content = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
    return Reply((content,), status, {"Content-Type": "application/json", **(headers or {})})


def split(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """The same bytes, cut at these positions."""
    cuts = [0, *sorted({position for position in positions if 0 < position < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(cuts)]
