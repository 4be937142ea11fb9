"""The race that everything grew from: a cancel lands after a prompt is accepted and before its run has entered."""

import pytest
import trio

from engine.records.message import FinishReason, Role
from engine.records.run import RunState
from tests.doubles.engine import ScriptedAgent, open_watched
from tests.doubles.gate import Gate


@pytest.mark.parametrize("by_run", [False, True], ids=["by session", "by run"])
async def test_r09_cancel_before_entry_leaves_a_canceled_turn_and_calls_no_model(
    autojump_clock: object, tmp_path: object, by_run: bool
) -> None:
    gate, agent = Gate(), ScriptedAgent()
    async with open_watched(path=str(tmp_path), agent=agent, before_entry=gate.pass_through) as watched:
        run = await watched.send("hi")
        await gate.reached()
        if by_run:
            assert (await watched.workspace.cancel_run(run.id)).canceled == (run.id,)
        else:
            assert await watched.workspace.cancel_session(watched.session_id) == (run.id,)
        assert (await watched.workspace.run(run.id)).cancel_requested_at_us is not None
        gate.open()
        with trio.fail_after(5):
            ended = await watched.ended(run)
        assert ended.state is RunState.CANCELED
        user, assistant = await watched.messages()
        assert (user.role, user.text) == (Role.USER, "hi")
        assert assistant.role is Role.ASSISTANT
        assert assistant.finish is not None
        assert assistant.finish.reason is FinishReason.CANCELED
        assert [event.state for event in await watched.terminal_events(run)] == [RunState.CANCELED]
        assert agent.turns == []
