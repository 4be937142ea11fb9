"""The tools of a scenario's agents: one that takes time, one that asks before it changes something, one that looks, one
that leaves a job running, and the real `question` and `agent`."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from engine.records.ids import RunId
from engine.tools.agent import AgentTool
from engine.tools.protocol import ToolContext, ToolOutcome
from engine.tools.question import QuestionTool
from engine.tools.toolbox import OpenTools, Toolbox, ToolSeams

if TYPE_CHECKING:
    from tests.explorer.world import World

ANYTHING: Mapping[str, object] = {"type": "object"}
PASSES_TO_KILL = 3  # turns of the scheduler until a job is dead


class WaitTool:
    """A tool that takes as long as its call says."""

    name = "wait"
    description = "Waits."
    parameters = ANYTHING
    is_parallel = False

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Wait."""
        await trio.sleep(milliseconds(arguments))
        return ToolOutcome(content="waited")


class ChangeTool:
    """A tool that asks first, and then takes as long as its call says."""

    name = "change"
    description = "Changes something."
    parameters = ANYTHING
    is_parallel = False

    def __init__(self, world: "World") -> None:
        self._world = world

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Ask, and change it."""
        await context.permit(action="write", path=Path("/elsewhere"))
        self._world.ledger.change(context.run_id, context.session_id, context.call_id)
        await trio.sleep(milliseconds(arguments))
        return ToolOutcome(content="changed")


class ViewTool:
    """A tool that only looks, which sub-agents have too. It asks first if its call says so."""

    name = "view"
    description = "Looks."
    parameters = ANYTHING
    is_parallel = True

    def __init__(self, world: "World") -> None:
        self._world = world

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Ask, if it is to, and look."""
        if arguments.get("asks"):
            await context.permit(action="read", path=Path("/elsewhere"))
            self._world.ledger.change(context.run_id, context.session_id, context.call_id)
        await trio.sleep(milliseconds(arguments))
        return ToolOutcome(content="seen")


class JobTool:
    """A tool that returns at once, and leaves something running."""

    name = "job"
    description = "Starts a job."
    parameters = ANYTHING
    is_parallel = False

    def __init__(self, world: "World") -> None:
        self._world = world

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Start it."""
        self._world.jobs[context.run_id] = self._world.jobs.get(context.run_id, 0) + 1
        await trio.lowlevel.checkpoint()
        return ToolOutcome(content="started")


def toolbox_of(world: "World") -> Toolbox:
    """The tools of a scenario."""

    @asynccontextmanager
    async def open_tools(seams: ToolSeams) -> AsyncIterator[OpenTools]:
        await trio.lowlevel.checkpoint()
        question = QuestionTool(seams.questions, seams.permissions)
        mine = (WaitTool(), ChangeTool(world), ViewTool(world), JobTool(world))
        tools = {tool.name: tool for tool in (*mine, question, AgentTool())}

        async def end_run(run_id: RunId) -> None:
            for _ in range(PASSES_TO_KILL if run_id in world.jobs else 1):
                await trio.lowlevel.cancel_shielded_checkpoint()
            world.jobs.pop(run_id, None)

        yield OpenTools(tools=tools, end_run=end_run)

    return open_tools


def milliseconds(arguments: Mapping[str, object]) -> float:
    """How many seconds a call is to take."""
    duration = arguments.get("ms", 0)
    assert isinstance(duration, int)
    return duration / 1000
