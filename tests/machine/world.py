"""The world of one example: its servers, one after another over one store, and the clients that deal with them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import trio
import trio.testing

from engine.settings import EngineSettings
from tests.doubles.asgi_client import AsgiClient
from tests.doubles.invariants import check_invariants
from tests.explorer.disk import DIRECTORY, Memory
from tests.explorer.leftovers import leftovers
from tests.explorer.scenario import Disk
from tests.machine.account import Account, read_account
from tests.machine.ledger import Call, Ledger
from tests.machine.model import HeldModel
from tests.machine.readers import Reader
from tests.machine.server import Server

REST_S = 400.0  # virtual seconds until everything must be at rest
GLANCE_S = 0.25  # between two looks whether it is
UNWIND_S = 3.0
ANSWER_TURNS = 200  # of the scheduler; nothing that is waited for without time takes more

MEMORY = Memory()


class World:
    """Everything of one example. Its methods are called in Trio's main task."""

    def __init__(self, nursery: trio.Nursery, *, lags: Disk, slots: int, queue: int) -> None:
        self.ledger = Ledger()
        self.model = HeldModel(self.ledger)
        self.readers: list[Reader] = []
        self.w = ""
        self.queue = queue
        self._nursery = nursery
        self._lags = lags
        self._settings = EngineSettings(max_active_runs=slots, queue_per_session=queue, settle_s=1.0, unwind_s=UNWIND_S)
        self._database = MEMORY.emptied()
        self.server = self._next_server()

    @property
    def is_reachable(self) -> bool:
        """Whether a server listens."""
        return self.server.is_reachable

    async def begin(self) -> None:
        """Wait for the first server, and open the workspace."""
        await self.listening()
        await self.ask(Call(kind="open", method="POST", path="/v1/workspaces", body=OPEN))

    async def listening(self) -> None:
        """Wait until the server listens, or is gone."""
        while not self.server.is_reachable and not self.server.is_gone.is_set():
            await trio.lowlevel.checkpoint()

    def start_server(self) -> None:
        """Start another server over the same store."""
        assert self.server.is_gone.is_set()
        self.server = self._next_server()

    def send(self, call: Call) -> Call:
        """Send a request, and go on; if nobody listens, it comes to nothing."""
        client = self.server.client
        if client is not None:
            self.ledger.begin(call)
            self.server.connections.start_soon(self._exchange, client, call)
        return call

    async def ask(self, call: Call) -> Call:
        """Send a request, and wait for its answer."""
        client = self.server.client
        assert client is not None
        self.ledger.begin(call)
        await self._exchange(client, call)
        return call

    def connect(self, reader: Reader, start: str | None, *, by_header: bool) -> None:
        """Let a reader connect; if nobody listens, it does not."""
        client = self.server.client
        if client is not None:
            read: Callable[..., Any] = partial(reader.read, client, self.w, start, by_header=by_header)
            self.server.connections.start_soon(read)

    async def pause(self, passes: int | None) -> None:
        """Let others run so many turns of the scheduler; None: until nothing moves any more."""
        if passes is None:
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(passes or 0):
            await trio.lowlevel.checkpoint()

    async def sleep(self, seconds: float) -> None:
        """Let time pass; every deadline in it comes in its turn."""
        self.ledger.tell(f"{seconds:g} s pass")
        await trio.sleep(seconds)

    async def kill(self, *, once: Call | None = None) -> None:
        """Kill the server, at once or in the step in which this is answered, and wait until it is gone."""
        for _ in range(ANSWER_TURNS):
            if once is None or once.status:
                break
            await trio.lowlevel.checkpoint()
        if not self.server.is_gone.is_set():
            self.server.kill()
        await self.server.is_gone.wait()

    async def rest(self) -> Account:
        """Bring everything to its end, read all of it as a client does, and look that nothing is left over."""
        self.ledger.tell("everything comes to rest")
        self.model.release_all()
        with trio.move_on_after(REST_S) as limit:
            await self._come_to_rest()
        if limit.cancelled_caught:
            self.ledger.violate(f"not at rest after {REST_S:.0f} s (R22)")
        await self._check_readers()
        account = await read_account(self)
        await self._check_leftovers()
        return account

    async def end(self) -> None:
        """Stop the last server."""
        if not self.server.is_gone.is_set():
            self.server.stop(0.0)
            await self.server.is_gone.wait()

    def _next_server(self) -> Server:
        server = Server(self._database, self._lags, self.ledger)
        server.disk.is_at_once = server.number == 1
        self._nursery.start_soon(server.live, self._settings, self.model)
        return server

    async def _exchange(self, client: AsgiClient, call: Call) -> None:
        with call.scope:
            answer = await client.request(call.method, call.path, body=call.body, headers=call.headers)
            told: Any = msgspec.json.decode(answer.body) if answer.body else None
            self.ledger.answer(call, answer.status, told)
            if call.kind == "open" and answer.status == 200:
                self.w = f"/v1/workspaces/{told['id']}"

    async def _come_to_rest(self) -> None:
        if self.server.is_ending:
            await self.server.is_gone.wait()
        if self.server.is_gone.is_set():
            self.start_server()
        await self.listening()
        while True:
            if not self._is_busy():
                break
            await trio.sleep(GLANCE_S)
        backend = self.server.backend
        assert backend is not None
        if not backend.workspaces():
            await self.ask(Call(kind="open", method="POST", path="/v1/workspaces", body=OPEN))
        await trio.testing.wait_all_tasks_blocked()

    def _is_busy(self) -> bool:
        backend, number = self.server.backend, self.server.number
        assert backend is not None
        waiting = [
            call
            for call in self.ledger.calls
            if call.server == number and not call.status and not call.scope.cancel_called
        ]
        runs = [run for workspace in backend.workspaces() for run in workspace.lanes.all_runs()]
        return bool(waiting or runs or backend.reopening.all())

    async def _check_readers(self) -> None:
        """A reader of the workspace that is connected has got everything by now (R28)."""
        latest = max(self.ledger.durable, default=0)
        for reader in self.readers:
            leg = reader.legs[-1] if reader.legs else None
            if leg is None or not leg.is_open:
                continue
            if reader.run_id is not None:
                self.ledger.violate(f"reader {reader.name} waits for a run that has ended (R28)")
            elif leg.start is not None and leg.last != latest:
                self.ledger.violate(f"reader {reader.name} was shown up to {leg.last} of {latest} (R28)")
            reader.detach()
        await trio.testing.wait_all_tasks_blocked()

    async def _check_leftovers(self) -> None:
        backend = self.server.backend
        assert backend is not None
        for what in leftovers(backend):
            self.ledger.violate(what)
        for workspace in backend.workspaces():
            try:
                await check_invariants(backend, workspace)
            except AssertionError as error:
                self.ledger.violate(str(error))


OPEN = msgspec.json.encode({"path": DIRECTORY})
