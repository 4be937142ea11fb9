"""R13: from the answer of a cancel to the terminal event nothing is waited for but the bounded writing of the turn."""

from typing import Any

import pytest
import trio

from engine.records.run import RunState
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import ScriptedAgent, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import settles
from tests.doubles.stages import CANCELABLE, HELD, HELD_BY_STORE, At, open_staged
from tests.doubles.store import StoreDouble
from tests.doubles.tools import GateTool


@pytest.mark.parametrize("by", ["session", "run"])
@pytest.mark.parametrize("at", [at for at in CANCELABLE if at not in HELD_BY_STORE])
async def test_r13_nothing_is_waited_for_when_a_run_is_canceled_that_is(
    at: At, by: str, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path) as staged:
        start = trio.current_time()
        if by == "session":
            await staged.under_hold(lambda: staged.workspace.cancel_session(staged.session_id))
        else:
            await staged.under_hold(lambda: staged.workspace.cancel_run(HELD))
        assert (await staged.workspace.wait_run(HELD, 3600)).state is RunState.CANCELED
        assert trio.current_time() == start


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([{"hang": True}], id="a model that says nothing"),
        pytest.param([{"text": "a", "repeat": 1000, "every": 60}], id="a slow model"),
        pytest.param([{"wait": 3600}], id="a model that thinks for an hour"),
        pytest.param([{"fail": "rate_limit", "retry_after": 50}], id="the wait before a retry"),
        pytest.param([{"text": "first"}, {"tool": "wait"}, {"tool": "wait"}], id="a tool that hangs"),
    ],
)
async def test_r13_cancel_does_not_wait_for(
    steps: list[dict[str, object]], autojump_clock: object, tmp_path: object
) -> None:
    model, tool = RecordingModel(), GateTool()
    async with open_watched(path=str(tmp_path), tools={"wait": tool}, **coder(model)) as watched:
        run = await watched.send(script(steps))
        await trio.sleep(100.5 if "every" in str(steps) else 10.5)
        assert model.statistics().opened >= 1
        start = trio.current_time()
        assert await watched.workspace.cancel_session(watched.session_id) == (run.id,)
        assert (await watched.ended(run)).state is RunState.CANCELED
        assert trio.current_time() == start
        assert model.statistics().open == 0
        assert tool.begun == tool.left


async def test_r13_cancel_does_not_wait_for_the_history_to_be_read(autojump_clock: object, tmp_path: object) -> None:
    reading = Gate()

    class Slow(StoreDouble):
        async def history(self, *args: Any) -> Any:
            await reading.pass_through()
            return await super().history(*args)

    async with open_watched(path=str(tmp_path), wrap_store=Slow) as watched:
        run = await watched.send("hi")
        await reading.reached()
        try:
            await watched.workspace.cancel_session(watched.session_id)
            assert (await watched.ended(run, 0.001)).state is RunState.CANCELED
        finally:
            reading.open()


async def test_r13_run_that_was_canceled_before_it_entered_does_not_wait_for_the_one_before_it(
    autojump_clock: object, tmp_path: object
) -> None:
    active, entry = Gate(), Gate()

    async def before_entry(run: Any) -> None:
        if run.record.id == "entering":
            await entry.pass_through()

    agent = ScriptedAgent(active.pass_through)
    async with open_watched(path=str(tmp_path), agent=agent, before_entry=before_entry) as watched:
        await watched.send("hi")
        await active.reached()
        run = await watched.send("hi", run_id="entering")
        await entry.reached()
        await watched.workspace.cancel_run(run.id)
        entry.open()
        try:
            assert (await watched.ended(run, 0.001)).state is RunState.CANCELED
        finally:
            active.open()


async def test_r13_next_run_of_the_session_starts_at_once(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.AGENT, tmp_path) as staged:
        start = trio.current_time()
        await staged.watched.send("next", run_id="next")
        await staged.workspace.cancel_run(HELD)
        assert (await staged.ended("next")).state is RunState.COMPLETED
        assert trio.current_time() == start


async def test_r13_writing_the_canceled_turn_holds_up_its_session_for_a_bounded_time_only(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.AGENT, tmp_path, settle_s=3.0) as staged:
        stuck = staged.store.hold(settles(HELD))
        await staged.workspace.cancel_session(staged.session_id)
        await stuck.reached()
        await trio.sleep(2.9)
        assert staged.workspace.is_session_busy(staged.session_id)
        await trio.sleep(0.2)
        assert not staged.workspace.is_session_busy(staged.session_id)
        stuck.open()
        assert (await staged.ended()).state is RunState.CANCELED
