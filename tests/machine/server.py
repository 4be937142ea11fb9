"""One server of an example: the engine over the store that all of them share, and the application in front of it."""

from contextlib import nullcontext
from functools import cache
from typing import Any, cast

import trio
import trio.testing

from engine.backend import Backend, open_backend
from engine.errors import StoreUnavailable
from engine.settings import EngineSettings
from engine.store.open import Database
from tests.doubles.asgi_client import AsgiApp, AsgiClient
from tests.explorer.disk import ExploredDisk
from tests.explorer.scenario import Disk
from tests.explorer.toolbox import WaitTool
from tests.machine.ledger import Ledger
from tests.machine.model import HeldModel
from web.app import create_app
from web.auth import WebSettings
from web.control import ServerControl


class BehindApp:
    """Stands in for the engine behind the application: it is that of the server that lives now. There is one
    application, since to make one takes as long as a whole example."""

    backend: Backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


BEHIND_APP = BehindApp()


@cache
def make_app() -> AsgiApp:
    """The application."""
    return create_app(cast("Backend", BEHIND_APP), WebSettings(), ServerControl())


class Server:
    """A server, from its start to its end. Connections to it end with it."""

    def __init__(self, database: Database, lags: Disk, ledger: Ledger) -> None:
        ledger.server += 1
        self.number = ledger.server
        self.disk = ExploredDisk(database, lags, on_commit=ledger.commit, on_death=self._die)
        self.backend: Backend | None = None
        self.client: AsgiClient | None = None
        self.connections: trio.Nursery
        self.is_gone = trio.Event()
        self._ledger = ledger
        self._ended = trio.Event()  # somebody stops or kills it
        self._drain_s = 0.0
        self._life = trio.CancelScope()

    @property
    def is_reachable(self) -> bool:
        """Whether somebody listens."""
        return self.client is not None

    @property
    def is_ending(self) -> bool:
        """Whether it was told to stop, or killed."""
        return self.number in self._ledger.stops

    def stop(self, drain_s: float) -> None:
        """Stop it, as SIGTERM does (R24)."""
        self._ledger.tell(f"server {self.number} is told to stop within {drain_s:g} s")
        self._ledger.stops.setdefault(self.number, self._ledger.tick())
        self._ledger.drains.add(self.number)
        self._drain_s = drain_s
        self._ended.set()

    def kill(self) -> None:
        """Kill it, as SIGKILL does (R25)."""
        self.disk.die()

    async def live(self, settings: EngineSettings, model: HeldModel) -> None:
        """Serve until it is stopped or killed."""
        try:
            async with trio.open_nursery() as self.connections:
                with self._life:
                    async with open_backend(
                        settings, environ={}, agent=model, tools={WaitTool.name: WaitTool()},
                        open_store=lambda _: nullcontext(self.disk),
                    ) as self.backend:  # fmt: skip
                        self._ledger.tell(f"server {self.number} listens")
                        BEHIND_APP.backend = self.backend
                        self.client = AsgiClient(make_app())
                        await self._ended.wait()
                        self.backend.begin_shutdown(self._drain_s)
                        await self.backend.wait_stopped()
                        # As web.serve does it: what still moves may end, and nobody is waited for.
                        await trio.testing.wait_all_tasks_blocked()
                        self.client = None
                self.connections.cancel_scope.cancel()
        except* StoreUnavailable:
            if not self.disk.is_dead:
                raise
        finally:
            self.client = self.backend = None
            self._ledger.tell(f"server {self.number} is gone")
            self.is_gone.set()

    def _die(self) -> None:
        self._ledger.tell(f"server {self.number} is killed")
        self._ledger.stops.setdefault(self.number, self._ledger.tick())
        self._ledger.kills.add(self.number)
        self.client = None
        self.connections.cancel_scope.cancel()
        self._life.cancel()
