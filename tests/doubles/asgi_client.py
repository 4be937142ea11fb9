"""A client that speaks ASGI to an application in the same process, under Trio.

It reads a response as it is sent, chunk by chunk, and can hang up at any moment: what a framework's own test client,
which waits for the end of a response, cannot do with a stream that has none.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import msgspec
import trio

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

HOST = "localhost"


class Response:
    """A whole response."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    def __repr__(self) -> str:
        return f"<Response {self.status} {self.body[:200]!r}>"


class Stream:
    """A response while it is being sent."""

    def __init__(self, chunks: trio.MemoryReceiveChannel[bytes]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.started = trio.Event()
        self.has_ended_properly = False
        self._chunks = chunks
        self._buffer = b""
        self._hang_up = trio.Event()

    async def receive_chunk(self) -> bytes:
        """The next piece as the application sent it; empty at the end."""
        try:
            return await self._chunks.receive()
        except trio.EndOfChannel:
            return b""

    async def receive_frame(self) -> str:
        """The next server-sent event, without its blank line. A blank line alone gives an empty one, and so does the
        end: see `has_ended_properly`."""
        while b"\n" not in self._buffer or (not self._buffer.startswith(b"\n") and b"\n\n" not in self._buffer):
            chunk = await self.receive_chunk()
            if not chunk:
                return ""
            self._buffer += chunk
        end = 0 if self._buffer.startswith(b"\n") else self._buffer.index(b"\n\n") + 1
        frame, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
        return frame.decode().rstrip("\n")

    async def receive_event(self) -> dict[str, Any]:
        """The next event that says something, decoded, with its `id` if it has one."""
        while True:
            frame = await self.receive_frame()
            if not frame and self.has_ended_properly and not self._buffer:
                raise trio.EndOfChannel
            lines = dict(line.partition(": ")[::2] for line in frame.splitlines())
            if "data" in lines:
                event: dict[str, Any] = msgspec.json.decode(lines["data"])
                return {"id": lines["id"], **event} if "id" in lines else event

    async def read(self) -> bytes:
        """What is left of the body."""
        body = bytearray(self._buffer)
        self._buffer = b""
        while chunk := await self.receive_chunk():
            body += chunk
        return bytes(body)

    def hang_up(self) -> None:
        """Close the connection, as a client that goes away does."""
        self._hang_up.set()

    async def wait_hung_up(self) -> None:
        """Return when the connection is closed."""
        await self._hang_up.wait()


class AsgiClient:
    """Sends requests to an application. `transport`, `peer` and `headers` are those of every request."""

    def __init__(
        self,
        app: AsgiApp,
        *,
        transport: str = "unix",
        peer: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._app = app
        self._transport = transport
        self._peer = peer
        self.headers = {"Host": HOST, **(headers or {})}

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        target: str | bytes,
        *,
        body: bytes | None = b"",
        headers: Mapping[str, str | None] | None = None,
    ) -> AsyncIterator[Stream]:
        """Send a request and give the response once its head is there. A `body` of None never arrives.

        Leaving hangs up, and waits until the application is done with the request.
        """
        scope = self._scope(method, target, {**self.headers, **(headers or {})})
        # Nothing is buffered: an application that sends is held up until it is read, as by a full socket.
        send_chunk, receive_chunk = trio.open_memory_channel[bytes](0)
        stream = Stream(receive_chunk)
        messages: list[Message] = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            await trio.lowlevel.checkpoint()
            if messages:
                return messages.pop()
            await stream.wait_hung_up()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            await _take(stream, send_chunk, message)

        async def run() -> None:
            async with send_chunk:
                await self._app(scope, receive, send)
            stream.started.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await stream.started.wait()
            try:
                yield stream
            finally:
                stream.hang_up()
                receive_chunk.close()

    async def request(
        self,
        method: str,
        target: str | bytes,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Response:
        """Send a request and read the whole response."""
        content = body if body is not None else b"" if json is None else msgspec.json.encode(json)
        async with self.stream(method, target, body=content, headers=headers) as stream:
            return Response(stream.status, stream.headers, await stream.read())

    async def get(self, target: str, **how: Any) -> Response:
        """GET."""
        return await self.request("GET", target, **how)

    async def post(self, target: str, json: Any = None, **how: Any) -> Response:
        """POST, with JSON if there is any."""
        return await self.request("POST", target, json=json, **how)

    async def put(self, target: str, json: Any = None, **how: Any) -> Response:
        """PUT, with JSON."""
        return await self.request("PUT", target, json=json, **how)

    async def delete(self, target: str, **how: Any) -> Response:
        """DELETE."""
        return await self.request("DELETE", target, **how)

    def _scope(self, method: str, target: str | bytes, headers: Mapping[str, str | None]) -> Scope:
        raw = target.encode() if isinstance(target, str) else target
        raw_path, _, query = raw.partition(b"?")
        sent = [(n.lower().encode("latin1"), v.encode("latin1")) for n, v in headers.items() if v is not None]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.1"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path.decode("latin1")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": sent,
            "client": (self._peer, 40000) if self._peer else None,
            "server": ("127.0.0.1", 2180) if self._peer else None,
            "state": {"transport": self._transport},
            "extensions": {},
        }


async def _take(stream: Stream, chunks: trio.MemorySendChannel[bytes], message: Message) -> None:
    """What a server does with what an application sends."""
    if message["type"] == "http.response.start":
        stream.status = message["status"]
        stream.headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in message["headers"]}
        stream.started.set()
        await trio.lowlevel.checkpoint()
        return
    assert message["type"] == "http.response.body", message
    if message.get("body"):
        try:
            await chunks.send(bytes(message["body"]))
        except trio.BrokenResourceError:
            await stream.wait_hung_up()  # nobody reads any more; the disconnect is on its way
    if not message.get("more_body"):
        stream.has_ended_properly = True
        await trio.lowlevel.checkpoint()
