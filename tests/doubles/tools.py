"""Tools for tests."""

from collections.abc import Mapping

import trio

from engine.tools.protocol import ToolContext, ToolOutcome
from tests.doubles.gate import Gate


class GateTool:
    """A tool that stands at a gate in the middle of each call, and counts how many were left, by whatever way."""

    def __init__(self, name: str = "wait", *, gate: Gate | None = None, ends_turn: bool = False) -> None:
        self.name = name
        self.description = "Waits."
        self.parameters: Mapping[str, object] = {"type": "object"}
        self.is_parallel = False
        self.gate = gate or Gate()
        self.ends_turn = ends_turn
        self.begun = 0
        self.left = 0

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Stand at the gate, and say so."""
        self.begun += 1
        try:
            await self.gate.pass_through()
        finally:
            self.left += 1
        return ToolOutcome(content=f"{self.name} is done", ends_turn=self.ends_turn)


class SleepTool:
    """A tool that takes as many seconds as it is told."""

    name = "wait"
    description = "Waits."
    parameters: Mapping[str, object] = {"type": "object", "properties": {"seconds": {"type": "number"}}}
    is_parallel = False

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Sleep."""
        seconds = arguments.get("seconds")
        assert isinstance(seconds, int | float)
        await trio.sleep(seconds)
        return ToolOutcome(content=f"waited {seconds:g} s")
