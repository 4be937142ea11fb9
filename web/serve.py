"""The server: sockets, connections and signals around an engine and an ASGI application, started and stopped in order.

    open_listeners          bound first: who cannot listen opens no store and starts no run
    └ open_backend          open before anybody is answered, and closed after the last
      └ one nursery         signals, the accept loops, the application's lifespan, a task for each connection

Leaving: the engine stops accepting, drains, and ends its feeds, so that every stream ends by itself and properly; then
the listeners close; then the connections finish what they are saying; one on which nothing moves any more is cut off.
"""

import errno
import logging
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from typing import Protocol

import msgspec
import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.typing import ASGIFramework, LifespanState

from engine.backend import Backend, open_backend
from engine.errors import ConfigInvalid
from engine.models.settings import ModelSettings
from engine.options import Options
from engine.settings import EngineSettings
from web.address import DEFAULT_HOST, TcpAddress, parse_address
from web.app import create_app
from web.auth import WebSettings
from web.connection import Connections
from web.control import ServerControl
from web.listen import Listener, close_listener, open_listeners

log = structlog.get_logger()

PASS_MAX = 64  # connections accepted before other tasks get a turn
PAUSE_S = 0.1  # how long the accept loop rests when the process has run out of descriptors or memory
QUIET_TICKS = 12  # tenths of a second for which nothing may move on a connection after the engine has stopped
FINISH_S = 10.0  # how long connections on which something moves may go on: a busy server has many answers to finish
UNWIND_S = 0.7  # how long the tasks of connections that were cut off may take to notice
LIFESPAN_S = 0.6  # how long the application's own start, and its own shutdown, may take
WARN_EVERY_S = 60.0  # a server that is full says so this often
DESCRIPTORS_KEPT = 256  # for the store, the models and the tools, beside the connections
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What bounds the connections of a server."""

    backlog: int = 1024  # connections that wait to be accepted
    max_connections: int = 4096
    patience_s: float = 20.0  # how long a reader may take nothing before it is cut off


class Engine(Protocol):
    """What is served, as far as starting and stopping goes. The Backend is one."""

    def begin_shutdown(self, drain_s: float | None = None) -> None:
        """Accept nothing from now on; drain, then cancel."""
        ...

    def hurry(self) -> None:
        """Stop waiting for the drain."""
        ...

    async def wait_stopped(self) -> None:
        """Wait until everything has ended and every feed with it."""
        ...

    async def wait_idle_exit(self) -> None:
        """Wait until nothing was there for so long that the server is to leave."""
        ...


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A whole server."""

    engine: EngineSettings
    models: ModelSettings = ModelSettings()
    options: Options = Options()
    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    web: WebSettings = WebSettings()
    limits: ServerLimits = ServerLimits()


async def serve(settings: ServerSettings, control: ServerControl) -> None:
    """Run a server until it is told to leave: by `control`, by a signal, or by its own idleness.

    SIGTERM and SIGINT drain (R24); a second one skips the drain; a third one cancels everything. Raises ConfigInvalid
    and StoreError, with what to do about it, if it cannot start.
    """
    async with open_server(settings, control, handle_signals=True):
        await control.wait_shutdown_requested()


@asynccontextmanager
async def open_server(
    settings: ServerSettings,
    control: ServerControl,
    *,
    handle_signals: bool = False,
    recover: bool = True,
    open_engine: Callable[..., AbstractAsyncContextManager[Backend]] = open_backend,
) -> AsyncIterator[Backend]:
    """A server inside this process, from the moment it can be called until the context is left, in order.

    Without `recover`, what an earlier server left unfinished is not taken up until somebody opens its workspace.
    `open_engine` is `open_backend`, or that with an agent, tools or a store of the caller's.
    """
    addresses = tuple(map(parse_address, settings.hosts))
    async with open_listeners(addresses, backlog=settings.limits.backlog) as listeners:
        _check_exposure(settings.web, listeners)
        async with open_engine(
            settings.engine, model_settings=settings.models, options=settings.options, recover=recover
        ) as backend:
            app = create_app(backend, _for_addresses(settings, listeners), control)
            async with open_site(
                app, listeners, backend, control, limits=settings.limits, handle_signals=handle_signals
            ):
                yield backend


def _check_exposure(web: WebSettings, listeners: list[Listener]) -> None:
    """Nobody gets in without a token from elsewhere, so whoever asks for that asks for something else than it does."""
    exposed = next((listener for listener in listeners if not listener.is_local), None)
    if web.open_loopback and exposed is not None:
        problem = f"works on loopback alone, and {exposed.url} can be reached from elsewhere; make a token instead"
        raise ConfigInvalid("no-token", problem)


def _for_addresses(settings: ServerSettings, listeners: list[Listener]) -> WebSettings:
    """The web settings, completed by where the server listens."""
    names = {listener.address.host for listener in listeners if isinstance(listener.address, TcpAddress)}
    # Crush's client asks every server on a Unix socket that is not of its own build to leave, and puts its own in the
    # place. One that was not told when to leave stays.
    stays = settings.engine.idle_timeout_s is None and any(each.transport == "unix" for each in listeners)
    return msgspec.structs.replace(
        settings.web,
        allowed_hosts=(*settings.web.allowed_hosts, *sorted(names)),
        leave_when_idle=settings.web.leave_when_idle and not stays,
    )


