"""R25: what a sub-agent had said when the server died is kept, closed with the run that it worked for."""

from pathlib import Path

import pytest
import trio
import trio.testing

from engine.records.change import Change, UpdateMessage
from engine.records.message import FinishReason, Message, Role
from engine.records.run import OnCrash, RunState
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import open_watched
from tests.doubles.gate import Gate
from tests.doubles.restarting import open_disk
from tests.doubles.store import FailingStore
from tests.doubles.sub_agents import ask, child_sessions, last_answer, look, reason, results, tools

WORK = [[{"text": "I look."}, {"tool": "view", "id": "c"}], [{"text": "It is here."}]]
PROMPT = script([ask(*WORK), ask(*WORK, call="too")], [{"text": "Done."}])


@pytest.mark.parametrize("canceled", [False, True])
async def test_r25_a_sub_agent_in_a_tool_is_closed_as_its_run_is(
    canceled: bool, autojump_clock: object, tmp_path: Path
) -> None:
    view = look(Gate())
    async with open_disk() as disk:
        async with disk.first_server(tmp_path, tools=tools(view), **coder(RecordingModel())) as first:
            run = await first.send(PROMPT)
            await trio.sleep(10)
            if canceled:  # on record, and the server dies before it has done anything about it
                mortal, disk.mortal.changes = disk.mortal, 1
                with trio.move_on_after(1):
                    await first.workspace.cancel_run(run.id, "enough")
                assert mortal.is_dead
        async with disk.next_server(tmp_path) as again:
            ended = await again.ended(run)
            assert ended.state is (RunState.CANCELED if canceled else RunState.INTERRUPTED)
            sessions = await child_sessions(again)
            assert len(sessions) == 2
            for session_id in sessions:
                messages = await again.messages(session_id)
                assert [m.role for m in messages] == [Role.USER, Role.ASSISTANT, Role.TOOL]
                assert last_answer(messages).text == "I look."
                assert reason(messages) is (FinishReason.CANCELED if canceled else FinishReason.ERROR)
                assert (await results(again, session_id))["c"].is_error
            assert {call: one.is_error for call, one in (await results(again)).items()} == {"ask": True, "too": True}
            assert ended.message_id == last_answer(await again.messages()).id


async def test_r25_a_sub_agent_that_had_ended_keeps_its_ending(autojump_clock: object, tmp_path: Path) -> None:
    steps = script([ask(*WORK)], [{"text": "I think"}, {"hang": True}])
    async with open_disk() as disk:
        async with disk.first_server(tmp_path, tools=tools(), **coder(RecordingModel())) as first:
            run = await first.send(steps)
            await trio.sleep(10)
        async with disk.next_server(tmp_path) as again:
            assert (await again.ended(run)).state is RunState.INTERRUPTED
            [session_id] = await child_sessions(again)
            assert reason(await again.messages(session_id)) is FinishReason.END_TURN
            assert (await results(again))["ask"].content == "It is here."
            assert last_answer(await again.messages()).text == "I think"


async def test_r25_wherever_the_server_dies_nothing_of_a_sub_agent_stays_open(
    autojump_clock: object, tmp_path: Path
) -> None:
    survived = False
    for changes in range(1, 40):
        async with open_disk() as disk:
            async with disk.first_server(tmp_path, tools=tools(), **coder(RecordingModel())) as first:
                disk.mortal.changes = changes
                with trio.move_on_after(10):
                    run = await first.send(script([ask(*WORK)], [{"text": "Done."}]), run_id="run")
                    await trio.sleep(5)
                survived = not disk.mortal.is_dead
            async with disk.next_server(tmp_path, tools=tools(), **coder(RecordingModel())) as again:
                assert (await again.ended(run)).state in {RunState.INTERRUPTED, RunState.COMPLETED}
        if survived:
            break
    assert survived
    assert changes > 12, "it died behind every commit of the run"


async def test_r25_no_sub_agent_is_stored_without_the_call_that_asked_for_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    view = look(Gate())
    forgetful = lambda store: FailingStore(store, asks)  # noqa: E731
    async with open_watched(
        path=str(tmp_path), tools=tools(view), wrap_store=forgetful, **coder(RecordingModel())
    ) as watched:  # fmt: skip
        run = await watched.send(PROMPT)
        await view.gate.reached()
        assert len(await child_sessions(watched)) == 2
        await watched.workspace.cancel_run(run.id)
        assert (await watched.ended(run)).state is RunState.CANCELED


def asks(_: int, change: Change) -> bool:
    """Whether it stores nothing but that the agent calls a sub-agent."""
    return any(isinstance(write, UpdateMessage) and calls_agent(write.message) for write in change.writes)


def calls_agent(message: Message) -> bool:
    """Whether the message holds the call of a sub-agent."""
    return any(call.name == "agent" for call in message.tool_calls)


async def test_r25_another_attempt_has_sub_agents_of_its_own(autojump_clock: object, tmp_path: Path) -> None:
    view = look(Gate())
    async with open_disk() as disk:
        async with disk.first_server(tmp_path, tools=tools(view), **coder(RecordingModel())) as first:
            run = await first.send(script([ask(*WORK)], [ask(*WORK)], [{"text": "Done."}]), on_crash=OnCrash.RETRY)
            await trio.sleep(10)
        async with disk.next_server(tmp_path, tools=tools(), **coder(RecordingModel())) as again:
            ended = await again.ended(run)
            assert (ended.state, ended.attempt) == (RunState.COMPLETED, 2)
            sessions = await child_sessions(again)
            reasons = [reason(await again.messages(session_id)) for session_id in sessions]
            assert reasons == [FinishReason.ERROR, FinishReason.END_TURN]


async def test_r25_a_run_that_was_steered_ends_with_the_words_of_its_host_and_not_of_a_sub_agent(
    autojump_clock: object, tmp_path: Path
) -> None:
    view, steps = look(Gate()), script([{"tool": "view", "id": "a"}], [ask(*WORK)])
    async with open_disk() as disk:
        async with disk.first_server(tmp_path, tools=tools(view), **coder(RecordingModel())) as first:
            host = await first.send(steps)
            await view.gate.reached()
            steered = await first.send("and this", if_busy="steer")
            old, view.gate = view.gate, Gate()
            old.open()
            await trio.sleep(10)
        async with disk.next_server(tmp_path) as again:
            ends = [await again.ended(run) for run in (host, steered)]
            last = last_answer(await again.messages())
            assert [each.message_id for each in ends] == [last.id, last.id]
            assert ends[1].steered_into == host.id
