"""What we rely on in Hypercorn's Trio worker, and what it does that we work around. To be run before it is upgraded.

All in memory and on a virtual clock: a stream that is a script stands in for the socket.
"""

import inspect
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

import h2.connection
import pytest
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"


class ScriptedSocket:
    """The three things that Hypercorn asks a socket for."""

    family = socket.AF_UNIX

    def getpeername(self) -> str:
        return ""

    def getsockname(self) -> str:
        return ""


class ScriptedStream:
    """Every method that Hypercorn calls on a stream, and no other: what is missing would be an AttributeError."""

    def __init__(self) -> None:
        self.socket = ScriptedSocket()
        self.to_server, self._incoming = trio.open_memory_channel[bytes](10)
        self.sent = b""
        self.closed = trio.Event()
        self.send_hook: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint

    async def receive_some(self, max_bytes: int) -> bytes:
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            return b""

    async def send_all(self, data: bytes) -> None:
        await self.send_hook()
        self.sent += data

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed.set()
        await trio.lowlevel.checkpoint()


class Talk:
    """One connection of an application with a scripted peer."""

    def __init__(self, app: Any, **settings: Any) -> None:
        self.stream = ScriptedStream()
        self.context = WorkerContext(None)
        self.config = Config()
        self.config.errorlog = None
        for name, value in settings.items():
            setattr(self.config, name, value)
        self.server = TCPServer(
            ASGIWrapper(app),
            self.config,
            self.context,
            ConnectionState({"transport": "unix"}),
            cast("trio.SSLStream[trio.SocketStream]", self.stream),
        )


async def answer(send: Any, body: bytes = b"") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, b"hello")


def test_the_connection_class_takes_what_we_give_it() -> None:
    assert list(inspect.signature(TCPServer).parameters) == ["app", "config", "context", "state", "stream"]
    assert inspect.iscoroutinefunction(TCPServer._read_data)


async def test_a_stream_needs_no_more_than_our_connection_has(autojump_clock: MockClock) -> None:
    talk = Talk(hello)
    await talk.stream.to_server.send(GET)
    await talk.stream.to_server.aclose()
    with trio.fail_after(10):
        await talk.server
    assert talk.stream.sent.startswith(b"HTTP/1.1 200")
    assert talk.stream.closed.is_set()


async def test_the_state_reaches_each_request_as_a_copy(autojump_clock: MockClock) -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["state"]))
        scope["state"]["leaked"] = True
        await answer(send)

    talk = Talk(app)
    await talk.stream.to_server.send(GET + GET)
    await talk.stream.to_server.aclose()
    await talk.server
    assert seen == [{"transport": "unix"}, {"transport": "unix"}]


async def test_over_a_unix_socket_nobody_has_an_address(autojump_clock: MockClock) -> None:
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([scope["client"], scope["server"]])
        await answer(send)

    talk = Talk(app)
    await talk.stream.to_server.send(GET)
    await talk.stream.to_server.aclose()
    await talk.server
    assert seen == [None, None]


async def test_the_target_is_handed_on_as_it_was_sent(autojump_clock: MockClock) -> None:
    seen: list[tuple[object, object, object]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["path"], scope["raw_path"], scope["query_string"]))
        await answer(send)

    talk = Talk(app)
    for target in (b"http://other/v1/x?a=1", b"/v1/a%24%2Fb?c=%20"):
        await talk.stream.to_server.send(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    await talk.stream.to_server.aclose()
    await talk.server
    assert seen == [
        ("http://other/v1/x", b"http://other/v1/x", b"a=1"),
        ("/v1/a$/b", b"/v1/a%24%2Fb", b"c=%20"),
    ]


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_a_send_that_fails_is_told_to_the_application_as_a_disconnect(
    autojump_clock: MockClock, error: type[Exception]
) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not told:
            message = await receive()
            if message["type"] == "http.disconnect":
                told.append("disconnected")

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error("gone")

    talk = Talk(app)
    talk.stream.send_hook = fail
    await talk.stream.to_server.send(GET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.server.run)
        await wait_all_tasks_blocked()
        assert told == ["disconnected"]
        nursery.cancel_scope.cancel()


async def test_the_end_of_what_the_peer_sends_is_told_as_a_disconnect(autojump_clock: MockClock) -> None:
    told = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        told.set()

    talk = Talk(app)
    await talk.stream.to_server.send(GET)
    await talk.stream.to_server.aclose()
    with trio.fail_after(10):
        await talk.server
    assert told.is_set()


async def test_stock_sends_under_a_shield_and_only_the_stream_can_end_it(autojump_clock: MockClock) -> None:
    """The defect that our Connection is for: the cancellation at 1 s is not noticed before the send ends, at 90 s."""

    async def take_long() -> None:
        await trio.sleep(90)

    talk = Talk(hello)
    talk.stream.send_hook = take_long
    await talk.stream.to_server.send(GET)
    began = trio.current_time()
    with trio.move_on_after(1):
        await talk.server
    assert trio.current_time() - began >= 90


async def test_stock_keeps_a_connection_whose_peer_has_gone_until_its_keep_alive_runs_out(
    autojump_clock: MockClock,
) -> None:
    """The defect that our subclass's `_read_data` is for."""
    talk = Talk(hello, keep_alive_timeout=30)
    await talk.stream.to_server.aclose()
    began = trio.current_time()
    await talk.server
    assert trio.current_time() - began == 30


async def test_stock_forgets_to_close_connections_when_quart_trio_answers(autojump_clock: MockClock) -> None:
    """The defect that our `_Server` is for: Quart-Trio cancels the task in which Hypercorn begins the idle time of the
    connection, if it gets to it in time. How often that is, is a matter of scheduling."""
    app = QuartTrio("stack")

    @app.get("/x")
    async def hello() -> str:
        return "hello"

    talks = [Talk(app, keep_alive_timeout=30) for _ in range(30)]
    async with trio.open_nursery() as nursery:
        for talk in talks:
            await talk.stream.to_server.send(GET)
            nursery.start_soon(talk.server.run)
        await trio.sleep(3600)
        assert all(b"hello" in talk.stream.sent for talk in talks)
        assert any(not talk.stream.closed.is_set() for talk in talks)
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_closes_when_the_server_begins_to_leave(autojump_clock: MockClock) -> None:
    talk = Talk(hello, keep_alive_timeout=3600)
    await talk.stream.to_server.send(GET)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.server.run)
        await wait_all_tasks_blocked()
        assert not talk.stream.closed.is_set()
        await talk.context.terminated.set()
        await talk.stream.closed.wait()
        assert trio.current_time() == began
        nursery.cancel_scope.cancel()


