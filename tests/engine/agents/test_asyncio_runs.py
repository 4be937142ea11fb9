"""Agents written for asyncio in a whole engine: whatever they do, their runs end as the contract says."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.asyncio_agent import AsyncioTurn, asyncio_agent
from engine.records.run import Purpose, RunState
from tests.doubles.engine import open_watched
from tests.doubles.sub_agents import child_sessions, reason, tools
from tests.doubles.tools import GateTool


async def sleep(turn: Any) -> None:
    await asyncio.sleep(1000)


async def call_a_tool(turn: Any) -> None:
    turn.begin_tool_call("call", "wait")
    await turn.call_tool(turn.end_tool_call("call"))


async def swallow_everything(turn: Any) -> None:
    for _ in range(100):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)


async def leave_a_task(turn: Any) -> None:
    async def speak_at_last() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            turn.say(" Late.")

    turn.left = asyncio.create_task(speak_at_last())
    await asyncio.sleep(0)


async def cancel_itself(turn: Any) -> None:
    raise asyncio.CancelledError


async def exit_the_process(turn: Any) -> None:
    raise SystemExit(2)


@pytest.mark.parametrize("how", ["a cancel", "its deadline"])
@pytest.mark.parametrize("wait", [sleep, call_a_tool, swallow_everything])
async def test_r22_run_of_an_asyncio_agent_ends_by(
    how: str, wait: Any, autojump_clock: object, tmp_path: object
) -> None:
    async def respond(turn: Any) -> None:
        turn.say("I begin.")
        if turn.prompt.text == "hi":
            await wait(turn)

    tool = GateTool()
    async with open_watched(path=str(tmp_path), agent=asyncio_agent(respond), tools={"wait": tool}) as watched:
        run = await watched.send("hi", timeout_s=5 if how == "its deadline" else None)
        await trio.testing.wait_all_tasks_blocked()
        if how == "a cancel":
            assert await watched.workspace.cancel_session(watched.session_id) == (run.id,)
        ended = await watched.ended(run, 20)
        assert ended.state is (RunState.CANCELED if how == "a cancel" else RunState.FAILED)
        assert (await watched.messages())[1].text == "I begin."
        assert tool.left == tool.begun
        assert (await watched.ended(await watched.send("next"))).state is RunState.COMPLETED


@pytest.mark.parametrize(
    ("act", "state"),
    [
        (leave_a_task, RunState.COMPLETED),
        (cancel_itself, RunState.FAILED),
        (exit_the_process, RunState.FAILED),
    ],
)
async def test_r22_run_of_an_asyncio_agent_ends_and_the_next_one_runs_though_it_does(
    act: Any, state: RunState, autojump_clock: object, tmp_path: object
) -> None:
    async def respond(turn: Any) -> None:
        turn.say("I begin.")
        if turn.prompt.text == "hi":
            await act(turn)

    async with open_watched(path=str(tmp_path), agent=asyncio_agent(respond)) as watched:
        ended = await watched.ended(await watched.send("hi"), 20)
        assert ended.state is state
        assert (await watched.ended(await watched.send("next"))).state is RunState.COMPLETED


@pytest.mark.parametrize("end", ["completed", "canceled"])
async def test_an_asyncio_agent_answers_as_its_own_sub_agent(autojump_clock: object, tmp_path: Path, end: str) -> None:
    async def respond(turn: AsyncioTurn) -> None:
        if turn.prompt.purpose is Purpose.DELEGATED:
            await asyncio.sleep(1 if end == "completed" else 1000)
            turn.say("found")
            return
        turn.begin_tool_call("ask", "agent")
        turn.append_tool_input("ask", '{"prompt": "look"}')
        turn.say((await turn.call_tool(turn.end_tool_call("ask"))).content)

    async with open_watched(path=str(tmp_path), agent=asyncio_agent(respond), tools=tools()) as watched:
        run = await watched.send()
        await trio.sleep(0.5)
        if end == "canceled":
            await watched.workspace.cancel_run(run.id)
        assert (await watched.ended(run, 10)).state == end
        [session_id] = await child_sessions(watched)
        assert (reason(await watched.messages(session_id)) == "canceled") == (end == "canceled")
