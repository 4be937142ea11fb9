"""Reopening: the workspaces that are to be open though nobody asks for them, kept open against all odds (R24, R25).

They are those with runs that have not ended, and those that are kept. The server opens them at its start. What cannot
be opened, or fails, is tried again, more and more rarely. One whose directory is gone, or has a configuration that
cannot be used, is opened without it: its runs can be read and canceled, what was interrupted ends, and what waits runs
when the directory is back, or the configuration mended.
"""

import math
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
import trio

from engine.directory import find_directory
from engine.errors import ConfigInvalid, CountermandError, ServerStopping, StoreError, WorkspacePathInvalid
from engine.host import Host
from engine.hosts import Hosts, Place
from engine.records.ids import WorkspaceId
from engine.store.protocol import Store
from engine.workspace import Workspace

KEPT = "workspace.kept"  # the setting of a workspace that lives until it is deleted
AT_ONCE = 16  # workspaces that are opened at the same time
LOOK_AGAIN_S = 10.0  # for a directory that is gone, or a configuration that is wrong
RETRY_FIRST_S = 1.0  # after a failure; each one after it waits twice as long
RETRY_LAST_S = 60.0
LASTING_S = 600.0  # a workspace that was open for this long has not failed again, but for the first time

logger = structlog.get_logger(__name__)


class Trouble(msgspec.Struct, frozen=True):
    """A workspace that cannot be worked in, and why. `retry_at` is Trio time."""

    workspace_id: WorkspaceId
    path: str
    problem: str
    retry_at: float


class Reopening:
    """Opens what is to be open, at the start and again. `in_thread` says whether threads may look for directories."""

    def __init__(self, hosts: Hosts, store: Store, *, in_thread: bool) -> None:
        self._hosts = hosts
        self._store = store
        self._in_thread = in_thread
        self._troubles: dict[str, Trouble] = {}
        self._failures: dict[str, int] = {}  # one after another, of each workspace
        self._news = trio.Event()

    def find(self, workspace_id: str) -> Trouble | None:
        """What is the matter with this workspace, if anything is."""
        return self._troubles.get(workspace_id)

    def all(self) -> tuple[Trouble, ...]:
        """The workspaces that cannot be worked in."""
        return tuple(self._troubles.values())

    async def recover(self) -> None:
        """Open every workspace with unfinished runs, and those that are kept. One that cannot be opened is reported,
        and does not stop the others. Raises StoreError if it cannot be known which they are."""
        unfinished = await self._store.unsettled_counts()
        kept = await self._store.workspaces_with(KEPT)
        wanted = deque(
            (workspace_id, path)
            for workspace_id, path in await self._store.workspaces()
            if workspace_id in unfinished or workspace_id in kept
        )

        async def work() -> None:
            await trio.lowlevel.checkpoint()
            with suppress(ServerStopping):
                while wanted:
                    workspace_id, path = wanted.popleft()
                    await self._open(workspace_id, path, is_kept=workspace_id in kept)

        async with trio.open_nursery() as nursery:
            for _ in range(min(AT_ONCE, len(wanted))):
                nursery.start_soon(work)

    async def run(self) -> None:
        """Try again, until the server stops, what could not be opened or has failed; a task of the backend."""
        while True:
            news = self._news
            with trio.move_on_at(min((each.retry_at for each in self.all()), default=math.inf)):
                await news.wait()
            for trouble in [each for each in self.all() if each.retry_at <= trio.current_time()]:
                try:
                    await self._retry(trouble)
                except ServerStopping:
                    return  # the next server opens it
                except StoreError as error:
                    self._fail(trouble.workspace_id, trouble.path, error)

    def report_failure(self, host: Host) -> None:
        """A workspace that was open has failed. For the hosts."""
        assert host.failure is not None
        assert host.opened_at is not None
        if trio.current_time() - host.opened_at >= LASTING_S:
            self._failures.pop(host.id, None)
        self._fail(host.id, str(host.seams.root), host.failure)

    def report_opened(self, workspace: Workspace) -> None:
        """A workspace is open, whoever opened it."""
        if workspace.problem is None:
            self._troubles.pop(workspace.id, None)

    async def _retry(self, trouble: Trouble) -> None:
        workspace_id = trouble.workspace_id
        is_kept = KEPT in await self._store.settings(workspace_id)
        host = self._hosts.find(workspace_id)
        is_open = host is not None and not host.is_ending
        if is_kept or is_open or await self._store.unsettled_runs(workspace_id, limit=1):
            await self._open(workspace_id, trouble.path, is_kept=is_kept)
        else:
            del self._troubles[workspace_id]  # deleted, or given up by its last client: nobody waits for it

    async def _open(self, workspace_id: WorkspaceId, path: str, *, is_kept: bool) -> None:
        """Open a workspace, without its directory if need be, and report what is the matter with it."""
        await trio.lowlevel.checkpoint()
        host = self._hosts.find(workspace_id)
        try:
            async with self._hosts.open(await self._place(workspace_id, path)) as workspace:
                if self._hosts.find(workspace_id) is not host:
                    workspace.claims.keep() if is_kept else workspace.claims.hold_anonymous(trio.current_time())
        except ServerStopping:
            raise
        except CountermandError as error:
            self._fail(workspace_id, path, error)
            return
        self.report_opened(workspace)
        if workspace.problem is not None:
            self._note(workspace_id, path, workspace.problem, LOOK_AGAIN_S)

    async def _place(self, workspace_id: WorkspaceId, path: str) -> Place:
        """Where the workspace is now: its path may have become a link since."""
        await trio.lowlevel.checkpoint()
        try:
            root = await find_directory(path, in_thread=self._in_thread)
        except WorkspacePathInvalid as error:
            problem = f"its directory {path!r} cannot be opened: {error.problem}"
            return Place(root=Path(path), path=path, id=workspace_id, problem=problem)
        if await self._store.workspace_id(str(root)) not in (None, workspace_id):
            problem = f"its directory {path!r} leads to {str(root)!r} now, which is another workspace"
            return Place(root=Path(path), path=path, id=workspace_id, problem=problem)
        try:
            await self._hosts.check_config(root)
        except ConfigInvalid as error:
            problem = f"its own configuration cannot be used: {error}"
            return Place(root=root, path=path, id=workspace_id, problem=problem)
        return Place(root=root, path=path, id=workspace_id)

    def _fail(self, workspace_id: WorkspaceId, path: str, error: CountermandError) -> None:
        failures = self._failures[workspace_id] = self._failures.get(workspace_id, 0) + 1
        self._note(workspace_id, path, str(error), min(RETRY_FIRST_S * 2 ** (failures - 1), RETRY_LAST_S))

    def _note(self, workspace_id: WorkspaceId, path: str, problem: str, retry_in_s: float) -> None:
        before = self._troubles.get(workspace_id)
        self._troubles[workspace_id] = Trouble(workspace_id, path, problem, trio.current_time() + retry_in_s)
        if before is None or before.problem != problem:
            logger.error("workspace cannot be worked in", workspace_id=workspace_id, path=path, problem=problem)
        self._news.set()
        self._news = trio.Event()
