"""The tool calls of a step: side by side where tools allow it, else in order; circles are noticed."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
import trio.testing

from engine.agents.calls import SIDE_BY_SIDE, CallResult
from engine.agents.context_files import FILE_MAX, read_context_files
from engine.agents.loop_guard import REPEATS_MAX, LoopGuard
from engine.records.message import FinishReason, ToolCall
from engine.records.run import RunState
from engine.tools.protocol import ToolContext, ToolOutcome
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import open_watched
from tests.doubles.gate import Gate
from tests.doubles.tools import GateTool


class Counting(GateTool):
    """A tool that knows how many of its calls were inside at a time."""

    def __init__(self, name: str, *, is_parallel: bool, gate: Gate | None = None) -> None:
        super().__init__(name, gate=gate or Gate(is_open=True))
        self.is_parallel = is_parallel
        self.order: list[str] = []
        self.most = 0

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        self.order.append(context.call_id)
        self.most = max(self.most, self.begun + 1 - self.left)
        return await super().call(arguments, context)


def calls(name: str, count: int) -> list[dict[str, object]]:
    return [{"tool": name, "id": f"{name}{number}"} for number in range(count)]


async def test_calls_run_side_by_side_where_their_tools_allow_it_and_not_too_many(
    autojump_clock: object, tmp_path: Path
) -> None:
    tool = Counting("look", is_parallel=True, gate=Gate())
    async with open_watched(path=str(tmp_path), tools={"look": tool}, **coder(RecordingModel())) as watched:
        run = await watched.send(script(calls("look", 8), [{"text": "done"}]))
        await trio.testing.wait_all_tasks_blocked()
        assert (tool.begun, tool.left) == (SIDE_BY_SIDE, 0)
        tool.gate.open()
        assert (await watched.ended(run)).state is RunState.COMPLETED
        results = [one.tool_call_id for message in await watched.messages() for one in message.tool_results]
        assert (len(results), len(set(results)), tool.most) == (8, 8, SIDE_BY_SIDE)


async def test_other_calls_run_in_order_one_at_a_time(autojump_clock: object, tmp_path: Path) -> None:
    look, edit = Counting("look", is_parallel=True), Counting("edit", is_parallel=False)
    tools = {"look": look, "edit": edit}
    async with open_watched(path=str(tmp_path), tools=tools, **coder(RecordingModel())) as watched:
        step: list[dict[str, object]] = [*calls("edit", 3), *calls("look", 2), {"tool": "edit", "id": "edit9"}]
        run = await watched.send(script(step, [{"text": "done"}]))
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert (len(edit.order), edit.most) == (4, 1)
        results = [one.name for message in await watched.messages() for one in message.tool_results]
        assert results == ["edit"] * 3 + ["look"] * 2 + ["edit"]


async def test_r10_a_cancel_ends_calls_that_run_side_by_side(autojump_clock: object, tmp_path: Path) -> None:
    tool = Counting("look", is_parallel=True, gate=Gate())
    async with open_watched(path=str(tmp_path), tools={"look": tool}, **coder(RecordingModel())) as watched:
        run = await watched.send(script(calls("look", 7), [{"text": "done"}]))
        await trio.testing.wait_all_tasks_blocked()
        await watched.workspace.cancel_run(run.id)
        assert (await watched.ended(run)).state is RunState.CANCELED
        assert tool.begun == tool.left == SIDE_BY_SIDE


async def test_what_follows_a_call_that_ends_the_turn_is_not_run(autojump_clock: object, tmp_path: Path) -> None:
    last = GateTool("last", gate=Gate(is_open=True), ends_turn=True)
    edit = Counting("edit", is_parallel=False)
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), tools={"last": last, "edit": edit}, **coder(model)) as watched:
        run = await watched.send(script([{"tool": "last"}, *calls("edit", 2)], [{"text": "never"}]))
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert (edit.begun, len(model.requests)) == (0, 1)


async def test_an_agent_that_goes_round_in_circles_is_stopped_and_says_why(
    autojump_clock: object, tmp_path: Path
) -> None:
    tool = Counting("look", is_parallel=False)
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), tools={"look": tool}, **coder(model)) as watched:
        run = await watched.send(script(*([[{"tool": "look", "input": {"a": 1}}]] * 20)))
        assert (await watched.ended(run)).state is RunState.COMPLETED
        finishes = [message.finish for message in await watched.messages() if message.finish and message.finish.title]
        assert [(one.reason, one.title) for one in finishes] == [
            (FinishReason.UNKNOWN, "Stopped: the agent goes round in circles")
        ]
        assert "look" in finishes[0].details
        assert tool.begun == REPEATS_MAX + 1


def result(text: str, *, input: str = "{}", name: str = "look") -> CallResult:
    return CallResult(ToolCall("c", name, input, finished=True), ToolOutcome(content=text))


@pytest.mark.parametrize("step", [[result("{n}")], [result("same", input="{n}")], [result("same", name="{n}")], []])
def test_a_step_that_differs_in_anything_is_no_circle(step: list[CallResult]) -> None:
    guard = LoopGuard()
    for number in range(50):
        mine = [
            CallResult(
                ToolCall("c", one.call.name.format(n=number), one.call.input.replace("{n}", str(number))),
                ToolOutcome(content=one.outcome.content.format(n=number)),
            )
            for one in step
        ]
        assert not guard.sees_loop(mine)


def test_only_the_last_steps_count() -> None:
    guard = LoopGuard()
    for number in range(60):
        assert not guard.sees_loop([result("same" if number % 3 == 0 else str(number))])


async def test_what_the_project_says_of_itself_is_told_to_the_model(autojump_clock: object, tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("Use tabs.")
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        await watched.ended(await watched.send("hello"))
        assert '<file path="AGENTS.md">\nUse tabs.\n</file>' in model.requests[0].system


def test_r32_context_files_are_bounded_and_none_leads_outside(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (tmp_path / "secret").write_text("secret")
    (root / "AGENTS.md").symlink_to(tmp_path / "secret")
    (root / "CLAUDE.md").write_text("é" * FILE_MAX)
    (root / "CRUSH.md").symlink_to("CLAUDE.md")
    (root / ".cursorrules").mkdir()
    (root / "GEMINI.md").write_text("  \n")
    [found] = read_context_files(root)
    assert found.name == "CLAUDE.md"
    assert len(found.text.encode()) < FILE_MAX + 100
    assert found.text.endswith("[cut off here]")
