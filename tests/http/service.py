"""The whole service with the engine's seams in a test's hand: in process over ASGI, or over real sockets."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from engine.backend import open_backend
from engine.models.settings import ModelSettings
from engine.settings import EngineSettings
from engine.store.protocol import Store
from tests.doubles.asgi_client import Response, Stream
from tests.doubles.engine import ScriptedAgent
from tests.doubles.holding_store import HoldingStore
from tests.doubles.live_server import Connection
from tests.web.api import Api
from web.address import TcpAddress
from web.app import create_app
from web.auth import WebSettings
from web.control import ServerControl
from web.listen import open_listeners
from web.serve import ServerLimits, open_site

SOCKETS_S = 30.0  # bound of a test with real sockets; each takes far less


class Service(Api):
    """The service, its store, and its workspace."""

    store: HoldingStore

    @property
    def workspace(self) -> Any:
        """The engine's side of it."""
        return self.backend.workspace(self.w.rpartition("/")[2])

    async def cancel(self, run_id: str | None = None, *, session_id: str | None = None) -> dict[str, Any]:
        """Cancel the run, or everything in the session; the body of the answer."""
        path = f"runs/{run_id}/cancel" if run_id else f"agent/sessions/{session_id or self.session_id}/cancel"
        body: dict[str, Any] = body_of(await self.client.post(f"{self.w}/{path}"))
        return body

    async def run(self, run_id: str) -> dict[str, Any]:
        """A run as it is now."""
        body: dict[str, Any] = body_of(await self.client.get(f"{self.w}/runs/{run_id}"))
        return body

    async def turns(self, session_id: str | None = None) -> list[tuple[str, str, str]]:
        """Role, text and finish of each stored message of the session."""
        messages = body_of(await self.client.get(f"{self.w}/sessions/{session_id or self.session_id}/messages"))
        return [(message["role"], text_of(message), finish_of(message)) for message in messages]

    async def log(self) -> list[dict[str, Any]]:
        """Every event that is in the log now, read as a stream would."""
        latest = (await self.workspace.event_range()).latest
        events: list[dict[str, Any]] = []
        async with self.client.stream("GET", f"{self.w}/events?cursor=earliest") as stream:
            while len(events) < latest:
                events.append(await stream.receive_event())
        assert [int(event["id"]) for event in events] == list(range(1, latest + 1)), "numbers have a gap (R27)"
        return events

    async def endings(self) -> dict[str, list[dict[str, Any]]]:
        """The terminal events of each run."""
        found: dict[str, list[dict[str, Any]]] = {}
        for event in await self.log():
            if event["type"] == "run_complete":
                found.setdefault(payload(event)["run_id"], []).append(payload(event))
        return found


def body_of(answer: Response) -> Any:
    """The body of an answer that must be a success."""
    assert 200 <= answer.status < 300, answer
    return answer.json()


def text_of(message: dict[str, Any]) -> str:
    """What a message says."""
    return "".join(part["data"]["text"] for part in message["parts"] if part["type"] == "text")


def finish_of(message: dict[str, Any]) -> str:
    """How a message ended; empty while it has not."""
    return next((part["data"]["reason"] for part in message["parts"] if part["type"] == "finish"), "")


def payload(event: dict[str, Any]) -> dict[str, Any]:
    """What the event is about."""
    found: dict[str, Any] = event["payload"]["payload"]
    return found


async def read_to_end(stream: Stream) -> list[dict[str, Any]]:
    """The events of a stream that ends, and must end well."""
    events = []
    try:
        while True:
            events.append(await stream.receive_event())
    except trio.EndOfChannel:
        assert stream.has_ended_properly
        return events


@asynccontextmanager
async def open_service(
    root: Path,
    *,
    agent: Any = None,
    before_entry: Callable[[Any], Any] | None = None,
    tools: Any = None,
    model_settings: ModelSettings | None = None,
    web: WebSettings | None = None,
    data_dir: Path | None = None,
    environ: dict[str, str] | None = None,
    with_agent: bool = True,
    kind: type[Service] = Service,
    **settings: Any,
) -> AsyncIterator[Service]:
    """Open the service over a directory, in memory unless there is a `data_dir`.

    `agent` answers the prompts; without one they are repeated, or go to a model if it is not `with_agent`.
    """
    stores: list[HoldingStore] = []

    def wrap(store: Store) -> Store:
        stores.append(HoldingStore(store))
        return stores[0]

    async with open_backend(
        EngineSettings(data_dir=data_dir, **settings), environ=environ or {}, model_settings=model_settings,
        agent=(agent or ScriptedAgent()) if with_agent else None, tools=tools or {}, before_entry=before_entry,
        wrap_store=wrap,
    ) as backend:  # fmt: skip
        control = ServerControl()
        service = kind(backend, create_app(backend, web or WebSettings(), control), control, root)
        service.store = stores[0]
        service.w = f"/v1/workspaces/{(await service.create_workspace())['id']}"
        service.session_id = await service.create_session()
        yield service


class SocketService(Service):
    """The same, reached through sockets of this process."""

    port: int

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """A connection of its own. Leaving closes it, whatever is on its way."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            yield Connection(stream, {"Host": f"127.0.0.1:{self.port}"})


@asynccontextmanager
async def open_socket_service(
    root: Path, *, limits: ServerLimits | None = None, **options: Any
) -> AsyncIterator[SocketService]:
    """Open the service and serve it on a port of 127.0.0.1, within one deadline. For tests on the real clock."""
    with trio.fail_after(SOCKETS_S):
        async with (
            open_service(
                root, kind=SocketService, web=WebSettings(open_loopback=True), drain_s=0, **options
            ) as service,
            open_listeners((TcpAddress("127.0.0.1", 0),), backlog=1024) as listeners,
            open_site(service.app, listeners, service.backend, service.control, limits=limits),
        ):
            assert isinstance(service, SocketService)
            service.port = listeners[0].socket.getsockname()[1]
            yield service