@asynccontextmanager
async def open_site(
    app: ASGIFramework,
    listeners: list[Listener],
    engine: Engine,
    control: ServerControl,
    *,
    limits: ServerLimits | None = None,
    handle_signals: bool = False,
) -> AsyncIterator[None]:
    """Serve `app` on `listeners` until the context is left; then stop everything, in order.

    `control` tells when it listens, and is asked for a shutdown by signals, if they are handled, and by an engine that
    is idle. `listeners` stay the caller's to close, which does nothing after an orderly end. Signals that are handled
    are ignored from the end on: the process is about to leave, and a late one must not make it look like a failure.
    """
    limits = limits or ServerLimits()
    wrapped = ASGIWrapper(app)
    config = _hypercorn_config()
    connections = Connections(wrapped, config, limit=_affordable(limits), patience_s=limits.patience_s)
    state: LifespanState = {}
    lifespan = Lifespan(wrapped, config, state)
    signals: AbstractContextManager[AsyncIterator[int] | None] = _take_signals() if handle_signals else nullcontext()
    with signals as received:
        async with trio.open_nursery() as nursery:
            await nursery.start(lifespan.handle_lifespan)
            await lifespan.wait_for_startup()
            if received is not None:
                nursery.start_soon(_watch_signals, received, engine, control, nursery.cancel_scope)
            nursery.start_soon(_watch_idleness, engine, control)
            for listener in listeners:
                nursery.start_soon(_accept, listener, connections, nursery)
            control.announce(tuple(listener.url for listener in listeners), connections.statistics)
            yield
            log.info("shutdown_begun", reason=control.reason)
            engine.begin_shutdown()
            await engine.wait_stopped()
            for listener in listeners:
                close_listener(listener)
            await _finish(connections)
            await _end_lifespan(lifespan)
            nursery.cancel_scope.cancel()


@contextmanager
def _take_signals() -> Iterator[AsyncIterator[int]]:
    numbers = signal.SIGTERM, signal.SIGINT
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)  # what the receiver will put back
    with trio.open_signal_receiver(*numbers) as received:
        yield received


async def _watch_idleness(engine: Engine, control: ServerControl) -> None:
    await engine.wait_idle_exit()
    control.request_shutdown("nothing was open for a while")


async def _finish(connections: Connections) -> None:
    """Let the connections end by themselves; then cut off those that do not, at once if nothing moves on them."""
    await connections.begin_close()
    aborted = 0
    with trio.move_on_after(FINISH_S):
        aborted = await connections.finish(ticks=QUIET_TICKS)
    aborted += connections.abort_all()
    if aborted:
        log.warning("connections_cut_off", count=aborted)
    with trio.move_on_after(UNWIND_S):
        await connections.wait_empty()


async def _end_lifespan(lifespan: Lifespan) -> None:
    with trio.move_on_after(LIFESPAN_S) as bound:
        await lifespan.wait_for_shutdown()
    if bound.cancelled_caught:
        log.warning("application_shutdown_timed_out", after_s=LIFESPAN_S)


async def _watch_signals(
    received: AsyncIterator[int], engine: Engine, control: ServerControl, everything: trio.CancelScope
) -> None:
    count = 0
    async for number in received:
        count += 1
        name = signal.Signals(number).name
        if not control.is_shutdown_requested:
            control.request_shutdown(name)
        elif count <= 2:
            log.info("shutdown_hurried", signal=name)
            engine.hurry()
            control.hurry()
        else:
            log.warning("shutdown_forced", signal=name)
            control.force()
            everything.cancel()


async def _accept(listener: Listener, connections: Connections, nursery: trio.Nursery) -> None:
    """Accept connections until the listener is closed. Each pass takes all that wait: with one a pass, as Trio's own
    loop does it, a busy server keeps newcomers waiting a scheduler pass each."""
    warned = -WARN_EVERY_S
    try:
        while True:
            await connections.wait_room()
            if listener.socket.fileno() < 0:
                return  # closed while this task was elsewhere: nobody would tell it any more
            await trio.lowlevel.wait_readable(listener.socket)
            problem = _accept_waiting(listener, connections, nursery)
            if problem is not None and trio.current_time() - warned >= WARN_EVERY_S:
                log.warning("accept_waits", problem=problem, open=connections.statistics().open)
                warned = trio.current_time()
            if problem is not None:
                await trio.sleep(PAUSE_S)
    except trio.ClosedResourceError:
        await trio.lowlevel.checkpoint()


def _accept_waiting(listener: Listener, connections: Connections, nursery: trio.Nursery) -> str | None:
    """Accept what waits, within bounds; says what there is no more of."""
    for _ in range(PASS_MAX):
        if not connections.has_room:
            return "as many connections are open as are allowed"
        try:
            accepted, _ = listener.socket.accept()
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in EXHAUSTED:
                return error.strerror
            continue  # this one connection was gone before it was accepted
        _admit(accepted, listener, connections, nursery)
    return None


def _admit(accepted: socket.socket, listener: Listener, connections: Connections, nursery: trio.Nursery) -> None:
    try:
        connection = connections.add(accepted)
    except OSError:
        accepted.close()  # the peer has gone already: a socket like that takes no options any more
        return
    nursery.start_soon(connections.serve, connection, listener.transport)


def _affordable(limits: ServerLimits) -> int:
    """How many connections the process has descriptors for. Its soft limit is raised as far as needed and allowed."""
    wanted = limits.max_connections + DESCRIPTORS_KEPT
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits.max_connections
    affordable = max(soft - DESCRIPTORS_KEPT, soft // 2)
    log.warning("few_descriptors", max_connections=affordable, wanted=limits.max_connections)
    return affordable


def _hypercorn_config() -> Config:
    config = Config()
    # To the standard library's root logger, and so to web.logs. Requests are the application's to log.
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    # An HTTP/2 connection stalls when it reaches the stock limit of a thousand requests.
    config.keep_alive_max_requests = 10**9
    config.startup_timeout = config.shutdown_timeout = LIFESPAN_S
    return config
