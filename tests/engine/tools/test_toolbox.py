"""The toolbox: who gets which tools."""

from pathlib import Path
from typing import Any

import pytest
import trio

from engine.agents.protocol import Turn
from engine.backend import NewWorkspace, open_backend
from engine.settings import EngineSettings
from engine.tools.toolbox import ToolSeams, open_toolbox, tool_seams
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.tools import GateTool

BUILT_IN = {
    "agent", "bash", "download", "edit", "fetch", "glob", "grep", "job_kill", "job_output", "ls", "multiedit",
    "question", "todos", "view", "write",
}  # fmt: skip
PARALLEL = {"agent", "download", "fetch", "glob", "grep", "ls", "view"}


async def offered(path: Path, **options: Any) -> set[str]:
    """The names of the tools that a turn is given."""
    seen: list[set[str]] = []

    class Looking(ScriptedAgent):
        async def respond(self, turn: Turn) -> None:
            await trio.lowlevel.checkpoint()
            seen.append(set(turn.tools()))

    async with open_watched(path=str(path), agent=Looking(), **options) as watched:
        await watched.ended(await watched.send())
    return seen[0]


async def test_an_agent_of_the_callers_gets_what_the_caller_gives(autojump_clock: object, tmp_path: Path) -> None:
    assert await offered(tmp_path) == set()
    assert await offered(tmp_path, tools={"wait": GateTool()}) == {"wait"}
    assert await offered(tmp_path, tools=open_toolbox) >= BUILT_IN


async def test_tools_can_be_switched_off(autojump_clock: object, tmp_path: Path) -> None:
    settings = EngineSettings(data_dir=None, disabled_tools=frozenset({"write", "edit", "no such tool"}))
    assert not await offered(tmp_path, tools=open_toolbox, settings=settings) & {"write", "edit"}


async def test_the_built_in_agent_gets_the_built_in_tools(autojump_clock: object, tmp_path: Path) -> None:
    async with open_backend(EngineSettings(data_dir=None), environ={}) as backend:
        workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
        assert set(workspace._runner._seams.tools) >= BUILT_IN
    async with open_backend(EngineSettings(data_dir=None), environ={}, tools={}) as backend:
        workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
        assert workspace._runner._seams.tools == {}


async def test_a_model_is_told_of_them_and_may_call_them(autojump_clock: object, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    model = RecordingModel()
    settings = EngineSettings(data_dir=None, allowed_tools=frozenset({"edit:write"}))
    options = {"tools": open_toolbox, "settings": settings, **coder(model)}
    async with open_watched(path=str(tmp_path), **options) as watched:
        edit = {"file_path": "a.txt", "old_string": "hello", "new_string": "bye"}
        steps = (
            [{"tool": "view", "input": {"file_path": "a.txt"}}],
            [{"tool": "edit", "input": edit}],
            [{"text": "done"}],
        )
        await watched.ended(await watched.send(script(*steps)))
    assert {tool.name for tool in model.requests[0].tools} >= BUILT_IN
    assert "     1|hello" in model.last_seen
    assert (tmp_path / "a.txt").read_text() == "bye"


def seams_of(watched: Watched, root: Path) -> ToolSeams:
    """What the tools of a workspace are built on."""
    backend = watched.backend
    return tool_seams(
        id=watched.workspace.id, root=root, settings=backend.settings, store=backend.store, log=backend.log,
        now_us=lambda: 0, environment={},
    )  # fmt: skip


@pytest.mark.parametrize("name", sorted(BUILT_IN))
async def test_a_tool_says_what_a_model_needs_to_know(autojump_clock: object, tmp_path: Path, name: str) -> None:
    async with open_watched(path=str(tmp_path)) as watched, open_toolbox(seams_of(watched, tmp_path)) as opened:
        tool = opened.tools[name]
        assert tool.name == name
        assert 60 < len(tool.description) < 700
        assert tool.parameters["type"] == "object"
        assert tool.is_parallel == (name in PARALLEL)
        properties = tool.parameters["properties"]
        assert isinstance(properties, dict)
        required = tool.parameters.get("required", [])
        assert isinstance(required, list)
        assert set(required) <= set(properties)
