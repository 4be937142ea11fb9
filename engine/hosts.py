"""Hosts: the workspaces of one server that are open, or on their way in or out: one a resolved directory."""

import contextvars
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import trio

from engine.errors import Conflict
from engine.events.log import EventLog
from engine.host import Host
from engine.model_choice import ModelChoice
from engine.records.change import Change, PutWorkspace
from engine.records.ids import WorkspaceId, new_workspace_id
from engine.store.protocol import Store
from engine.workspace import Workspace
from engine.workspace_config import read_workspace_config
from engine.workspace_seams import WorkspaceSeams


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be opened: a directory, by its resolved path and by the one it was asked for by.

    `id` is the workspace's if it is known. With a `problem` the directory cannot be worked in: the workspace is opened
    all the same, for its runs to be read and canceled, and starts none.
    """

    root: Path
    path: str
    id: WorkspaceId | None = None
    problem: str | None = None


MakeSeams = Callable[[WorkspaceId, Place], WorkspaceSeams]


class Hosts:
    """Opens and finds workspaces, each in a task of the backend's nursery.

    `on_change` is called when one came or went, `on_failed` when one that was open has failed. `in_thread` says whether
    threads may read the workspaces' configuration.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        store: Store,
        log: EventLog,
        choice: ModelChoice,
        *,
        now_us: Callable[[], int],
        make_seams: MakeSeams,
        on_change: Callable[[], None],
        on_failed: Callable[[Host], None],
        in_thread: bool,
    ) -> None:
        self._nursery = nursery
        self._store = store
        self._log = log
        self._choice = choice
        self._now_us = now_us
        self._make_seams = make_seams
        self._on_change = on_change
        self._on_failed = on_failed
        self._in_thread = in_thread
        self._by_root: dict[Path, Host] = {}
        self._by_id: dict[str, Host] = {}

    def all(self) -> tuple[Host, ...]:
        """Every host there is."""
        return tuple(self._by_id.values())

    def find(self, workspace_id: str) -> Host | None:
        """The host of this workspace, if there is one."""
        return self._by_id.get(workspace_id)

    def at(self, root: Path) -> Workspace | None:
        """The workspace of this resolved path, if it is open."""
        host = self._by_root.get(root)
        return host.workspace if host is not None else None

    def workspaces(self) -> list[Workspace]:
        """Every open workspace."""
        return [host.workspace for host in self.all() if host.workspace and not host.is_ending]

    async def check_config(self, root: Path) -> None:
        """Raise ConfigInvalid if there is a configuration in this directory that no workspace can be opened with."""
        config = await read_workspace_config(root, in_thread=self._in_thread)
        config.check_models(self._choice.check, root)

    @asynccontextmanager
    async def open(self, place: Place) -> AsyncIterator[Workspace]:
        """The workspace of this place, opened if need be. Until the context is left it is not closed for want of a
        claim. One that is closing is waited for, and opened again.

        One that could not be worked in is closed for this, and leaves what waits as it is. Raises what prevents the
        opening.
        """
        while True:
            host = self._by_root.get(place.root) or self._by_id.get(place.id or "")
            if host is None:
                workspace_id = await self._settled_id(place)
                # Nothing is awaited between this look and the entry: two creates at once find one workspace.
                host = self._by_root.get(place.root) or self._host(workspace_id, place)
            elif host.seams.problem is not None and place.problem is None:
                await self.check_config(place.root)  # before it is closed for nothing
                host.begin_drain(0.0)
            with host.being_opened():
                if (workspace := await host.wait_opened()) is not None:
                    yield workspace
                    return
            await host.wait_closed()

    async def _settled_id(self, place: Place) -> WorkspaceId:
        """The id that belongs to the directory, over restarts too. Raises Conflict if the place says another one."""
        known = place.id or await self._store.workspace_id(str(place.root)) or new_workspace_id()
        at_us = self._now_us()
        # Also for one that is known: when this is written, so is all that an earlier host of it left in the log.
        put = self._log.submit(Change(known, at_us, (PutWorkspace(known, str(place.root), at_us),)))
        if place.id is not None:
            await put.wait()
        else:
            with suppress(Conflict):  # somebody else opened it in the same moment
                await put.wait()
            known = await self._store.workspace_id(str(place.root)) or known
        await self._choice.load(known)
        return known

    def _host(self, workspace_id: WorkspaceId, place: Place) -> Host:
        host = Host(self._make_seams(workspace_id, place))
        self._by_root[place.root] = self._by_id[workspace_id] = host
        contextvars.Context().run(lambda: self._nursery.start_soon(self._hold, host))  # nothing of the request
        return host

    async def _hold(self, host: Host) -> None:
        """The host task: hold the workspace open, then forget it."""
        try:
            await host.run()
        finally:
            del self._by_root[host.seams.root], self._by_id[host.id]
            if host.failure is not None and host.opened_at is not None:
                self._on_failed(host)
            self._on_change()
