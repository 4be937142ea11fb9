"""Prompts: sent, and sent again."""

from typing import ClassVar

import msgspec
import trio

from engine.errors import CountermandError
from engine.records.ids import RunId
from engine.records.run import IfBusy, OnCrash, Prompt
from tests.explorer.draw import Draw
from tests.explorer.scenario import Operation, session_id
from tests.explorer.world import World


class Accept(Operation, frozen=True, kw_only=True):
    """Send a prompt, and wait for the answer as long as `patience_ms` allows. `variant` makes it another prompt under
    the same name. `sub_agents` are the scripts of those that its agent may call."""

    weight: ClassVar[float] = 10.0

    name: str
    session: int
    if_busy: IfBusy = IfBusy.ENQUEUE
    script: tuple[str, ...] = ()
    sub_agents: tuple[tuple[str, ...], ...] = ()
    timeout_ms: int | None = None
    on_crash: OnCrash = OnCrash.INTERRUPT
    by_key: bool = False
    variant: int = 0
    patience_ms: int | None = None

    @classmethod
    def drawn(cls, draw: Draw) -> "Accept":
        alone = cls(
            name=draw.new_name(),
            session=draw.session(),
            if_busy=draw.if_busy(),
            script=draw.script(),
            timeout_ms=draw.of("deadlines", (1, 30, 400)),
            on_crash=OnCrash.RETRY if draw.of("retries", (True, True, False)) else OnCrash.INTERRUPT,
            by_key=bool(draw.of("keys", (True, False))),
            patience_ms=draw.of("hanging up", (None, None, 0, 10)),
        )
        script, sub_agents = draw.sub_agents.joined(alone.script)
        return msgspec.structs.replace(alone, script=script, sub_agents=sub_agents) if sub_agents else alone

    def prompt(self) -> Prompt:
        """What is sent."""
        return Prompt(
            session_id=session_id(self.session),
            text=f"{self.name} {self.variant}",
            run_id=None if self.by_key else RunId(self.name),
            idempotency_key=self.name if self.by_key else None,
            if_busy=self.if_busy,
            timeout_s=None if self.timeout_ms is None else self.timeout_ms / 1000,
            on_crash=self.on_crash,
        )

    async def do(self, world: World) -> None:
        workspace = world.workspace()
        if workspace is None:
            return
        prompt = self.prompt()
        world.ledger.direct(prompt.text, self.script, self.sub_agents)
        asked = world.ledger.ask(prompt)
        world.tell("accept", prompt.text, self.if_busy.value, prompt.session_id)
        with trio.move_on_after(1e9 if self.patience_ms is None else self.patience_ms / 1000):
            try:
                accepted = await workspace.accept(prompt)
            except CountermandError as error:
                world.ledger.refuse(asked, error)
                world.tell("refused", prompt.text, repr(error))
            else:
                world.ledger.accept(asked, accepted.run, replayed=accepted.replayed)
                world.tell("accepted", prompt.text, accepted.run.id)


class Again(Operation, frozen=True, kw_only=True):
    """Send a prompt that was sent before, or another one under its name (R06)."""

    feature: ClassVar[str] = "repeats"
    weight: ClassVar[float] = 4.0

    first: Accept
    session: int
    variant: int

    @classmethod
    def drawn(cls, draw: Draw) -> "Again | None":
        earlier = draw.earlier(Accept)
        if earlier is None:
            return None
        return cls(
            first=earlier,
            session=draw.choice((earlier.session, earlier.session, draw.session())),
            variant=draw.choice((0, 0, 1)),
        )

    async def do(self, world: World) -> None:
        again = {name: getattr(self.first, name) for name in self.first.__struct_fields__}
        again |= {"session": self.session, "variant": self.variant, "patience_ms": None}
        await Accept(**again).do(world)
