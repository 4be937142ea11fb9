"""What happens to sessions and workspaces as a whole."""

from contextlib import suppress
from typing import ClassVar

import trio

from engine.backend import NewWorkspace
from engine.errors import (
    CountermandError,
    NotFound,
    ServerStopping,
    StoreUnavailable,
    WorkspaceClosing,
    WorkspaceFailed,
)
from tests.explorer.disk import DIRECTORY, WORKSPACE
from tests.explorer.draw import Draw
from tests.explorer.scenario import Operation, session_id
from tests.explorer.world import World


class DeleteSession(Operation, frozen=True, kw_only=True):
    """Cancel a session's runs, and delete it."""

    feature: ClassVar[str] = "session deletes"
    weight: ClassVar[float] = 2.0

    session: int

    @classmethod
    def drawn(cls, draw: Draw) -> "DeleteSession":
        return cls(session=draw.session())

    async def do(self, world: World) -> None:
        workspace, session = world.workspace(), session_id(self.session)
        if workspace is not None:
            made = world.ledger.countermand("delete", session)
            world.tell("delete session", session)
            try:
                await workspace.delete_session(session)
            except CountermandError as error:
                world.expect(error, NotFound, ServerStopping, StoreUnavailable, WorkspaceClosing)
                world.ledger.fail(made, error)
            else:
                world.ledger.name(made, ())
            world.tell("deleted", session, repr(made.error))


class CloseWorkspace(Operation, frozen=True, kw_only=True):
    """Close the workspace, and open it again some time later, if at all."""

    feature: ClassVar[str] = "closes"
    weight: ClassVar[float] = 2.0

    opens_after_ms: int | None

    @classmethod
    def drawn(cls, draw: Draw) -> "CloseWorkspace":
        return cls(opens_after_ms=draw.choice((None, 0, 0, 1, 100)))

    async def do(self, world: World) -> None:
        backend = world.backend
        if backend is None:
            return
        world.ledger.close("the workspace was closed")
        world.tell("close workspace")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._open_again, world)
            try:
                await backend.delete_workspace(WORKSPACE)
            except CountermandError as error:
                world.expect(error, ServerStopping, StoreUnavailable)
        world.tell("closed workspace")

    async def _open_again(self, world: World) -> None:
        if self.opens_after_ms is None or world.backend is None:
            return
        await trio.sleep(self.opens_after_ms / 1000)
        try:
            await world.backend.create_workspace(NewWorkspace(path=DIRECTORY))
        except CountermandError as error:
            world.expect(error, ServerStopping, StoreUnavailable, WorkspaceFailed)


class Bug(Operation, frozen=True, kw_only=True):
    """A task of the workspace fails by an error of our own, and takes the workspace down."""

    feature: ClassVar[str] = "bugs"

    @classmethod
    def drawn(cls, draw: Draw) -> "Bug":
        return cls()

    async def do(self, world: World) -> None:
        workspace = world.workspace()
        if workspace is not None:
            world.ledger.close("a bug")
            world.tell("bug")
            with suppress(RuntimeError):  # it is closed by now
                workspace.start(fail)
                world.failing = workspace
        await trio.lowlevel.checkpoint()


async def fail() -> None:
    """Fail."""
    await trio.lowlevel.checkpoint()
    raise RuntimeError("a bug, says the scenario")
