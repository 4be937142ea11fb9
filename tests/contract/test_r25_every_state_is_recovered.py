"""R25: whatever state a run is in when its server dies, the next server gives it the ending that it was promised."""

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.records.event import RunCompleted
from engine.records.run import OnCrash, RunState
from tests.doubles.engine import ScriptedAgent
from tests.doubles.holding_store import cancels
from tests.doubles.restarting import SHORT, open_disk
from tests.doubles.stages import AHEAD, BEGUN, CANCELABLE, HELD, HELD_BY_STORE, UNBEGUN, At, open_staged

DURABLE = tuple(at for at in CANCELABLE if at not in HELD_BY_STORE)


@pytest.mark.parametrize("on_crash", OnCrash)
@pytest.mark.parametrize("is_canceled", [False, True], ids=["", "canceled"])
@pytest.mark.parametrize("at", DURABLE)
async def test_r25_every_state_with_and_without_a_cancel(
    at: At, is_canceled: bool, on_crash: OnCrash, autojump_clock: object, tmp_path: object
) -> None:
    async with open_disk() as disk:
        async with open_staged(
            at, tmp_path, beneath=lambda _: disk.mortal, check=False, prompt={"on_crash": on_crash}, **SHORT
        ) as staged:
            disk.session_id = staged.session_id
            if is_canceled:
                disk.mortal.last = cancels(HELD)
                await staged.workspace.cancel_run(HELD)
            disk.mortal.die()
        async with disk.next_server(tmp_path) as again:
            ended = await again.workspace.wait_run(HELD, 1)
            asked = [turn.run_id for turn in again.agent.turns]
            if is_canceled:
                assert ended.state is RunState.CANCELED
                assert HELD not in asked, "what was canceled calls no model"
            elif at in UNBEGUN or on_crash is OnCrash.RETRY:
                assert ended.state is RunState.COMPLETED
                assert asked.count(HELD) == 1
                is_retried = at in BEGUN and at is not At.STEERED
                assert ended.attempt == (2 if is_retried else 1)
                assert ended.steered_into is None
            else:
                assert (ended.state, ended.attempt) == (RunState.INTERRUPTED, 1)
                assert HELD not in asked
                assert ended.error is not None
                assert "send it again" in ended.error.details
                assert ended.steered_into == (AHEAD if at is At.STEERED else None)
            [told] = await again.terminal_events(ended)
            assert (told.state, told.error, told.steered_into) == (ended.state, ended.error, ended.steered_into)


async def test_r25_what_was_never_durable_is_not_there(autojump_clock: object, tmp_path: object) -> None:
    async with open_disk() as disk:
        async with open_staged(At.COMMIT, tmp_path, beneath=lambda _: disk.mortal, check=False, **SHORT) as staged:
            disk.session_id = staged.session_id
            disk.mortal.die()
        async with disk.next_server(tmp_path) as again:
            assert await again.workspace.runs() == []
            assert await again.messages() == []


async def test_r25_ending_that_was_not_durable_is_made_again(autojump_clock: object, tmp_path: object) -> None:
    async with open_disk() as disk:
        async with open_staged(At.ENDING, tmp_path, beneath=lambda _: disk.mortal, check=False, **SHORT) as staged:
            disk.session_id = staged.session_id
            disk.mortal.die()
        async with disk.next_server(tmp_path) as again:
            assert (await again.workspace.wait_run(HELD, 1)).state is RunState.INTERRUPTED


async def test_r25_many_runs_in_every_state_have_one_ending_each_and_start_in_accept_order(
    autojump_clock: object, tmp_path: object
) -> None:
    async def respond(turn: Turn) -> None:
        await trio.sleep_forever()

    async with open_disk() as disk:
        async with disk.first_server(tmp_path, agent=ScriptedAgent(respond)) as first:
            sessions = [await first.workspace.sessions.create("s") for _ in range(20)]
            runs = []
            for number in range(10):
                policy = OnCrash.RETRY if number % 2 else OnCrash.INTERRUPT
                runs += [await first.send(f"{number}", session_id=session.id, on_crash=policy) for session in sessions]
            await trio.testing.wait_all_tasks_blocked()
            canceled = [run for run in runs if run.seq % 7 == 0]
            for run in canceled:
                await first.workspace.cancel_run(run.id)
            disk.mortal.die()
        async with disk.next_server(tmp_path) as again:
            ended = [await again.ended(run) for run in runs]
            assert {run.seq for run in ended if run.state is RunState.CANCELED} == {run.seq for run in canceled}
            assert {run.state for run in ended} == {RunState.CANCELED, RunState.INTERRUPTED, RunState.COMPLETED}
            for session in sessions:
                order = [turn.run.seq for turn in again.agent.turns if turn.session_id == session.id]
                assert order == sorted(order)
            assert len([event for event in await again.events() if isinstance(event.body, RunCompleted)]) == len(runs)
