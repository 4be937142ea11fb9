"""R15: what happens to a prompt while its session is busy: enqueue, reject, interrupt or steer."""

from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from engine.errors import SessionBusy
from engine.records.event import RunCompleted
from engine.records.message import Role
from engine.records.run import RunState
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import accepts
from tests.doubles.stages import AHEAD, HELD, At, open_staged
from tests.doubles.tools import GateTool
from tests.doubles.waiting import until


@pytest.mark.parametrize("policy", ["enqueue", "reject", "interrupt", "steer"])
async def test_r15_prompt_to_an_idle_session_runs_at_once_with(
    policy: str, watched: Watched, autojump_clock: object
) -> None:
    for _ in range(2):
        run = await watched.send("hi", if_busy=policy)
        ended = await watched.ended(run)
        assert (ended.state, ended.steered_into) == (RunState.COMPLETED, None)


async def test_r15_enqueue_is_the_default_and_runs_after_what_is_before_it(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        await staged.watched.send("behind", run_id="behind")
        assert await staged.state() is RunState.QUEUED
        staged.ahead.open()
        for run_id in (AHEAD, HELD, "behind"):
            assert (await staged.ended(run_id)).state is RunState.COMPLETED
        assert staged.began == [AHEAD, HELD, "behind"]


@pytest.mark.parametrize("at", [At.COMMIT, At.ENTRY, At.QUEUE, At.SLOT, At.START, At.AGENT, At.TOOL, At.STEERED])
async def test_r15_reject_refuses_a_prompt_while_a_run_is(at: At, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(at, tmp_path) as staged:
        await trio.testing.wait_all_tasks_blocked()
        before = len(await staged.watched.events())
        with pytest.raises(SessionBusy) as refused:
            await staged.watched.send("rejected", if_busy="reject")
        assert refused.value.session_id == staged.session_id
        assert len(await staged.watched.events()) == before
        staged.release()
        await staged.ended()
        await trio.testing.wait_all_tasks_blocked()
        again = await staged.watched.send("taken", if_busy="reject")
        assert (await staged.watched.ended(again)).state is RunState.COMPLETED


@pytest.mark.parametrize("at", [At.COMMIT, At.ENTRY, At.QUEUE, At.SLOT, At.START, At.AGENT, At.TOOL, At.STEERED])
async def test_r15_interrupt_cancels_what_is_before_it_and_runs_although_a_run_is(
    at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path) as staged:
        await staged.under_hold(lambda: staged.watched.send("now", run_id="now", if_busy="interrupt"))
        if at is At.SLOT:
            staged.ahead.open()
        assert (await staged.ended("now")).state is RunState.COMPLETED
        for run_id in {HELD, AHEAD} if at in {At.QUEUE, At.STEERED} else {HELD}:
            ended = await staged.ended(run_id)
            assert (ended.state, ended.cancel_reason) == (RunState.CANCELED, "interrupted by run now")


async def test_r15_interrupt_covers_no_run_that_is_accepted_after_it(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.AGENT, tmp_path) as staged:
        commit = staged.store.hold(accepts("now"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: staged.watched.send("now", run_id="now", if_busy="interrupt"))
            await commit.reached()
            nursery.start_soon(lambda: staged.watched.send("later", run_id="later"))
            await until(lambda: staged.workspace.lanes.find("later"))
            commit.open()
        assert (await staged.ended()).state is RunState.CANCELED
        assert (await staged.ended("now")).state is RunState.COMPLETED
        assert (await staged.ended("later")).state is RunState.COMPLETED
        assert staged.began == [HELD, "now", "later"]


async def test_r15_two_interrupts_leave_the_second(autojump_clock: object, tmp_path: object) -> None:
    for _ in range(10):
        async with open_staged(At.AGENT, tmp_path) as staged:
            async with trio.open_nursery() as nursery:
                for name in ("one", "two"):
                    nursery.start_soon(partial(staged.watched.send, name, run_id=name, if_busy="interrupt"))
                    await until(partial(staged.workspace.lanes.find, name))
            assert (await staged.ended()).state is RunState.CANCELED
            assert (await staged.ended("one")).state is RunState.CANCELED
            assert (await staged.ended("two")).state is RunState.COMPLETED


async def test_r15_steered_prompt_joins_the_active_turn_at_its_next_step(
    autojump_clock: object, tmp_path: object
) -> None:
    model, tool = RecordingModel(), GateTool()
    async with open_watched(path=str(tmp_path), tools={"wait": tool}, **coder(model)) as watched:
        host = await watched.send(script([{"text": "First I wait."}, {"tool": "wait"}], [{"text": "Now I know."}]))
        await tool.gate.reached()
        steered = [await watched.send(f"by the way {number}", if_busy="steer") for number in range(2)]
        tool.gate.open()
        ended = await watched.ended(host)
        assert (ended.state, ended.steered_into) == (RunState.COMPLETED, None)
        for run in steered:
            ended = await watched.ended(run)
            assert (ended.state, ended.steered_into) == (RunState.COMPLETED, host.id)
            [terminal] = await watched.terminal_events(run)
            assert (terminal.steered_into, terminal.text) == (host.id, "Now I know.")
        assert len(model.requests) == 2
        assert [(m.role, m.text) for m in model.requests[1].messages if m.role == "user"][1:] == [
            ("user", "by the way 0"),
            ("user", "by the way 1"),
        ]
        asked = [message.text for message in await watched.messages() if message.role is Role.USER]
        assert asked[1:] == ["by the way 0", "by the way 1"]


async def test_r15_prompt_that_has_not_entered_is_steered_in_at_the_step_after(
    autojump_clock: object, tmp_path: object
) -> None:
    steps, entry = [Gate(), Gate()], Gate()
    heard: list[list[str]] = []

    async def respond(turn: Any) -> None:
        for step in steps:
            await step.pass_through()
            heard.append([message.text for message in await turn.steered()])

    async def before_entry(run: Any) -> None:
        if run.record.id == "entering":
            await entry.pass_through()

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond), before_entry=before_entry) as watched:
        host = await watched.send("host", run_id="host")
        await steps[0].reached()
        run = await watched.send("by the way", run_id="entering", if_busy="steer")
        await entry.reached()
        steps[0].open()
        await steps[1].reached()
        entry.open()
        await trio.testing.wait_all_tasks_blocked()
        steps[1].open()
        assert (await watched.ended(host)).state is RunState.COMPLETED
        ended = await watched.ended(run)
        assert (ended.state, ended.steered_into, heard) == (RunState.COMPLETED, "host", [[], ["by the way"]])


async def test_r15_steered_prompt_whose_turn_has_no_next_step_is_a_turn_of_its_own(
    autojump_clock: object, tmp_path: object
) -> None:
    gate = Gate()
    model = RecordingModel(gates={"end": gate})
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        host = await watched.send(script([{"text": "I say it all."}, {"gate": "end"}]))
        await gate.reached()
        steered = await watched.send(script([{"text": "And I you."}], say="by the way"), if_busy="steer")
        gate.open()
        assert (await watched.ended(host)).state is RunState.COMPLETED
        ended = await watched.ended(steered)
        assert (ended.state, ended.steered_into) == (RunState.COMPLETED, None)
        assert [m.text for m in await watched.messages() if m.role is Role.ASSISTANT] == ["I say it all.", "And I you."]


async def test_r15_steered_prompt_overtakes_what_is_enqueued_but_no_turn(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.STEERED, tmp_path) as staged:
        await staged.watched.send("behind", run_id="behind")
        await staged.watched.send("too late", run_id="late", if_busy="steer")
        staged.release()
        for run_id in (AHEAD, HELD, "behind", "late"):
            assert (await staged.ended(run_id)).state is RunState.COMPLETED
        assert (await staged.ended()).steered_into == AHEAD
        # Nobody takes steered prompts in any more, so it waits in its place.
        assert (await staged.ended("late")).steered_into is None
        assert staged.began == [AHEAD, "behind", "late"]


async def test_r12_r15_host_is_canceled_alone_and_what_was_steered_into_it_runs(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.STEERED, tmp_path) as staged:
        await staged.watched.send("behind", run_id="behind")
        assert (await staged.workspace.cancel_run(AHEAD)).canceled == (AHEAD,)
        assert (await staged.ended(AHEAD)).state is RunState.CANCELED
        ended = await staged.ended()
        assert (ended.state, ended.steered_into) == (RunState.COMPLETED, None)
        assert (await staged.ended("behind")).state is RunState.COMPLETED
        assert staged.began == [AHEAD, HELD, "behind"]
        own = await staged.watched.backend.store.run_messages(staged.workspace.id, HELD)
        assert [m.text for m in own if m.role is Role.ASSISTANT] == ["You said: held. "]
        last = [event.body for event in await staged.watched.events() if isinstance(event.body, RunCompleted)]
        assert [(event.run_id, event.steered_into) for event in last] == [(AHEAD, None), (HELD, None), ("behind", None)]


async def test_r15_steered_run_that_went_back_and_is_canceled_then_does_not_run(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.STEERED, tmp_path) as staged:
        commit = staged.store.hold(lambda write: False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(staged.workspace.cancel_run, AHEAD)
            nursery.start_soon(staged.workspace.cancel_run, HELD)
        commit.open()
        for run_id in (AHEAD, HELD):
            assert (await staged.ended(run_id)).state is RunState.CANCELED
        assert staged.began == [AHEAD]


async def test_r15_steered_run_ends_as_its_host_when_that_times_out(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.STEERED, tmp_path, default_timeout_s=5) as staged:
        await trio.sleep(6)
        for run_id in (AHEAD, HELD):
            ended = await staged.ended(run_id)
            assert ended.state is RunState.FAILED
            assert ended.error is not None
            assert ended.error.type == "timeout"
        assert (await staged.ended()).steered_into == AHEAD
