"""Cancels: of a session, of one run, of a queue."""

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar, Literal

from engine.errors import CountermandError
from engine.records.ids import RunId
from engine.workspace import Workspace
from tests.explorer.draw import Draw
from tests.explorer.operations.prompts import Accept
from tests.explorer.scenario import Operation, session_id
from tests.explorer.world import World


class CancelSession(Operation, frozen=True, kw_only=True):
    """Cancel every run of a session (R07)."""

    feature: ClassVar[str] = "cancels"
    weight: ClassVar[float] = 4.0

    session: int

    @classmethod
    def drawn(cls, draw: Draw) -> "CancelSession":
        return cls(session=draw.session())

    async def do(self, world: World) -> None:
        session = session_id(self.session)
        await countermand(world, "session", session, lambda at, reason: at.cancel_session(session, reason))


class CancelRun(Operation, frozen=True, kw_only=True):
    """Cancel one run (R12)."""

    feature: ClassVar[str] = "cancels"
    weight: ClassVar[float] = 3.0

    name: str

    @classmethod
    def drawn(cls, draw: Draw) -> "CancelRun | None":
        earlier = draw.earlier(Accept)
        return None if earlier is None else cls(name=earlier.name)

    async def do(self, world: World) -> None:
        await cancel_run(world, world.ledger.run_id(self.name))


class CancelActive(Operation, frozen=True, kw_only=True):
    """Cancel the run that a session is answering, and not what was steered into it (R12)."""

    feature: ClassVar[str] = "cancels"
    weight: ClassVar[float] = 3.0

    session: int

    @classmethod
    def drawn(cls, draw: Draw) -> "CancelActive":
        return cls(session=draw.session())

    async def do(self, world: World) -> None:
        workspace = world.workspace()
        lane = workspace.lanes.existing_lane(session_id(self.session)) if workspace is not None else None
        if lane is not None and lane.active is not None:
            await cancel_run(world, lane.active.record.id)


class ClearQueue(Operation, frozen=True, kw_only=True):
    """Cancel what waits in a session behind another run (R17)."""

    feature: ClassVar[str] = "clears"
    weight: ClassVar[float] = 3.0

    session: int

    @classmethod
    def drawn(cls, draw: Draw) -> "ClearQueue":
        return cls(session=draw.session())

    async def do(self, world: World) -> None:
        session = session_id(self.session)
        await countermand(world, "queue", session, lambda at, _: at.clear_queue(session))


async def cancel_run(world: World, run_id: str) -> None:
    """Cancel one run."""

    async def cancel(workspace: Workspace, reason: str) -> Sequence[RunId]:
        return (await workspace.cancel_run(run_id, reason)).canceled

    await countermand(world, "run", run_id, cancel)


async def countermand(
    world: World,
    what: Literal["session", "run", "queue"],
    target: str,
    cancel: Callable[[Workspace, str], Awaitable[Sequence[RunId]]],
) -> None:
    """Cancel something in the workspace, if that is open, and write down what came of it."""
    workspace = world.workspace()
    if workspace is None:
        return
    made = world.ledger.countermand(what, target)
    world.tell("cancel", what, target)
    try:
        named = await cancel(workspace, made.reason)
    except CountermandError as error:
        world.ledger.fail(made, error)
    else:
        world.ledger.name(made, named)
    world.tell("canceled", what, target, made.named, repr(made.error))
