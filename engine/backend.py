"""Backend: the workspaces of one server, by id and by resolved path, and their ordered end."""

import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec
import trio

from engine import __version__
from engine.agents.coder import CoderAgent
from engine.agents.protocol import Agent, Titler
from engine.agents.title import ModelTitler
from engine.clock import Clock
from engine.directory import find_directory
from engine.errors import ClientRetired, NotFound, ServerStopping, WorkspaceUnavailable
from engine.events.local_bus import LocalBus
from engine.events.log import EventLog, EventLogStatistics, Pending
from engine.events.pruning import Pruner
from engine.host import close_unclaimed
from engine.hosts import Hosts, Place
from engine.model_choice import ModelChoice, Size
from engine.models.catalog import MODEL_ENV, Models, open_models
from engine.models.settings import ModelSettings, key_variables
from engine.options import Options
from engine.preferences import PreferenceStore
from engine.records.change import Change, PutSetting
from engine.records.ids import ClientId, WorkspaceId
from engine.reopening import KEPT, Reopening
from engine.runs.run import BeforeEntry
from engine.settings import EngineSettings
from engine.store.protocol import Store
from engine.store.sqlite import open_sqlite_store
from engine.tools.environment import command_environment
from engine.tools.toolbox import Toolbox, Tools, chosen_toolbox
from engine.workspace import Workspace
from engine.workspace_seams import WorkspaceSeams
from engine.workspace_statistics import WorkspaceStatistics

NO_OPTIONS = Options()
RETIRED_MAX = 100_000  # client ids that are remembered after they said goodbye


class NewWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    """What a client asks for when it opens a directory. Without a client id, it stays open until it is deleted."""

    path: str
    client_id: ClientId | None = None


class BackendStatistics(msgspec.Struct, frozen=True):
    """What the server is doing."""

    workspaces: dict[str, WorkspaceStatistics]
    slots_used: int
    slots: int
    log: EventLogStatistics
    unavailable: int  # workspaces that cannot be worked in, though somebody waits for them
    pruned: int  # events that were forgotten since the start


