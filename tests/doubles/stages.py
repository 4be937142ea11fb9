"""An engine in which one run is held at a place between its acceptance and its end, for cancels and closes to find."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.records.ids import RunId, SessionId
from engine.records.run import RunRecord, RunState
from engine.settings import EngineSettings
from engine.store.protocol import Store
from engine.workspace import Workspace
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import HoldingStore, accepts, settles, starts
from tests.doubles.tools import GateTool

T = TypeVar("T")

HELD = RunId("held")
AHEAD = RunId("ahead")  # the run that keeps the held one waiting, or takes it in


class At(StrEnum):
    """Where the run is held."""

    COMMIT = "accepting"  # registered; its acceptance is on its way to the store
    ENTRY = "accepted"  # durable; its task has not entered the lane
    QUEUE = "queued"  # behind an active run of its session
    SLOT = "waiting for a slot"  # first of its session; the server runs as many as it may
    START = "starting"  # what makes it active is on its way to the store
    AGENT = "active"  # its agent is answering
    TOOL = "in a tool"  # its agent waits for a tool
    STEERED = "steered"  # taken in by the active turn of another run
    ENDING = "ending"  # its ending is on its way to the store


UNBEGUN = (At.COMMIT, At.ENTRY, At.QUEUE, At.SLOT)
BEGUN = (At.START, At.AGENT, At.TOOL, At.STEERED)
CANCELABLE = UNBEGUN + BEGUN
HELD_BY_STORE = (At.COMMIT, At.START, At.ENDING)
HELD_BY_TEST = (*HELD_BY_STORE, At.ENTRY)
WITH_NEIGHBOR = (At.QUEUE, At.STEERED)


class Staged:
    """The engine, its held run, and what holds it."""

    def __init__(self, at: At, tool: GateTool, prompt: Mapping[str, Any]) -> None:
        self.at = at
        self.prompt = prompt
        self.tool = tool
        self.held = tool.gate
        self.ahead = Gate()
        self.watched: Watched
        self.store: HoldingStore
        self.nursery: trio.Nursery
        self.began: list[RunId] = []  # the turns that the agent was asked to answer
        self.answers: list[RunRecord | Exception] = []  # what the callers of `accept` got

    @property
    def workspace(self) -> Workspace:
        """The workspace."""
        return self.watched.workspace

    @property
    def session_id(self) -> SessionId:
        """The session of the held run."""
        return self.watched.session_id

    def release(self) -> None:
        """Open everything that holds anything."""
        self.held.open()
        self.ahead.open()

    async def bring(self) -> None:
        """Bring the run where it is to be held."""
        if self.at in {At.QUEUE, At.STEERED}:
            await self.watched.send("ahead", run_id=AHEAD)
        elif self.at is At.SLOT:
            other = await self.workspace.sessions.create("other")
            await self.watched.send("ahead", run_id=AHEAD, session_id=other.id)
        if self.at in {At.QUEUE, At.STEERED, At.SLOT}:
            await self.ahead.reached()
        picks = {At.COMMIT: accepts, At.START: starts, At.ENDING: settles}.get(self.at)
        if picks is not None:
            self.held = self.store.hold(picks(HELD))
        self.nursery.start_soon(self._send, "steer" if self.at is At.STEERED else "enqueue")
        if self.at in {At.QUEUE, At.SLOT, At.STEERED}:
            await trio.testing.wait_all_tasks_blocked()
        if self.at is At.STEERED:
            old, self.ahead = self.ahead, Gate()
            old.open()
            await self.ahead.reached()
        if self.at not in {At.QUEUE, At.SLOT, At.STEERED}:
            await self.held.reached()

    async def under_hold(self, action: Callable[[], Awaitable[T]]) -> T:
        """Begin something while the run is held, and return its answer. What only the test has put in the way of the
        run, at the store or at the entry, is then opened; what holds an agent or a tool stays closed."""
        answers: list[T] = []

        async def act() -> None:
            answers.append(await action())

        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(act)
                await trio.testing.wait_all_tasks_blocked()
                if self.at in HELD_BY_TEST:
                    self.held.open()
        return answers[0]

    async def state(self, run_id: str = HELD) -> RunState:
        """The state of a run as it is stored."""
        return (await self.workspace.run(run_id)).state

    async def ended(self, run_id: str = HELD) -> RunRecord:
        """The run once it has ended, which must take no time."""
        run = await self.workspace.wait_run(run_id, 0.001)
        assert run.state.is_terminal, f"{run_id} is still {run.state}"
        return run

    async def turn(self, run_id: RunId = HELD) -> list[tuple[str, str, str]]:
        """What is stored of a run's turn: role, text and finish of each message."""
        messages = await self.watched.backend.store.run_messages(self.workspace.id, run_id)
        return [(m.role.value, m.text, m.finish.reason.value if m.finish else "") for m in messages]

    async def before_entry(self, run: Any) -> None:
        """The gate that the engine puts in front of the lane."""
        if self.at is At.ENTRY and run.record.id == HELD:
            await self.held.pass_through()

    async def respond(self, turn: Turn) -> None:
        """The agent."""
        self.began.append(turn.run_id)
        turn.say(f"You said: {turn.prompt.text}. ")
        if turn.run_id == AHEAD:
            await self.ahead.pass_through()
            if await turn.steered():
                turn.say("I heard you.")
                await self.ahead.pass_through()
        elif turn.run_id == HELD and self.at is At.TOOL:
            turn.begin_tool_call("call", self.tool.name)
            await turn.call_tool(turn.end_tool_call("call"))
        elif turn.run_id == HELD and self.at is At.AGENT:
            await self.held.pass_through()
        else:
            await trio.lowlevel.checkpoint()

    async def _send(self, policy: str) -> None:
        try:
            self.answers.append(await self.watched.send("held", run_id=HELD, **{"if_busy": policy, **self.prompt}))
        except Exception as error:
            self.answers.append(error)


@asynccontextmanager
async def open_staged(
    at: At,
    path: object,
    *,
    check: bool = True,
    beneath: Callable[[Store], Store] = lambda store: store,
    prompt: Mapping[str, Any] = MappingProxyType({}),
    **settings: Any,
) -> AsyncIterator[Staged]:
    """Open an engine and hold a run in it. Whatever is left held is released at the end. `beneath` goes between the
    engine's store and the one that holds commits; `prompt` is what the run asks for beside its words."""
    tool = GateTool()
    stores: list[HoldingStore] = []
    staged = Staged(at, tool, prompt)

    def wrap(store: Store) -> Store:
        stores.append(HoldingStore(beneath(store)))
        return stores[0]

    bounds = EngineSettings(data_dir=None, **{"max_active_runs": 1 if at is At.SLOT else 64, **settings})
    async with (
        open_watched(
            path=str(path), agent=ScriptedAgent(staged.respond), settings=bounds, before_entry=staged.before_entry,
            wrap_store=wrap, tools={tool.name: tool}, check=check,
        ) as watched,
        trio.open_nursery() as nursery,
    ):  # fmt: skip
        staged.watched, staged.store, staged.nursery = watched, stores[0], nursery
        try:
            with trio.fail_after(10):
                await staged.bring()
            yield staged
        finally:
            staged.release()
            staged.store.release()
