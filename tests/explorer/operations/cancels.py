"""Cancels: of a session, of one run, of a queue."""

from typing import ClassVar

from engine.errors import CountermandError
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
        workspace, session = world.workspace(), session_id(self.session)
        if workspace is not None:
            made = world.ledger.countermand("session", session)
            world.tell("cancel session", session)
            try:
                named = await workspace.cancel_session(session, made.reason)
            except CountermandError as error:
                world.ledger.fail(made, error)
            else:
                world.ledger.name(made, named)
            world.tell("canceled", session, made.named, repr(made.error))


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
        workspace, session = world.workspace(), session_id(self.session)
        if workspace is not None:
            made = world.ledger.countermand("queue", session)
            world.tell("clear", session)
            try:
                named = await workspace.clear_queue(session)
            except CountermandError as error:
                world.ledger.fail(made, error)
            else:
                world.ledger.name(made, named)
            world.tell("cleared", session, made.named, repr(made.error))


async def cancel_run(world: World, run_id: str) -> None:
    """Cancel one run, and write down what came of it."""
    workspace = world.workspace()
    if workspace is not None:
        made = world.ledger.countermand("run", run_id)
        world.tell("cancel run", run_id)
        try:
            answer = await workspace.cancel_run(run_id, made.reason)
        except CountermandError as error:
            world.ledger.fail(made, error)
        else:
            world.ledger.name(made, answer.canceled)
        world.tell("canceled", run_id, made.named, repr(made.error))
