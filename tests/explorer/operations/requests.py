"""What a person answers: permissions and questions, once, twice, or too late."""

from collections.abc import Callable
from itertools import product
from typing import ClassVar

import trio

from engine.records.ids import RequestId
from engine.records.permission import Decision
from engine.workspace import Workspace
from tests.explorer.answering import permit, reply
from tests.explorer.draw import Draw
from tests.explorer.scenario import Operation
from tests.explorer.world import World

LOOKS = 8
LOOK_S = 0.01  # between two looks


class Permit(Operation, frozen=True, kw_only=True):
    """Answer one of the permissions that are asked for, perhaps together with somebody else; if there is none, the last
    that was answered, once more (R31)."""

    feature: ClassVar[str] = "requests"
    weight: ClassVar[float] = 4.0

    number: int
    decision: Decision
    rival: Decision | None = None

    @classmethod
    def drawn(cls, draw: Draw) -> "Permit":
        return cls(
            number=draw.number(0, 1),
            decision=draw.choice((Decision.ALLOW, Decision.ALLOW, Decision.ALLOW_SESSION, Decision.DENY)),
            rival=draw.choice((None, None, Decision.DENY, Decision.ALLOW)),
        )

    async def do(self, world: World) -> None:
        workspace = await asking(world, lambda workspace: bool(workspace.permissions.waiting()))
        if workspace is not None:
            known = [answered.request_id for answered in world.ledger.answered if not answered.is_question]
            waiting = [request.id for request in workspace.permissions.waiting()]
            found = waiting[self.number : self.number + 1] or waiting[:1] or known[-1:]
            decisions = [self.decision, *([self.rival] if self.rival is not None else [])]
            async with trio.open_nursery() as nursery:
                for request_id, decision in product(found, decisions):
                    nursery.start_soon(permit, world, workspace, RequestId(request_id), decision)


class Reply(Operation, frozen=True, kw_only=True):
    """Answer the questions that were asked first, or refuse to."""

    feature: ClassVar[str] = "requests"
    weight: ClassVar[float] = 2.0

    refuses: bool = False

    @classmethod
    def drawn(cls, draw: Draw) -> "Reply":
        return cls(refuses=draw.percent(30))

    async def do(self, world: World) -> None:
        workspace = await asking(world, lambda workspace: bool(workspace.questions.waiting()))
        if workspace is not None:
            for batch in workspace.questions.waiting()[:1]:
                await reply(world, workspace, batch, refuses=self.refuses)


async def asking(world: World, is_asking: Callable[[Workspace], bool]) -> Workspace | None:
    """The workspace as soon as something is asked there, or after a while."""
    for _ in range(LOOKS):
        workspace = world.workspace()
        if workspace is None or is_asking(workspace):
            break
        await trio.sleep(LOOK_S)
    await trio.lowlevel.checkpoint()
    return world.workspace()
