"""Runs whose agent hands work to sub-agents, with tools under the test's hand."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.records.ids import SessionId
from engine.records.message import FinishReason, Message, Role, ToolResult
from engine.tools.agent import AgentTool
from tests.doubles.coder import script
from tests.doubles.engine import Watched
from tests.doubles.gate import Gate
from tests.doubles.tools import GateTool


def look(gate: Gate | None = None, **options: Any) -> GateTool:
    """A tool that a sub-agent may use too."""
    return GateTool("view", gate=gate or Gate(is_open=True), **options)


def tools(view: GateTool | None = None) -> dict[str, Any]:
    """`agent`, a tool for everybody, and one that is not for sub-agents."""
    return {"agent": AgentTool(), "view": view or look(), "write": GateTool("write")}


def ask(*steps: Sequence[Mapping[str, object]], call: str = "ask", say: str = "Find it.") -> dict[str, object]:
    """The call of a sub-agent that takes these steps."""
    return {"tool": "agent", "id": call, "input": {"prompt": script(*steps, say=say)}}


async def child_sessions(watched: Watched) -> list[SessionId]:
    """The sessions of the sub-agents, in the order of the calls."""
    messages = await watched.messages()
    calls = [(m.id, call.id) for m in messages for call in m.tool_calls if call.name == "agent"]
    found = [SessionId(f"{message_id}$${call_id}") for message_id, call_id in calls]
    return [each for each in found if await watched.backend.store.session(watched.workspace.id, each) is not None]


async def results(watched: Watched, session_id: str | None = None) -> dict[str, ToolResult]:
    """The results of the calls of a session."""
    messages = await watched.messages(session_id)
    return {result.tool_call_id: result for message in messages for result in message.tool_results}


def last_answer(messages: list[Message]) -> Message:
    """The last assistant message."""
    return [message for message in messages if message.role is Role.ASSISTANT][-1]


def reason(messages: list[Message]) -> FinishReason | None:
    """How the last answer ended."""
    finish = last_answer(messages).finish
    return finish.reason if finish is not None else None
