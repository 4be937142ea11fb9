"""The whole service on real sockets, in this process: an engine, the application, the server, and clients of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from engine.agents.protocol import Agent
from engine.backend import Backend, open_backend
from engine.settings import EngineSettings
from web.address import TcpAddress, UnixAddress
from web.app import create_app
from web.auth import TokenStore, WebSettings
from web.client import CountermandClient, open_client
from web.control import ServerControl
from web.listen import open_listeners
from web.serve import open_site

DEADLINE_S = 20.0  # of a whole test; nothing waits for it


async def wait_for(condition: Callable[[], object]) -> None:
    """Wait, a scheduler pass at a time, for something that other tasks bring about. The test's deadline bounds it."""
    while True:
        if condition():
            return
        await trio.lowlevel.checkpoint()


class LiveSite:
    """A running service. `client` speaks to it over its Unix socket, and so as its owner."""

    def __init__(self, backend: Backend, control: ServerControl, client: CountermandClient, root: Path) -> None:
        self.backend = backend
        self.control = control
        self.client = client
        self.root = root
        self.unix = f"unix://{root}/site.sock"
        self.tcp = control.addresses[1].replace("http", "tcp", 1)
        self.tokens = TokenStore(root / "tokens.json")

    async def open_session(self) -> tuple[str, str]:
        """A workspace that is kept, and a session in it."""
        workspace = await self.client.create_workspace(str(self.root))
        return workspace.id, (await self.client.create_session(workspace.id, "a session")).id


@asynccontextmanager
async def open_live(
    root: Path, agent: Agent | None = None, *, data_dir: Path | None = None, deadline_s: float = DEADLINE_S
) -> AsyncIterator[LiveSite]:
    """Open the service over a directory, in memory unless there is a `data_dir`. On the real clock, one deadline."""
    control = ServerControl()
    addresses = UnixAddress(root / "site.sock"), TcpAddress("127.0.0.1", 0)
    web = WebSettings(token_file=root / "tokens.json", access_log_every=0)
    with trio.fail_after(deadline_s):
        async with (
            open_listeners(addresses, backlog=16) as listeners,
            open_backend(EngineSettings(data_dir=data_dir, drain_s=0), environ={}, agent=agent) as backend,
            open_site(create_app(backend, web, control), listeners, backend, control),
            open_client(f"unix://{root}/site.sock") as client,
        ):
            yield LiveSite(backend, control, client, root)