async def test_a_busy_connection_answers_and_then_closes_when_the_server_leaves(autojump_clock: MockClock) -> None:
    gate = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()
        await answer(send, b"hello")

    talk = Talk(app, keep_alive_timeout=3600)
    await talk.stream.to_server.send(GET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.server.run)
        await wait_all_tasks_blocked()
        await talk.context.terminated.set()
        await wait_all_tasks_blocked()
        assert not talk.stream.closed.is_set()
        gate.set()
        await talk.stream.closed.wait()
        assert talk.stream.sent.endswith(b"5\r\nhello\r\n0\r\n\r\n")
        nursery.cancel_scope.cancel()


async def test_a_request_that_does_not_come_is_given_up_after_the_keep_alive(autojump_clock: MockClock) -> None:
    talk = Talk(hello, keep_alive_timeout=30)
    await talk.stream.to_server.send(GET[:-2])
    began = trio.current_time()
    with trio.move_on_after(3600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.server.run)
            await talk.stream.closed.wait()
            assert trio.current_time() - began == 30
            nursery.cancel_scope.cancel()


async def test_a_head_that_is_too_large_is_refused(autojump_clock: MockClock) -> None:
    talk = Talk(hello)
    await talk.stream.to_server.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000)
    with trio.fail_after(10):
        await talk.stream.to_server.aclose()
        await talk.server
    assert talk.stream.sent.startswith(b"HTTP/1.1 431")


async def test_an_application_that_raises_is_answered_for(autojump_clock: MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a mistake")

    talk = Talk(app)
    await talk.stream.to_server.send(GET)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.server.run)
        await wait_all_tasks_blocked()
        assert talk.stream.sent.startswith(b"HTTP/1.1 500")
        nursery.cancel_scope.cancel()


async def test_stock_http2_buffers_without_bound_for_a_peer_that_opens_no_window(autojump_clock: MockClock) -> None:
    """The defect for which our connections speak HTTP/1.1 alone: none of these sends waits for anybody."""
    taken: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(100):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            taken.append(number)
        await trio.sleep_forever()

    peer = h2.connection.H2Connection()
    peer.initiate_connection()
    headers = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
    peer.send_headers(1, headers, end_stream=True)
    talk = Talk(app)
    await talk.stream.to_server.send(peer.data_to_send())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.server.run)
        await wait_all_tasks_blocked()
        assert len(taken) == 100
        assert len(talk.stream.sent) < 2 * 65536
        nursery.cancel_scope.cancel()


def test_the_protocol_is_built_from_what_we_hand_on() -> None:
    """Our HTTP/1.1 is made of the attributes of the one that it replaces."""
    names = ["app", "config", "context", "task_group", "connection_state", "ssl", "client", "server", "send"]
    assert list(inspect.signature(H11Protocol).parameters) == names
    for name in ("_check_protocol", "_create_stream", "_send_error_response"):
        assert inspect.iscoroutinefunction(getattr(H11Protocol, name))


def test_the_stock_limit_of_requests_on_a_connection_is_one_that_we_must_raise() -> None:
    assert Config().keep_alive_max_requests == 1000


async def test_the_server_header_can_be_left_out(autojump_clock: MockClock) -> None:
    talk = Talk(hello, include_server_header=False)
    await talk.stream.to_server.send(GET)
    await talk.stream.to_server.aclose()
    await talk.server
    assert b"hypercorn" not in talk.stream.sent.lower()


async def test_the_lifespan_is_started_before_and_ended_after(autojump_clock: MockClock) -> None:
    told: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while "lifespan.shutdown" not in told:
            told.append((await receive())["type"])
            await send({"type": told[-1] + ".complete"})

    lifespan = Lifespan(ASGIWrapper(app), Config(), {})
    async with trio.open_nursery() as nursery:
        await nursery.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        assert told == ["lifespan.startup"]
        await lifespan.wait_for_shutdown()
    assert told == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_application_without_a_lifespan_is_served_all_the_same(autojump_clock: MockClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise AssertionError(f"cannot do {scope['type']}")

    config = Config()
    config.errorlog = None
    lifespan = Lifespan(ASGIWrapper(app), config, {})
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            await lifespan.wait_for_shutdown()
