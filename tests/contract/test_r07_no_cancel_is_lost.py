"""R07: a session cancel covers every run that was registered before it."""

from functools import partial

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.records.run import RunState
from tests.doubles.engine import ScriptedAgent, open_watched
from tests.doubles.gate import Gate
from tests.doubles.stages import AHEAD, CANCELABLE, HELD, WITH_NEIGHBOR, At, open_staged
from tests.doubles.waiting import pause, until


@pytest.mark.parametrize("at", CANCELABLE)
async def test_r07_session_cancel_covers_a_run_that_is(at: At, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(at, tmp_path) as staged:
        named = await staged.under_hold(lambda: staged.workspace.cancel_session(staged.session_id))
        expected = {AHEAD, HELD} if at in WITH_NEIGHBOR else {HELD}
        assert set(named) == expected
        for run_id in named:
            assert (await staged.ended(run_id)).state is RunState.CANCELED


async def test_r07_session_cancel_covers_what_is_active_queued_accepted_and_being_accepted_at_once(
    autojump_clock: object, tmp_path: object
) -> None:
    entry, begun = Gate(), Gate()

    async def respond(turn: Turn) -> None:
        await begun.pass_through()

    async def before_entry(run: object) -> None:
        if "entering" in repr(run):
            await entry.pass_through()

    agent = ScriptedAgent(respond)
    async with open_watched(path=str(tmp_path), agent=agent, before_entry=before_entry) as watched:
        await watched.send("a", run_id="active")
        await begun.reached()
        for run_id in ("queued-1", "queued-2", "entering"):
            await watched.send("a", run_id=run_id)
        await entry.reached()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: watched.send("a", run_id="accepting"))
            await until(lambda: watched.workspace.lanes.find("accepting"))
            named = await watched.workspace.cancel_session(watched.session_id)
        assert named == ("active", "queued-1", "queued-2", "entering", "accepting")
        entry.open()
        for run_id in named:
            assert (await watched.ended(await watched.workspace.run(run_id))).state is RunState.CANCELED
        assert [turn.run_id for turn in agent.turns] == ["active"]


async def test_r07_cancel_covers_the_run_that_is_taken_over_while_the_one_before_it_ends(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.ENDING, tmp_path) as staged:
        staged.nursery.start_soon(lambda: staged.watched.send("next", run_id="next"))
        await until(lambda: staged.workspace.lanes.find("next"))
        named = await staged.under_hold(lambda: staged.workspace.cancel_session(staged.session_id))
        assert named == ("next",)
        assert (await staged.ended()).state is RunState.COMPLETED
        assert (await staged.ended("next")).state is RunState.CANCELED
        assert staged.began == [HELD]


@pytest.mark.parametrize("prompts", [1, 3])
async def test_r07_r08_cancel_at_the_same_moment_as_accepts_covers_a_run_or_leaves_it_alone(
    prompts: int, autojump_clock: object, tmp_path: object
) -> None:
    outcomes = set()
    async with open_watched(path=str(tmp_path)) as watched:
        for number in range(40):
            session_id = (await watched.workspace.sessions.create("s")).id
            names = [f"run-{number}-{i}" for i in range(prompts)]
            named: tuple[str, ...] = ()

            async def cancel(session_id: str = session_id, turns: int = number % 4) -> None:
                nonlocal named
                await pause(turns)
                named = await watched.workspace.cancel_session(session_id)

            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(partial(watched.send, "a", run_id=name, session_id=session_id))
                nursery.start_soon(cancel)
            for name in names:
                ended = await watched.ended(await watched.workspace.run(name))
                assert ended.state is (RunState.CANCELED if name in named else RunState.COMPLETED)
                outcomes.add(ended.state)
    assert outcomes == {RunState.CANCELED, RunState.COMPLETED}, "the race has gone one way only"
