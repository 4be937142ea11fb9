"""R10: what a canceled turn leaves behind, with the built-in agent over the offline model."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.agents.transcript import CANCELED_NOTE
from engine.records.event import RunCompleted
from engine.records.message import FinishReason, Message, Reasoning, Role, Text
from engine.records.run import RunState
from engine.store.protocol import Store
from engine.tools.toolbox import OpenTools
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import HoldingStore, accepts, settles
from tests.doubles.tools import GateTool


async def test_r10_text_and_reasoning_that_were_streamed_stay(autojump_clock: object, tmp_path: object) -> None:
    gate = Gate()
    model = RecordingModel(gates={"middle": gate})
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        steps = [{"think": "Let me see."}, {"text": "It is "}, {"text": "half"}, {"gate": "middle"}, {"text": " done."}]
        run = await watched.send(script(steps))
        await gate.reached()
        assert await watched.workspace.cancel_session(watched.session_id, "enough") == (run.id,)
        assert (await watched.ended(run)).state is RunState.CANCELED
        _, answer = await watched.messages()
        reasoning, text, finish = answer.parts
        assert isinstance(reasoning, Reasoning)
        assert (reasoning.thinking, bool(reasoning.finished_at_us)) == ("Let me see.", True)
        assert text == Text("It is half")
        assert answer.finish == finish
        assert (answer.finish.reason, answer.finish.details) == (FinishReason.CANCELED, "enough")
        [terminal] = await watched.terminal_events(run)
        assert (terminal.message_id, terminal.text) == (answer.id, "It is half")


async def test_r10_thinking_that_was_under_way_stays_and_is_ended(autojump_clock: object, tmp_path: object) -> None:
    async with open_watched(path=str(tmp_path), **coder(RecordingModel())) as watched:
        run = await watched.send(script([{"think": "Let me"}, {"think": " see."}, {"hang": True}]))
        await trio.sleep(1)
        await watched.workspace.cancel_session(watched.session_id)
        await watched.ended(run)
        reasoning = (await watched.messages())[1].parts[0]
        assert isinstance(reasoning, Reasoning)
        assert (reasoning.thinking, bool(reasoning.finished_at_us)) == ("Let me see.", True)


async def test_r10_tool_that_takes_a_while_to_clean_up_has_done_so_before_the_terminal_event(
    autojump_clock: object, tmp_path: object
) -> None:
    class Lingering(GateTool):
        async def call(self, *given: Any) -> Any:
            try:
                return await super().call(*given)
            finally:
                self.left -= 1
                with trio.move_on_after(5, shield=True):
                    await trio.sleep(0.5)
                    self.left += 1

    tool = Lingering()
    async with open_watched(path=str(tmp_path), tools={"wait": tool}, **coder(RecordingModel())) as watched:
        run = await watched.send(script([{"tool": "wait"}]))
        await tool.gate.reached()
        async with watched.workspace.open_feed(after=None, run_id=run.id) as feed:
            await watched.workspace.cancel_session(watched.session_id)
            while not any(isinstance(event.body, RunCompleted) for event in await feed.receive()):
                assert tool.left == 0
            assert tool.left == 1


async def test_r10_model_connection_and_tools_are_done_before_the_terminal_event(
    autojump_clock: object, tmp_path: object
) -> None:
    tool = GateTool()
    model = RecordingModel(gates={"middle": Gate()})
    scripts: tuple[list[dict[str, object]], ...] = (
        [{"text": "a"}, {"gate": "middle"}],
        [{"tool": "wait"}],
        [{"think": "a"}, {"hang": True}],
    )
    for steps in scripts:
        stores: list[HoldingStore] = []
        async with open_watched(
            path=str(tmp_path), tools={"wait": tool}, wrap_store=partial(keep, stores), **coder(model)
        ) as watched:
            ending = stores[0].hold(settles("run"))
            await watched.send(script(steps), run_id="run")
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watched.workspace.cancel_session, watched.session_id)
                await ending.reached()
                assert model.statistics().open == 0
                assert tool.left == tool.begun
                ending.open()
    assert tool.begun == 1


@pytest.mark.parametrize("where", ["between tools", "in the call", "in the input", "before the tools"])
async def test_r10_each_tool_call_without_a_result_gets_one_that_says_canceled(
    where: str, autojump_clock: object, tmp_path: object
) -> None:
    first, second, gate = GateTool("first"), GateTool("second"), Gate()
    first.gate.open()
    calls: list[dict[str, object]] = [{"tool": "first", "id": "one"}, {"tool": "second", "id": "two"}]
    if where == "in the input":
        calls = [*calls, {"tool": "third", "id": "three", "input": {"a": 1}, "unfinished": True}, {"hang": True}]
    elif where == "before the tools":
        calls.append({"gate": "gate"})
    model = RecordingModel(gates={"gate": gate})
    async with open_watched(path=str(tmp_path), tools={"first": first, "second": second}, **coder(model)) as watched:
        if where == "in the call":
            first.gate = Gate()
        run = await watched.send(script(calls))
        await trio.testing.wait_all_tasks_blocked()
        await watched.workspace.cancel_session(watched.session_id)
        assert (await watched.ended(run)).state is RunState.CANCELED
        messages = await watched.messages()
        results = {result.tool_call_id: result for message in messages for result in message.tool_results}
        asked = [call.id for message in messages for call in message.tool_calls]
        assert sorted(results) == sorted(asked)
        assert all(call.finished for message in messages for call in message.tool_calls)
        done = {"one"} if where == "between tools" else set()
        for call_id, result in results.items():
            assert result.is_error == (call_id not in done)
            assert ("canceled" in result.content) == (call_id not in done)


async def test_r10_call_under_an_id_that_an_answered_one_has_too_gets_a_result_of_its_own(
    autojump_clock: object, tmp_path: object
) -> None:
    async def respond(turn: Any) -> None:
        turn.begin_tool_call("call_0", "tool")
        await turn.call_tool(turn.end_tool_call("call_0"))
        await turn.next_step()
        turn.begin_tool_call("call_0", "tool")
        turn.end_tool_call("call_0")
        await trio.sleep_forever()

    tools = {"tool": GateTool("tool", gate=Gate(is_open=True))}
    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond), tools=tools) as watched:
        run = await watched.send("hi")
        await trio.testing.wait_all_tasks_blocked()
        await watched.workspace.cancel_session(watched.session_id)
        await watched.ended(run)
        results = [result for message in await watched.messages() for result in message.tool_results]
        assert [(result.tool_call_id, result.is_error) for result in results] == [("call_0", False), ("call_0", True)]


@pytest.mark.parametrize("steps", [1, 2])
async def test_r10_later_runs_show_the_model_what_was_said_marked_as_canceled(
    steps: int, autojump_clock: object, tmp_path: object
) -> None:
    model, tool = RecordingModel(), GateTool()
    tool.gate.open()
    async with open_watched(path=str(tmp_path), tools={"wait": tool}, **coder(model)) as watched:
        script_of: list[list[dict[str, object]]] = [
            [{"text": "I call."}, {"tool": "wait"}],
            [{"text": "Half of"}, {"hang": True}],
        ]
        if steps == 1:
            tool.gate = Gate()
        await watched.send(script(*script_of, say="the canceled prompt"))
        await trio.testing.wait_all_tasks_blocked()
        await watched.workspace.cancel_session(watched.session_id)
        later = await watched.send(script([{"text": "Done."}], say="the next prompt"))
        assert (await watched.ended(later)).state is RunState.COMPLETED
        seen = [
            (m.role, m.text, [(r.content, r.is_error) for r in m.tool_results]) for m in model.requests[-1].messages
        ]
        assert seen[0][0] == "user"
        assert "the canceled prompt" in seen[0][1]
        if steps == 1:
            assert [role for role, _, _ in seen] == ["user", "assistant", "tool", "user"]
            assert seen[1][1] == f"I call.\n\n{CANCELED_NOTE}"
            [(content, is_error)] = seen[2][2]
            assert ("canceled" in content, is_error) == (True, True)
        else:
            assert [role for role, _, _ in seen] == ["user", "assistant", "tool", "assistant", "user"]
            assert seen[1][1] == "I call."
            assert seen[2][2] == [("wait is done", False)]
            assert seen[3][1] == f"Half of\n\n{CANCELED_NOTE}"


async def test_r10_earlier_steps_of_a_canceled_turn_stay_as_they_ended(
    autojump_clock: object, tmp_path: object
) -> None:
    model, tool = RecordingModel(), GateTool()
    tool.gate.open()
    async with open_watched(path=str(tmp_path), tools={"wait": tool}, **coder(model)) as watched:
        run = await watched.send(script([{"tool": "wait"}], [{"text": "so far"}, {"hang": True}]))
        await trio.testing.wait_all_tasks_blocked()
        await watched.workspace.cancel_run(run.id)
        await watched.ended(run)
        assert outline(await watched.messages())[1:] == [
            (Role.ASSISTANT, "", FinishReason.TOOL_USE),
            (Role.TOOL, "", FinishReason.STOP),
            (Role.ASSISTANT, "so far", FinishReason.CANCELED),
        ]


async def test_r10_bad_arguments_of_a_canceled_call_leave_valid_json(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Turn) -> None:
        turn.begin_tool_call("call", "tool")
        turn.append_tool_input("call", '{"half": ')
        await trio.sleep_forever()

    watched.agent.respond_with = respond
    run = await watched.send("go")
    await trio.testing.wait_all_tasks_blocked()
    await watched.workspace.cancel_run(run.id)
    await watched.ended(run)
    calls = [call for message in await watched.messages() for call in message.tool_calls]
    assert [(json.loads(call.input), call.finished) for call in calls] == [({}, True)]


def keep(stores: list[HoldingStore], store: Store) -> HoldingStore:
    """Wrap the store, and keep the wrapper where the test finds it."""
    stores.append(HoldingStore(store))
    return stores[-1]


def outline(messages: list[Message]) -> list[tuple[Role, str, FinishReason | None]]:
    """Who said what, and how it ended."""
    return [(m.role, m.text, m.finish.reason if m.finish else None) for m in messages]


@pytest.mark.parametrize("end", ["canceled", "interrupted on record", "failed", "completed"])
async def test_r10_what_a_run_has_left_running_is_ended_before_its_terminal_event_unless_it_ended_well(
    autojump_clock: object, tmp_path: object, end: str
) -> None:
    ended: list[tuple[str, bool]] = []
    tool = GateTool()
    stores: list[HoldingStore] = []

    @asynccontextmanager
    async def open_tools(seams: object) -> AsyncIterator[OpenTools]:
        async def end_run(run_id: str) -> None:
            await trio.lowlevel.checkpoint()
            ended.append((run_id, any(settles(run_id)(write) for write in stores[0].written)))

        yield OpenTools(tools={"wait": tool}, end_run=end_run)

    last_words = Gate()
    ends: list[dict[str, object]] = [{"fail": "bad_request"}] if end == "failed" else [{"text": "done"}]
    model = RecordingModel(gates={"last words": last_words})
    async with (
        open_watched(path=str(tmp_path), tools=open_tools, wrap_store=partial(keep, stores), **coder(model)) as watched,
        trio.open_nursery() as nursery,
    ):
        run = await watched.send(script([{"tool": "wait"}], [{"gate": "last words"}, *ends]))
        await tool.gate.reached()
        if end == "canceled":
            await watched.workspace.cancel_run(run.id)
        tool.gate.open()
        if end == "interrupted on record":
            # Its cancel is committed, with the prompt that interrupts; the flag is to come.
            await last_words.reached()
            committed = stores[0].hold(accepts("now"), after=True)
            nursery.start_soon(lambda: watched.send("now", run_id="now", if_busy="interrupt"))
            await committed.reached()
        last_words.open()
        await trio.testing.wait_all_tasks_blocked()
        stores[0].release()
        assert (await watched.ended(run)).state.value == ("canceled" if "record" in end else end)
    assert ended == [(run.id, False)] * (end != "completed")
