"""A web site on this machine, for the tools that read the web."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from engine.tools.public_network import PublicNetwork, read_networks
from engine.tools.web_reader import WebReader


class Site:
    """A server that answers each path as it was told, and the name service that leads to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: dict[str, bytes] = {}
        self.names: dict[str, list[str]] = {"site.test": ["127.0.0.1"]}
        self.asked: list[str] = []
        self.open = 0
        self.holds: set[str] = set()  # paths whose connection stays open when they are answered

    def says(
        self, path: str, body: bytes | str, *, status: str = "200 OK", kind: str = "text/html", **headers: str
    ) -> None:
        """Answer this path with this."""
        data = body if isinstance(body, bytes) else body.encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{more}\r\n"
        self.answers[path] = head.encode() + data

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """As the system would."""
        await trio.lowlevel.checkpoint()
        if host not in self.names:
            raise OSError("no such name")
        return self.names[host]

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, one request."""
        self.open += 1
        try:
            async with stream:
                request = b""
                while b"\r\n\r\n" not in request:
                    if not (data := await stream.receive_some()):
                        return
                    request += data
                path = request.split(b" ")[1].decode()
                self.asked.append(path)
                answer = self.answers.get(path)
                if answer is not None:
                    await stream.send_all(answer)
                if answer is None or path in self.holds:
                    await stream.receive_some()  # until the other side is gone
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()
        finally:
            self.open -= 1

    def reader(self, *allowed: str) -> WebReader:
        """What reads the web for a tool, with these networks allowed."""
        return WebReader(PublicNetwork(read_networks(allowed), self.resolve))


@asynccontextmanager
async def open_site() -> AsyncIterator[tuple[Site, str]]:
    """A site, and its URL by a name that nobody else knows."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            site = Site(listener.socket.getsockname()[1])
            nursery.start_soon(partial(trio.serve_listeners, site.serve, [listener]))
            yield site, f"http://site.test:{site.port}"
            nursery.cancel_scope.cancel()