class Backend:
    """Opens, finds and ends workspaces. Made by `open_backend`."""

    def __init__(
        self,
        settings: EngineSettings,
        *,
        nursery: trio.Nursery,
        clock: Clock,
        store: Store,
        log: EventLog,
        bus: LocalBus,
        models: Models,
        agent: Agent | None,
        titler: Titler | None,
        toolbox: Toolbox,
        environment: Mapping[str, str],
        before_entry: BeforeEntry | None,
        options: Options,
        model_in_environ: bool,
    ) -> None:
        self.version = __version__
        self.settings = settings
        self.models = models
        in_environ: frozenset[Size] = frozenset({"large"} if model_in_environ else ())
        self.choice = ModelChoice(models, store, log, clock.now_us, in_environ=in_environ)
        self.preferences = PreferenceStore(store, log, clock.now_us)
        self.store = store
        self.log = log
        self._clock = clock
        self._bus = bus
        in_thread = settings.data_dir is not None
        self._agent: Agent = agent or CoderAgent(models, in_thread=in_thread, context_paths=self._context_paths)
        self._titler, self._is_agent_ours = titler, agent is None
        self._toolbox = toolbox
        self._environment = environment
        self._before_entry = before_entry
        self._options = options
        self._slots = trio.CapacityLimiter(settings.max_active_runs)
        self._replay_turn = trio.Lock()
        self._has_threads = settings.data_dir is not None  # none in memory, where a test's clock may jump beside them
        self._hosts = Hosts(
            nursery, store, log, self.choice, now_us=clock.now_us, make_seams=self._make_seams,
            on_change=self._changed, on_failed=lambda host: self.reopening.report_failure(host),
            in_thread=self._has_threads,
        )  # fmt: skip
        self.reopening = Reopening(self._hosts, store, in_thread=self._has_threads)
        self.pruner = Pruner(store, clock.now_us, keep=settings.event_keep, keep_s=settings.event_keep_s)
        self._retired: dict[ClientId, None] = {}
        self._creating = 0
        self._stopping = trio.Event()
        self._change = trio.Event()

    async def create_workspace(self, new: NewWorkspace) -> Workspace:
        """Open the directory, or find it open: one workspace a resolved path. The client, if any, has a claim on it.

        Raises WorkspacePathInvalid, ClientRetired, ServerStopping and StoreError.
        """
        self._check_accepting(new.client_id)
        self._creating += 1
        try:
            root = await find_directory(new.path, in_thread=self._has_threads)
            async with self._hosts.open(Place(root=root, path=new.path)) as workspace:
                self._check_accepting(new.client_id)
                was_kept = workspace.claims.is_kept
                if new.client_id is None:
                    workspace.claims.keep()
                else:
                    workspace.claims.hold(new.client_id, trio.current_time())
            self.reopening.report_opened(workspace)
        finally:
            self._creating -= 1
            self._changed()
        if new.client_id is None and not was_kept:
            await self._put_setting(workspace.id, KEPT, "1").wait()
        return workspace

    def workspace(self, workspace_id: str) -> Workspace:
        """A workspace that is open, or on its way to be closed: it still answers, and its runs can be canceled. Raises
        NotFound, ServerStopping where the next server may have it, and WorkspaceUnavailable if it is to be open and
        cannot."""
        host = self._hosts.find(workspace_id)
        if host is not None and host.workspace is not None and not host.is_closed:
            return host.workspace
        if self.is_stopping:
            raise ServerStopping
        if (trouble := self.reopening.find(workspace_id)) is not None:
            raise WorkspaceUnavailable(workspace_id, trouble.problem)
        raise NotFound("workspace", workspace_id)

    def workspaces(self) -> list[Workspace]:
        """Every open workspace."""
        return self._hosts.workspaces()

    async def release(self, workspace_id: str, client_id: ClientId) -> None:
        """Give up a client's claim on a workspace. Unknown ones are no error."""
        await trio.lowlevel.checkpoint()
        host = self._hosts.find(workspace_id)
        if host is not None and host.workspace is not None:
            host.workspace.claims.release(client_id, trio.current_time())
            self._changed()

    async def delete_workspace(self, workspace_id: str) -> None:
        """Close a workspace: its runs are canceled, and have ended when this returns (R23). Its sessions stay stored.
        An unknown one is no error. Raises ServerStopping: what waits is left for the next start then (R24)."""
        if self.is_stopping:
            raise ServerStopping
        host = self._hosts.find(workspace_id)
        if host is None:
            await trio.lowlevel.checkpoint()
            return
        host.begin_close("the workspace was closed")
        forgotten = self._put_setting(host.id, KEPT, "")
        await host.wait_closed()
        await forgotten.wait()

    async def retire_client(self, client_id: ClientId) -> None:
        """The client is gone for good: its claims end, and it cannot come back. Idempotent."""
        await trio.lowlevel.checkpoint()
        self._retired[client_id] = None
        if len(self._retired) > RETIRED_MAX:
            del self._retired[next(iter(self._retired))]
        for workspace in self.workspaces():
            workspace.claims.drop(client_id)
        self._changed()

    def is_idle(self) -> bool:
        """Whether no workspace is open and none is being opened."""
        return not self._hosts.all() and not self._creating

    @property
    def is_stopping(self) -> bool:
        """Whether the server accepts nothing any more."""
        return self._stopping.is_set()

    def begin_shutdown(self, drain_s: float | None = None) -> None:
        """Accept nothing from now on; let what is active finish for a while, then cancel it (R24)."""
        if self.is_stopping:
            return
        self._stopping.set()
        for host in self._hosts.all():
            if host.workspace is not None:
                host.workspace.refuse(ServerStopping())
            host.begin_drain(self.settings.drain_s if drain_s is None else drain_s)

    def hurry(self) -> None:
        """Do not wait for what is active any longer: the second signal (R24)."""
        for host in self._hosts.all():
            host.hurry()

    async def wait_stopped(self) -> None:
        """Return when a shutdown was asked for and every workspace has ended."""
        await self._stopping.wait()
        while hosts := self._hosts.all():
            await hosts[0].wait_closed()
            await trio.lowlevel.checkpoint()

    async def wait_idle_exit(self) -> None:
        """Return when nothing was open for `idle_timeout_s`; never, if none is set."""
        if self.settings.idle_timeout_s is None:
            await trio.sleep_forever()
        while True:
            change = self._change
            with trio.move_on_after(self.settings.idle_timeout_s if self.is_idle() else math.inf) as scope:
                await change.wait()
            if scope.cancelled_caught:
                return

    async def check_ready(self) -> None:
        """Raise ServerStopping or StoreUnavailable unless prompts can be accepted now."""
        if self.is_stopping:
            raise ServerStopping
        await self.store.check_writable()

    def statistics(self) -> BackendStatistics:
        """What the server is doing."""
        return BackendStatistics(
            workspaces={workspace.id: workspace.statistics() for workspace in self.workspaces()},
            slots_used=self._slots.borrowed_tokens, slots=self.settings.max_active_runs, log=self.log.statistics(),
            unavailable=len(self.reopening.all()), pruned=self.pruner.pruned,
        )  # fmt: skip

    async def keep_claims(self) -> None:
        """Close each workspace that nobody claims any more; a task of the backend."""
        while True:
            change = self._change
            with trio.move_on_at(close_unclaimed(self._hosts.all(), trio.current_time())):
                await change.wait()

    def _changed(self) -> None:
        """Workspaces or claims changed: wake those who watch them."""
        self._change.set()
        self._change = trio.Event()

    def _check_accepting(self, client_id: ClientId | None) -> None:
        if self.is_stopping:
            raise ServerStopping
        if client_id in self._retired:
            raise ClientRetired(client_id or "")

    def _make_seams(self, workspace_id: WorkspaceId, place: Place) -> WorkspaceSeams:
        self._check_accepting(None)
        titler = self._titler
        if self._is_agent_ours:
            titler = ModelTitler(self.models, partial(self._small_model, workspace_id))
        return WorkspaceSeams(
            id=workspace_id, path=place.path, root=place.root, problem=place.problem, settings=self.settings,
            clock=self._clock, store=self.store, log=self.log, bus=self._bus, agent=self._agent, titler=titler,
            toolbox=self._toolbox, environment=self._environment, slots=self._slots, choice=self.choice,
            preferences=self.preferences, options=self._options, on_claims_changed=self._changed,
            replay_turn=self._replay_turn, before_entry=self._before_entry,
        )  # fmt: skip

    def _small_model(self, workspace_id: WorkspaceId) -> str:
        host = self._hosts.find(workspace_id)
        if host is not None and host.workspace is not None:
            return host.workspace.chosen_model("small")
        return self.choice.in_force(workspace_id, "small")

    def _context_paths(self, root: Path) -> Sequence[str]:
        workspace = self._hosts.at(root)
        paths = workspace.preferences.in_force().options.context_paths if workspace is not None else ()
        return paths if isinstance(paths, tuple) else ()

    def _put_setting(self, workspace_id: WorkspaceId, key: str, value: str) -> Pending:
        return self.log.submit(Change(workspace_id, self._clock.now_us(), (PutSetting(workspace_id, key, value),)))


