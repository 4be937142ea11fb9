"""Host: the task that holds one workspace open, contains its failure, and ends it in order."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum, auto

import structlog
import trio

from engine.errors import CountermandError, WorkspaceClosing, WorkspaceFailed
from engine.records.ids import WorkspaceId
from engine.runs.answering import first_leaf
from engine.workspace import Workspace, open_workspace
from engine.workspace_seams import WorkspaceSeams

logger = structlog.get_logger(__name__)


class Manner(Enum):
    """How a workspace ends."""

    CLOSE = auto()  # every run is canceled (R23)
    DRAIN = auto()  # active runs may finish; what waits stays for the next start (R24)


class Host:
    """One workspace of a backend. A workspace that fails takes itself down, and no other."""

    def __init__(self, seams: WorkspaceSeams) -> None:
        self.seams = seams
        self.workspace: Workspace | None = None
        self.failure: CountermandError | None = None
        self._opened = trio.Event()
        self._ending = trio.Event()
        self._closed = trio.Event()
        self._manner = Manner.CLOSE
        self._reason = ""
        self._drain_s = 0.0
        self._openers = 0
        self.opened_at: float | None = None  # Trio time

    @property
    def id(self) -> WorkspaceId:
        """The workspace's id."""
        return self.seams.id

    @property
    def is_ending(self) -> bool:
        """Whether the workspace is closing or closed."""
        return self._ending.is_set()

    @property
    def is_closed(self) -> bool:
        """Whether nothing of the workspace is left."""
        return self._closed.is_set()

    @contextmanager
    def being_opened(self) -> Iterator[None]:
        """Somebody opens the workspace, and has a claim to make before it may be found unclaimed."""
        self._openers += 1
        try:
            yield
        finally:
            self._openers -= 1

    @property
    def is_being_opened(self) -> bool:
        """Whether anybody is about to make a claim."""
        return self._openers > 0

    def begin_close(self, reason: str) -> None:
        """End the workspace, canceling its runs. The first call decides."""
        if not self.is_ending:
            self._reason = reason
            if self.workspace is not None:
                self.workspace.refuse(WorkspaceClosing(self.id))
            self._ending.set()

    def begin_drain(self, drain_s: float) -> None:
        """End the workspace as a stopping server does. The first call decides."""
        if not self.is_ending:
            self._manner, self._drain_s = Manner.DRAIN, drain_s
            self._ending.set()

    def hurry(self) -> None:
        """Do not wait for active runs any longer."""
        self._drain_s = 0.0
        if self.workspace is not None:
            self.workspace.stop_waiting()

    async def wait_opened(self) -> Workspace | None:
        """The workspace once it is open and recovered; None if it is ending. Raises what prevented it."""
        await self._opened.wait()
        if self.failure is not None:
            raise self.failure
        return None if self.is_ending else self.workspace

    async def wait_closed(self) -> None:
        """Return when nothing of the workspace is left."""
        await self._closed.wait()

    async def run(self) -> None:  # noqa: ASYNC910  (all of it is waiting, in a `try`)
        """Open the workspace and hold it until it is told to end. Never raises."""
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            async with open_workspace(self.seams) as workspace:
                self.workspace = workspace
                self.opened_at = trio.current_time()
                self._opened.set()
                await self._ending.wait()
                if self._manner is Manner.DRAIN:
                    await workspace.drain(self._drain_s)
                else:
                    await workspace.close(self._reason)
        except* Exception as group:  # the host's catch-all: the other workspaces go on
            leaf = first_leaf(group)
            self.failure = leaf if isinstance(leaf, CountermandError) else WorkspaceFailed(self.id)
            # What is no mistake of ours says all there is to say, and may come again and again.
            traced = None if isinstance(leaf, CountermandError) else group
            logger.error("workspace failed", workspace_id=self.id, error=str(leaf), exc_info=traced)
        finally:
            self._ending.set()
            self._opened.set()
            self._closed.set()


def close_unclaimed(hosts: Iterable[Host], now: float) -> float:
    """Begin to close each workspace that no client claims at this moment, and return when the next claim may end."""
    deadline = math.inf
    for host in hosts:
        if host.workspace is None or host.is_ending or host.is_being_opened:
            continue
        host.workspace.claims.expire(now)
        if host.workspace.claims.is_claimed():
            deadline = min(deadline, host.workspace.claims.next_deadline() or math.inf)
        else:
            host.begin_close("the last client left")
    return deadline
