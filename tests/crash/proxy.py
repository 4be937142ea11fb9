"""A small TCP proxy that cuts connections, in the middle of whatever they carry."""

import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

CHUNK = 4096
STREAM = b"text/event-stream"  # in the head of an answer
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset, and throws away what was not sent


@dataclass(frozen=True)
class Cut:
    """When a connection is cut: after so many bytes of the answer, or after so long; and how."""

    after_bytes: int
    after_s: float
    is_reset: bool  # else an end, as if the server had closed


def draw_cut(draw: random.Random) -> Cut:
    """Often within the first events, now and then late; as often by a byte as by a moment."""
    if draw.random() < 0.5:
        return Cut(int(draw.expovariate(1 / 8000)), 60.0, draw.random() < 0.7)
    return Cut(1 << 40, draw.expovariate(1 / 0.4), draw.random() < 0.7)


class CuttingProxy:
    """Listens on a port of its own for as long as it is open; the servers behind it come and go."""

    def __init__(self, draw: random.Random) -> None:
        self.server_port = 0  # of 127.0.0.1; 0: there is none, and who connects is turned away
        self.port = 0
        self.streams = 0  # event streams that a server has opened through it
        self._draw = draw

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept, forward, cut."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        task_status.started()
        await trio.serve_listeners(self._carry, listeners)

    async def _carry(self, client: trio.SocketStream) -> None:
        cut = draw_cut(self._draw)
        try:
            async with client:
                if not self.server_port:
                    return
                async with await trio.open_tcp_stream("127.0.0.1", self.server_port) as server:
                    await self._forward(client, server, cut)
        except OSError:
            await trio.lowlevel.checkpoint()

    async def _forward(self, client: trio.SocketStream, server: trio.SocketStream, cut: Cut) -> None:
        """A client that goes by itself is not told of: the server speaks to nobody until the cut, or until what it says
        comes back, as behind a router that has forgotten a connection."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, server, 1 << 40, lambda _: None)
            with trio.move_on_after(cut.after_s):
                await pump(server, client, cut.after_bytes, self._see)
            nursery.cancel_scope.cancel()
        if cut.is_reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _see(self, data: bytes) -> None:
        self.streams += data.count(STREAM)


async def pump(source: trio.SocketStream, target: trio.SocketStream, most: int, see: Callable[[bytes], None]) -> None:
    """Forward so many bytes, and not one more; or what there is before either side goes. All of it is seen."""
    try:
        while most and (data := await source.receive_some(min(most, CHUNK))):
            see(data)
            await target.send_all(data)
            most -= len(data)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def open_proxy(draw: random.Random) -> AsyncIterator[CuttingProxy]:
    """The proxy, listening."""
    proxy = CuttingProxy(draw)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()
