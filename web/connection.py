"""The connections of a server: Hypercorn's HTTP/1.1 on streams that nobody at their other ends can hold for ever.

Stock Hypercorn sends under a shield without a deadline, so that a reader which stops reading keeps its handler, its
memory and, at shutdown, the whole server.
"""

import socket
from collections.abc import Awaitable, Generator
from http import HTTPStatus
from typing import cast

import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState

from web.connection_stream import ConnectionStream
from web.control import ConnectionStatistics

log = structlog.get_logger()

TICK_S = 0.1
SENDS_A_CHECKPOINT = 16  # an application that does nothing but send must let the others have a turn now and then


class _Http1(H11Protocol):
    """Hypercorn's HTTP/1.1, which never turns into HTTP/2: that one buffers without bound for a peer that opens no
    window, out of reach of every deadline here. Who asks for an upgrade is served as if it had not asked."""

    async def _check_protocol(self, event: h11.Request) -> None:
        await trio.lowlevel.checkpoint()

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version > b"1.1":
            await self._send_error_response(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
            await self.send(Closed())
        else:
            await super()._create_stream(request)


class _Done:
    """Awaiting it takes no step, and so it is not canceled."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


DONE = _Done()


class _Server(TCPServer):
    """Hypercorn's, except that it speaks HTTP/1.1 alone, and that the ends of requests are noted in no task and in no
    step that can be canceled.

    Stock Hypercorn starts a task for each idle time, in the task of the request that just ended; but Quart-Trio cancels
    that task as soon as Hypercorn tells it that the request has ended, and so the task is sometimes not started. Such a
    connection is never closed, neither for being idle nor when the server leaves.
    """

    def __init__(self, connections: "Connections", connection: ConnectionStream, state: ConnectionState) -> None:
        stream = cast("trio.SSLStream[trio.SocketStream]", connection)
        super().__init__(connections.app, connections.config, connections.context, state, stream)
        self._connection = connection
        self._sends = 0

    def _send(self, event: Event) -> Awaitable[None]:
        """For the protocol, in the place of `protocol_send`."""
        match event:
            case Updated():
                self._connection.set_idle(event.idle)
                return DONE
            case Closed():
                self._connection.end()
                return self.protocol.handle(event)
            case RawData():
                return self._send_data(event)
        raise AssertionError(f"an event that HTTP/1.1 does not send: {event!r}")

    def _send_data(self, event: RawData) -> Awaitable[None]:
        self._sends += 1
        if self.send_lock.locked() or self._sends % SENDS_A_CHECKPOINT == 0:
            return self.protocol_send(event)
        left = self._connection.try_send(event.data)
        return self.protocol_send(RawData(left)) if left else DONE

    async def _read_data(self) -> None:
        stock = self.protocol.protocol
        self.protocol.protocol = _Http1(
            stock.app,
            stock.config,
            stock.context,
            stock.task_group,
            stock.connection_state,
            stock.ssl,
            stock.client,
            stock.server,
            self._send,
        )
        await self.idle_task.stop()
        self._connection.set_idle(True)
        await super()._read_data()


class Connections:
    """The open connections of one server, and what they share. Their number is bounded."""

    def __init__(self, app: AppWrapper, config: Config, *, limit: int, patience_s: float) -> None:
        self.app = app
        self.config = config
        self.context = WorkerContext(None)
        self._limit = limit
        self._patience_s = patience_s
        self._open: set[ConnectionStream] = set()
        self._changed = trio.Event()
        self._accepted = 0
        self._aborted = 0

    @property
    def has_room(self) -> bool:
        """Whether another connection may be accepted."""
        return len(self._open) < self._limit

    def add(self, accepted: socket.socket) -> ConnectionStream:
        """Take a socket over; `serve` must be called for it."""
        connection = ConnectionStream(accepted, patience_s=self._patience_s)
        self._open.add(connection)
        self._accepted += 1
        return connection

    async def serve(self, connection: ConnectionStream, transport: str) -> None:
        """Talk HTTP on the connection until it closes. Nothing that happens on one connection reaches the others."""
        try:
            with connection.scope:
                await _Server(self, connection, ConnectionState({"transport": transport}))
        except* Exception:
            log.exception("connection_failed")
        finally:
            self._aborted += connection.was_aborted
            connection.abort()
            self._open.discard(connection)
            self._changed.set()
            self._changed = trio.Event()
        await trio.lowlevel.checkpoint()

    async def wait_room(self) -> None:
        """Wait until another connection may be accepted."""
        await trio.lowlevel.checkpoint()
        while not self.has_room:
            await self._changed.wait()

    async def wait_empty(self) -> None:
        """Wait until no connection is open."""
        await trio.lowlevel.checkpoint()
        while self._open:
            await self._changed.wait()

    async def begin_close(self) -> None:
        """Idle connections close now, the others after the answer they are giving."""
        await self.context.terminated.set()
        for connection in list(self._open):
            connection.leave()
        await trio.lowlevel.checkpoint()

    async def finish(self, *, ticks: int) -> int:
        """After `begin_close`: wait until every connection has closed, but cut off those on which nothing moves for
        this many ticks; says how many those were.

        A tick is a tenth of a second, and at least one pass of the scheduler: a server that is so busy that its own
        tasks wait for their turn does not blame their peers.
        """
        quiet: dict[ConnectionStream, tuple[int, int]] = {}  # how often something had moved, and for how many ticks
        aborted = 0
        while self._open:
            for connection in list(self._open):
                moves, count = quiet.get(connection, (connection.moves, 0))
                quiet[connection] = connection.moves, count + 1 if moves == connection.moves else 0
                if count >= ticks and not connection.was_aborted:
                    connection.abort()
                    connection.scope.cancel()
                    aborted += 1
            with trio.move_on_after(TICK_S):
                await self.wait_empty()
        await trio.lowlevel.checkpoint()
        return aborted

    def abort_all(self) -> int:
        """Cut off whoever is left; says how many."""
        left = [connection for connection in self._open if not connection.was_aborted]
        for connection in left:
            connection.abort()
            connection.scope.cancel()
        return len(left)

    def statistics(self) -> ConnectionStatistics:
        """What there is now."""
        return ConnectionStatistics(
            open=len(self._open), accepted=self._accepted, aborted=self._aborted, limit=self._limit
        )
