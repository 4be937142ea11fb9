"""A real `countermand serve` in a process of its own, and HTTP/1.1 spoken to it by hand.

    async with open_live_server(tmp_path / "data") as server, server.connect() as connection:
        answer = await connection.request("POST", "/v1/workspaces", {"path": "/home/ann/project"})
        server.process.kill()

The connection keeps nothing from its user: a request goes out as the bytes it is made of, and a body comes in as it was
framed, with or without its proper end.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
import trio

COMMAND = Path(sys.executable).with_name("countermand")
READY = b" is listening on "
START_S = 60.0  # a machine with much else to do
MODEL_VARIABLES = ("COUNTERMAND_", "OPENAI_")  # of whoever runs the tests; no business of the server's
CHUNK = 1 << 16


class Answer:
    """A response: its head, and a body that is read by whoever wants it."""

    def __init__(self, connection: "Connection", status: int, headers: Mapping[str, str]) -> None:
        self.status = status
        self.headers = headers
        self.body = b""  # once it was read
        self.has_ended_properly = False
        self._connection = connection
        self._is_chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = int(headers.get("content-length", "0"))

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.body[:200]!r}>"

    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    async def read(self) -> Self:
        """Read the whole body."""
        pieces = []
        while piece := await self.receive():
            pieces.append(piece)
        self.body = b"".join(pieces)
        return self

    async def receive(self) -> bytes:
        """The next piece of the body; empty at the end, proper or not."""
        if self.has_ended_properly:
            return b""
        if not self._is_chunked:
            data = await self._connection.take(self._left)
            self.has_ended_properly = len(data) == self._left
            return data
        size = (await self._connection.take_line()).partition(b";")[0]
        if not size:
            return b""  # cut off
        data = await self._connection.take(int(size, 16) + 2)
        self.has_ended_properly = data == b"\r\n"
        return data[:-2]


class Connection:
    """One connection. Requests go one after another, unless a body is left unread."""

    def __init__(self, stream: trio.SocketStream, headers: Mapping[str, str]) -> None:
        self.stream = stream
        self.headers = headers
        self._buffer = bytearray()

    async def send(
        self, method: str, target: str, json: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a request, as Go's client writes one: no content type without a body."""
        body = b"" if json is None else json if isinstance(json, bytes) else msgspec.json.encode(json)
        sent = {**self.headers}
        if body:
            sent["Content-Type"] = "application/json"
        if body or method not in ("GET", "HEAD", "DELETE"):
            sent["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in {**sent, **(headers or {})}.items())
        await self.stream.send_all(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)

    async def answer(self) -> Answer:
        """The head of the next response. Raises EndOfChannel if the server closes instead."""
        status_line = await self.take_line()
        if not status_line:
            raise trio.EndOfChannel
        headers = {}
        while line := await self.take_line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return Answer(self, int(status_line.split(b" ")[1]), headers)

    async def request(
        self, method: str, target: str, json: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read the whole response."""
        await self.send(method, target, json, headers=headers)
        return await (await self.answer()).read()

    async def take(self, count: int) -> bytes:
        """So many bytes, or what there was before the server closed."""
        while len(self._buffer) < count and await self._more():
            pass
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    async def take_line(self) -> bytes:
        """The next line without its end; empty if the server closed instead."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not await self._more():
                return b""
        return (await self.take(end + 2))[:-2]

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False
        self._buffer += data
        return bool(data)


class LiveServer:
    """The running process, and where it listens."""

    def __init__(self, process: trio.Process, address: str, log: Path) -> None:
        self.process = process
        self.address = address  # "http://127.0.0.1:4711" or "unix:///…"
        self._log = log

    @property
    def port(self) -> int:
        """Of 127.0.0.1."""
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> str:
        """What it has written to stderr."""
        return self._log.read_text("utf-8", "replace")

    @asynccontextmanager
    async def connect(self, *, headers: Mapping[str, str] | None = None) -> AsyncIterator[Connection]:
        """A connection of its own."""
        scheme, _, rest = self.address.partition("://")
        if scheme == "unix":
            stream = await trio.open_unix_socket(rest)
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        host = "api.crush.localhost" if scheme == "unix" else rest
        async with stream:
            yield Connection(stream, {"Host": host, **(headers or {})})

    async def ask(self, method: str, target: str, json: Any = None) -> Answer:
        """One request on a connection of its own."""
        async with self.connect() as connection:
            return await connection.request(method, target, json)


def clean_environ(**more: str) -> dict[str, str]:
    """The environment, without what would choose a model."""
    return {name: value for name, value in os.environ.items() if not name.startswith(MODEL_VARIABLES)} | more


@asynccontextmanager
async def open_live_server(
    data_dir: Path,
    *,
    host: str = "tcp://127.0.0.1:0",
    arguments: Sequence[str] = ("--no-token",),
    environ: Mapping[str, str] | None = None,
    command: Sequence[str] = (str(COMMAND),),
    start_s: float = START_S,
) -> AsyncIterator[LiveServer]:
    """Start a server and wait until it listens, for no longer than `start_s`. Leaving kills it, if it is still there,
    with no chance to tidy up.

    Opened again over the same directory it is the next server over the same store.
    """
    log = data_dir.with_suffix(".log")
    words = [*command, "serve", "--host", host, "--data-dir", str(data_dir), *arguments]
    with log.open("ab") as stderr:
        process = await trio.lowlevel.open_process(
            words, env=clean_environ(**(environ or {})), stdout=subprocess.PIPE, stderr=stderr
        )
    try:
        with trio.fail_after(start_s):
            address = await _address(process, log)
        yield LiveServer(process, address, log)
    finally:
        process.kill()
        with trio.move_on_after(START_S, shield=True):
            await process.wait()


async def _address(process: trio.Process, log: Path) -> str:
    """What the server says of itself when it listens."""
    assert process.stdout is not None
    said = b""
    while b"\n" not in said:
        data = await process.stdout.receive_some()
        if not data:
            raise RuntimeError(f"the server did not start; {log} says why")
        said += data
    return said.partition(READY)[2].partition(b";")[0].decode()