@asynccontextmanager
async def open_backend(
    settings: EngineSettings,
    *,
    model_settings: ModelSettings | None = None,
    options: Options = NO_OPTIONS,
    environ: Mapping[str, str] = MappingProxyType(os.environ),
    agent: Agent | None = None,
    titler: Titler | None = None,
    tools: Tools | Toolbox | None = None,
    before_entry: BeforeEntry | None = None,
    open_store: Callable[[Path | None], AbstractAsyncContextManager[Store]] = open_sqlite_store,
    wrap_store: Callable[[Store], Store] | None = None,
    recover: bool = True,
) -> AsyncIterator[Backend]:
    """The engine: its store, its log, its models, and the workspaces that an earlier server left unfinished.

    An `agent` takes the place of the built-in one; `tools` that of the built-in tools, which an agent of the caller's
    gets if it is `open_toolbox`. Without `recover`, what is unfinished waits until its workspace is opened.
    `before_entry`, awaited by each run before its entry, `open_store` and `wrap_store` are seams for race tests.
    Leaving shuts down as `begin_shutdown(0)`. Raises StoreLocked, StoreNewer, StoreUnavailable, ConfigInvalid.
    """
    clock = Clock()
    model_settings = model_settings or ModelSettings()
    async with AsyncExitStack() as stack:
        models = await stack.enter_async_context(open_models(model_settings, environ))
        store = await stack.enter_async_context(open_store(settings.data_dir))
        store = wrap_store(store) if wrap_store is not None else store
        bus = LocalBus(limit=settings.reader_buffer)
        log = EventLog(store, bus)
        writer = await stack.enter_async_context(trio.open_nursery())
        await writer.start(log.run)
        stack.callback(log.close)
        nursery = await stack.enter_async_context(trio.open_nursery())
        backend = Backend(
            settings, nursery=nursery, clock=clock, store=store, log=log, bus=bus, models=models, agent=agent,
            titler=titler, toolbox=chosen_toolbox(tools, is_agent_ours=agent is None),
            environment=command_environment(environ, secrets=key_variables(model_settings)), before_entry=before_entry,
            options=options, model_in_environ=bool(environ.get(MODEL_ENV, "").strip()),
        )  # fmt: skip
        await backend.choice.load(None)
        await backend.preferences.load(None)
        if recover:
            await backend.reopening.recover()
            nursery.start_soon(backend.reopening.run)
        nursery.start_soon(backend.keep_claims)
        nursery.start_soon(backend.pruner.run)
        try:
            yield backend
        finally:
            backend.begin_shutdown(0.0)
            with trio.move_on_after(3 * settings.settle_s, shield=True):
                await backend.wait_stopped()
            nursery.cancel_scope.cancel()
