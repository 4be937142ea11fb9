"""R21: at its deadline a run ends `failed` with the reason `timeout`, cleaned up as a canceled one."""

from typing import Any

import pytest
import trio

from engine.agents.protocol import Turn
from engine.clock import MICROSECONDS
from engine.records.message import FinishReason
from engine.records.run import RunRecord, RunState
from engine.settings import EngineSettings
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.store import StoreDouble
from tests.doubles.tools import GateTool


def lasted(run: RunRecord) -> float:
    """How long the run was active, in seconds."""
    assert run.ended_at_us is not None
    assert run.started_at_us is not None
    return (run.ended_at_us - run.started_at_us) / MICROSECONDS


async def hang(turn: Turn) -> None:
    """An agent that says a word and no more."""
    turn.say("I begin")
    await trio.sleep_forever()


async def test_r21_run_ends_at_its_deadline_and_says_so(watched: Watched, autojump_clock: object) -> None:
    watched.agent.respond_with = hang
    ended = await watched.ended(await watched.send("hi", timeout_s=2.5))
    assert lasted(ended) == 2.5
    assert ended.state is RunState.FAILED
    assert ended.error is not None
    assert ended.error.type == "timeout"
    assert "2.5 s" in ended.error.details
    _, answer = await watched.messages()
    assert answer.text == "I begin"
    assert answer.finish is not None
    assert (answer.finish.reason, answer.finish.title) == (FinishReason.ERROR, ended.error.title)
    [terminal] = await watched.terminal_events(ended)
    assert (terminal.error, terminal.text) == (ended.error, "I begin")


async def test_r21_default_deadline_is_the_configured_one(autojump_clock: object, tmp_path: object) -> None:
    settings = EngineSettings(data_dir=None, default_timeout_s=77.0)
    async with open_watched(path=str(tmp_path), settings=settings) as watched:
        watched.agent.respond_with = hang
        ended = await watched.ended(await watched.send("hi"), 100)
        assert lasted(ended) == 77
        assert ended.error is not None
        assert ended.error.type == "timeout"


async def test_r21_run_that_ends_in_time_is_not_touched(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Turn) -> None:
        await trio.sleep(9.99)

    watched.agent.respond_with = respond
    ended = await watched.ended(await watched.send("hi", timeout_s=10))
    assert (ended.state, ended.error) == (RunState.COMPLETED, None)


async def test_r21_waiting_in_the_queue_does_not_count(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Turn) -> None:
        await trio.sleep(9)

    watched.agent.respond_with = respond
    runs = [await watched.send("hi", timeout_s=10) for _ in range(4)]
    for run in runs:
        assert (await watched.ended(run)).state is RunState.COMPLETED


async def test_r21_deadline_leaves_no_call_open_and_no_connection(autojump_clock: object, tmp_path: object) -> None:
    model, tool = RecordingModel(), GateTool()
    async with open_watched(path=str(tmp_path), tools={"wait": tool}, **coder(model)) as watched:
        run = await watched.send(script([{"text": "I call."}, {"tool": "wait"}]), timeout_s=5)
        ended = await watched.ended(run)
        assert ended.error is not None
        assert (ended.error.type, lasted(ended)) == ("timeout", 5)
        [result] = [result for message in await watched.messages() for result in message.tool_results]
        assert result.is_error
        assert (tool.begun, tool.left, model.statistics().open) == (1, 1, 0)
        hung = await watched.ended(await watched.send(script([{"hang": True}]), timeout_s=5))
        assert (lasted(hung), model.statistics().open) == (5, 0)


@pytest.mark.parametrize("manner", ["swallows it", "raises something else", "cleans up for a while"])
async def test_r21_agent_that_is_stopped_at_the_deadline_and_what_it_does_then(
    manner: str, watched: Watched, autojump_clock: object
) -> None:
    async def respond(turn: Turn) -> None:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            if manner == "raises something else":
                raise ValueError("I was not done") from None
            if manner == "cleans up for a while":
                with trio.move_on_after(1, shield=True):
                    await trio.sleep_forever()
                raise

    watched.agent.respond_with = respond
    ended = await watched.ended(await watched.send("hi", timeout_s=10))
    assert ended.state is RunState.FAILED
    assert ended.error is not None
    assert ended.error.type == "timeout"


async def test_r21_time_in_which_the_history_is_read_counts(autojump_clock: object, tmp_path: object) -> None:
    reading = Gate()

    class Slow(StoreDouble):
        async def history(self, *args: Any) -> Any:
            await reading.pass_through()
            return await super().history(*args)

    async with open_watched(path=str(tmp_path), wrap_store=Slow) as watched:
        ended = await watched.ended(await watched.send("hi", timeout_s=5))
        assert ended.error is not None
        assert (ended.error.type, lasted(ended)) == ("timeout", 5)
        assert watched.agent.turns == []


async def test_r21_cancel_before_the_deadline_wins_and_the_deadline_before_a_cancel(
    watched: Watched, autojump_clock: object
) -> None:
    watched.agent.respond_with = hang
    run = await watched.send("hi", timeout_s=10)
    await trio.sleep(9.999)
    assert await watched.workspace.cancel_session(watched.session_id) == (run.id,)
    assert (await watched.ended(run)).state is RunState.CANCELED
    run = await watched.send("hi", timeout_s=10)
    await trio.sleep(10.001)
    assert await watched.workspace.cancel_session(watched.session_id) == ()
    assert (await watched.ended(run)).state is RunState.FAILED


async def test_r21_next_run_starts_when_the_one_before_it_has_timed_out(
    watched: Watched, autojump_clock: object
) -> None:
    watched.agent.respond_with = hang
    first = await watched.send("hi", timeout_s=10)
    second = await watched.send("hi", timeout_s=10)
    start = trio.current_time()
    await watched.ended(second)
    assert trio.current_time() == start + 20
    assert (await watched.ended(first)).state is RunState.FAILED
