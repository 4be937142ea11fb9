"""Serving and leaving, on real sockets of both kinds: nobody at the other end of one can hold the server up."""

import errno
import math
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h2.connection
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.web.site import wait_for
from web.address import TcpAddress, UnixAddress
from web.connection import TICK_S
from web.control import ServerControl
from web.listen import Listener, open_listeners
from web.serve import LIFESPAN_S, QUIET_TICKS, UNWIND_S, ServerLimits
from web.serve import open_site as open_http

pytestmark = pytest.mark.slow

DEADLINE_S = 10.0  # of a whole test; nothing here waits for it
LEAVE_S = 5.0  # for leaving once the engine has stopped: three seconds, and more for a machine that is busy
KINDS = ["tcp", "unix"]


class TinyApp:
    """A few paths, each of which misuses the server in its own way."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.gate = trio.Event()
        self.disconnected = trio.Event()
        self.stop_asked: Callable[[str], None] = lambda reason: None
        self.chunks_sent = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        self.entered.set()
        await getattr(self, "_" + scope["path"].strip("/"))(scope, receive, send)

    async def _live(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _transport(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, scope["state"]["transport"].encode())

    async def _large(self, scope: Any, receive: Any, send: Any) -> None:
        """More than fits into a socket, in pieces that say where they belong."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5000000")]})
        for number in range(50):
            await send({"type": "http.response.body", "body": b"%09d," % number * 10_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _gated(self, scope: Any, receive: Any, send: Any) -> None:
        await self.gate.wait()
        await answer(send, b"the gate opened")

    async def _stop(self, scope: Any, receive: Any, send: Any) -> None:
        self.stop_asked("a request")
        await answer(send, b"leaving")

    async def _refuse(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"too large", status=413)

    async def _broken(self, scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("a mistake in the application")

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Ends by itself when the gate opens, as a feed does when its workspace closes."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await self.gate.wait()
        await send({"type": "http.response.body", "body": b"ended", "more_body": False})

    async def _endless(self, scope: Any, receive: Any, send: Any) -> None:
        """More than any reader takes, and deaf to everything but the end of its connection."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.disconnected.set()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                self.chunks_sent += 1


async def answer(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class TinyEngine:
    """An engine whose stopping is a gate, and which tells what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.begun = trio.Event()
        self.idle = trio.Event()
        self.stopped = trio.Event()
        self.stopped.set()

    def begin_shutdown(self, drain_s: float | None = None) -> None:
        self.asked.append("begin")
        self.begun.set()

    def hurry(self) -> None:
        self.asked.append("hurry")
        self.stopped.set()

    async def wait_stopped(self) -> None:
        await self.stopped.wait()

    async def wait_idle_exit(self) -> None:
        await self.idle.wait()


class Site:
    """A running server, and ways to reach it."""

    def __init__(self, tmp_path: Path) -> None:
        self.app = TinyApp()
        self.engine = TinyEngine()
        self.control = ServerControl()
        self.path = tmp_path / "site.sock"
        self.port = 0
        self.left = trio.Event()
        self.streams: list[trio.SocketStream] = []

    def begin(self, nursery: trio.Nursery, listeners: list[Listener], **options: Any) -> None:
        async def serve() -> None:
            async with open_http(self.app, listeners, self.engine, self.control, **options):
                await self.control.wait_shutdown_requested()
            self.left.set()

        nursery.start_soon(serve)

    async def connect(self, kind: str) -> trio.SocketStream:
        """A connection that is open until the test closes it, or ends."""
        if kind == "unix":
            stream = await trio.open_unix_socket(str(self.path))
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.streams.append(stream)
        return stream

    async def ask(self, kind: str, path: str) -> trio.SocketStream:
        stream = await self.connect(kind)
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return stream

    async def leave(self) -> None:
        """Ask for the shutdown, and insist that it takes no longer than it may."""
        with trio.fail_after(LEAVE_S):
            self.control.request_shutdown("the test is over")
            await self.left.wait()


@asynccontextmanager
async def open_site(
    tmp_path: Path,
    *,
    limits: ServerLimits | None = None,
    handle_signals: bool = False,
    deadline_s: float = DEADLINE_S,
) -> AsyncIterator[Site]:
    site = Site(tmp_path)
    site.app.stop_asked = site.control.request_shutdown
    with trio.fail_after(deadline_s):
        addresses = TcpAddress("127.0.0.1", 0), UnixAddress(site.path)
        async with open_listeners(addresses, backlog=16) as listeners, trio.open_nursery() as nursery:
            site.port = listeners[0].socket.getsockname()[1]
            site.begin(nursery, listeners, limits=limits, handle_signals=handle_signals)
            await site.control.wait_listening()
            try:
                yield site
                site.engine.stopped.set()
                await site.leave()
            finally:
                for stream in site.streams:
                    stream.socket.close()


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    """Read until what was read ends like this, or the peer closes."""
    found = b""
    while not found.endswith(end):
        data = await stream.receive_some()
        if not data:
            break
        found += data
    return found


async def read_all(stream: trio.SocketStream) -> bytes:
    return b"".join([data async for data in stream])


def test_leaving_takes_at_most_three_seconds_once_the_engine_has_stopped() -> None:
    """Whoever does not read; one that reads may take longer to be told everything, if there are many."""
    assert QUIET_TICKS * TICK_S + UNWIND_S + LIFESPAN_S < 3


@pytest.mark.parametrize("kind", KINDS)
async def test_an_application_is_told_over_which_kind_of_socket_it_was_reached(tmp_path: Path, kind: str) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.ask(kind, "/transport")
        assert (await read_until(stream, kind.encode())).startswith(b"HTTP/1.1 200")


async def test_the_addresses_are_announced_with_the_real_port(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        assert site.control.addresses == (f"http://127.0.0.1:{site.port}", f"unix://{site.path}")
        assert site.port != 0


@pytest.mark.parametrize("kind", KINDS)
async def test_what_does_not_fit_into_the_socket_arrives_whole_and_in_order(tmp_path: Path, kind: str) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.ask(kind, "/large")
        body = b""
        while len(body) < 5_000_000:
            body += (await stream.receive_some()).partition(b"\r\n\r\n")[2] if not body else await stream.receive_some()
        assert body == b"".join(b"%09d," % number * 10_000 for number in range(50))


async def test_an_application_that_does_nothing_but_send_lets_others_have_their_turn(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        endless = await site.ask("unix", "/endless")
        await wait_for(lambda: site.app.chunks_sent > 0)
        other = await site.ask("tcp", "/transport")
        answer = b""
        with trio.move_on_after(DEADLINE_S / 2):
            while not answer.endswith(b"tcp"):
                assert await endless.receive_some(1 << 20)
                with trio.move_on_after(0.001):
                    answer += await other.receive_some()
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_reader_that_stalls_is_cut_off_and_its_handler_told(tmp_path: Path, kind: str) -> None:
    async with open_site(tmp_path, limits=ServerLimits(patience_s=0.3)) as site:
        async with await site.ask(kind, "/endless"):
            await site.app.disconnected.wait()
            await wait_for(lambda: site.control.connection_statistics().aborted == 1)
        assert site.control.connection_statistics().open == 0


async def test_a_slow_reader_that_takes_something_is_not_cut_off(tmp_path: Path, mock_clock: MockClock) -> None:
    """The clock stands still unless it is moved, so that nothing here depends on how fast the machine is."""
    async with open_site(tmp_path, limits=ServerLimits(patience_s=20), deadline_s=math.inf) as site:
        stream = await site.ask("unix", "/endless")
        for _ in range(5):
            sent = site.app.chunks_sent
            while site.app.chunks_sent < sent + 2:
                assert await stream.receive_some(65536)
            mock_clock.jump(15)
        assert not site.app.disconnected.is_set()
        await stream.aclose()
        await site.app.disconnected.wait()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_stalled_reader_does_not_hold_the_shutdown_up(tmp_path: Path, kind: str) -> None:
    async with open_site(tmp_path) as site:  # with the patience of a real server, twenty seconds
        for _ in range(3):
            await site.ask(kind, "/endless")
        await wait_for(lambda: site.app.chunks_sent > 0)
        await wait_all_tasks_blocked(0.1)  # nobody's buffers take anything more
        await site.leave()


async def test_who_asks_for_http2_is_served_as_if_it_had_not(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.connect("tcp")
        await stream.send_all(
            b"GET /transport HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        assert (await read_until(stream, b"tcp")).startswith(b"HTTP/1.1 200")


async def test_http2_without_asking_is_refused(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.connect("tcp")
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        await stream.send_all(connection.data_to_send())
        assert (await read_all(stream)).startswith(b"HTTP/1.1 505")


@pytest.mark.parametrize("kind", KINDS)
async def test_idle_and_silent_connections_do_not_delay_the_shutdown(tmp_path: Path, kind: str) -> None:
    async with open_site(tmp_path) as site:
        used = await site.ask(kind, "/transport")
        await read_until(used, kind.encode())
        unused = await site.connect(kind)
        await wait_for(lambda: site.control.connection_statistics().open == 2)
        with trio.fail_after(1.0):  # less than what those still talking are given
            site.control.request_shutdown("test")
            await site.left.wait()
        assert await used.receive_some() == b""
        assert await unused.receive_some() == b""


async def test_a_half_sent_request_does_not_delay_the_shutdown(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.connect("tcp")
        await stream.send_all(b"POST /gated HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        await site.app.entered.wait()
        await site.leave()


async def test_the_engine_stops_before_anything_else_does(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        site.engine.stopped = trio.Event()
        stream = await site.ask("tcp", "/stream")
        await read_until(stream, b"begun\r\n")
        site.control.request_shutdown("test")
        await site.engine.begun.wait()
        during_the_drain = await site.ask("tcp", "/transport")
        assert (await read_until(during_the_drain, b"tcp")).startswith(b"HTTP/1.1 200")

        site.engine.stopped.set()
        site.app.gate.set()
        assert (await read_all(stream)).endswith(b"5\r\nended\r\n0\r\n\r\n")
        await site.left.wait()
        assert not site.path.exists()
        with pytest.raises(OSError, match="connect"):
            await site.connect("tcp")


async def test_an_answer_that_is_on_its_way_at_shutdown_arrives_whole(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.ask("tcp", "/gated")
        await site.app.entered.wait()
        site.control.request_shutdown("test")
        await site.engine.begun.wait()
        site.app.gate.set()
        assert (await read_all(stream)).endswith(b"the gate opened")


async def test_a_request_that_asks_for_the_shutdown_gets_its_answer(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.ask("unix", "/stop")
        assert (await read_all(stream)).endswith(b"leaving")
        await site.left.wait()
        assert site.control.reason == "a request"


@pytest.fixture
def _handlers_put_back() -> Iterator[None]:
    """A server that handles signals leaves them ignored, since its process is about to end. This one is not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers_put_back")
async def test_the_first_signal_drains_and_the_second_hurries(tmp_path: Path) -> None:
    async with open_site(tmp_path, handle_signals=True) as site:
        site.engine.stopped = trio.Event()
        os.kill(os.getpid(), signal.SIGTERM)
        await site.engine.begun.wait()
        assert (site.control.reason, site.engine.asked) == ("SIGTERM", ["begin"])
        os.kill(os.getpid(), signal.SIGINT)
        with trio.fail_after(LEAVE_S):
            await site.left.wait()
        assert site.engine.asked == ["begin", "hurry"]
        os.kill(os.getpid(), signal.SIGTERM)  # one that comes too late does nothing any more


async def test_an_idle_engine_makes_the_server_leave(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        site.engine.idle.set()
        await site.left.wait()


async def test_an_answer_can_be_read_by_who_is_still_sending(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.connect("tcp")
        body = 8 << 20
        await stream.send_all(f"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: {body}\r\n\r\n".encode())
        await stream.send_all(b"x" * body)
        assert (await read_all(stream)).endswith(b"too large")


async def test_an_application_that_leaves_a_body_unread_leaves_no_connection_behind(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.connect("tcp")
        await stream.send_all(
            b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 90000000\r\n\r\n" + b"x" * 2_000_000
        )
        await site.app.entered.wait()
        await wait_for(lambda: site.control.connection_statistics().open == 0)


async def test_connecting_and_closing_without_a_word_is_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_site(tmp_path) as site:
        for _ in range(5):
            await (await site.connect("unix")).aclose()
        await wait_for(lambda: site.control.connection_statistics().accepted == 5)
        await wait_for(lambda: site.control.connection_statistics().open == 0)
    assert not caplog.records


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /transport HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /transport HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /transport HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /transport HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x04\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
    ],
)
async def test_garbage_on_one_connection_reaches_no_other(tmp_path: Path, garbage: bytes) -> None:
    async with open_site(tmp_path) as site:
        other = await site.ask("tcp", "/stream")
        await read_until(other, b"begun\r\n")
        async with await site.connect("tcp") as stream:
            await stream.send_all(garbage)
            await stream.send_eof()
            await read_all_or_reset(stream)
        site.app.gate.set()
        assert (await read_until(other, b"0\r\n\r\n")).endswith(b"ended\r\n0\r\n\r\n")


async def read_all_or_reset(stream: trio.SocketStream) -> None:
    try:
        await read_all(stream)
    except trio.BrokenResourceError:
        return


async def test_a_mistake_in_the_application_is_an_answer_and_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_site(tmp_path) as site:
        stream = await site.ask("tcp", "/broken")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 500")
    assert "Error in ASGI Framework" in caplog.text


async def test_connections_over_the_limit_wait_for_their_turn(tmp_path: Path) -> None:
    async with open_site(tmp_path, limits=ServerLimits(max_connections=2)) as site:
        first = await site.ask("tcp", "/transport")
        await site.ask("unix", "/stream")
        await read_until(first, b"tcp")
        third = await site.ask("tcp", "/transport")
        await wait_all_tasks_blocked(0.05)
        assert site.control.connection_statistics().accepted == 2
        await first.aclose()
        assert (await read_until(third, b"tcp")).startswith(b"HTTP/1.1 200")
        site.app.gate.set()


class Exhausted(socket.socket):
    """A listening socket of a process that has run out of descriptors, for a while."""

    failures = 3

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_running_out_of_descriptors_is_a_pause_and_not_the_end() -> None:
    bound = Exhausted(socket.AF_INET, socket.SOCK_STREAM)
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    bound.setblocking(False)
    port = bound.getsockname()[1]
    listener = Listener(bound, TcpAddress("127.0.0.1", port))
    with trio.fail_after(DEADLINE_S):
        async with open_http(TinyApp(), [listener], TinyEngine(), ServerControl()):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(b"GET /transport HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await read_until(stream, b"tcp")).startswith(b"HTTP/1.1 200")
            assert bound.failures == 0
            await stream.aclose()
