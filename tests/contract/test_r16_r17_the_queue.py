"""R16: a queue has a bound, per session and per workspace. R17: it can be read and cleared."""

from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.errors import QueueFull
from engine.records.change import Change
from engine.records.run import RunState
from engine.settings import EngineSettings
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import settles
from tests.doubles.stages import AHEAD, HELD, At, open_staged
from tests.doubles.store import FailingStore


@pytest.mark.parametrize("policy", ["enqueue", "steer", "interrupt"])
async def test_r16_queue_of_a_session_is_bounded(policy: str, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.QUEUE, tmp_path, queue_per_session=3) as staged:
        for _ in range(2):
            await staged.watched.send("behind")
        await trio.testing.wait_all_tasks_blocked()
        before = len(await staged.watched.events())
        with pytest.raises(QueueFull) as refused:
            await staged.watched.send("too much", if_busy=policy)
        assert (refused.value.scope, refused.value.limit) == ("session", 3)
        assert refused.value.retry_after > 0
        assert len(await staged.watched.events()) == before
        other = await staged.workspace.sessions.create("other")
        elsewhere = await staged.watched.send("hi", session_id=other.id)
        assert (await staged.ended(elsewhere.id)).state is RunState.COMPLETED
        staged.ahead.open()
        await staged.ended()
        await staged.watched.send("now there is room")


async def test_r16_queue_of_a_workspace_is_bounded(autojump_clock: object, tmp_path: object) -> None:
    settings = EngineSettings(data_dir=None, max_active_runs=1, queue_per_workspace=3)
    async with open_watched(path=str(tmp_path), settings=settings) as watched:

        async def respond(turn: Turn) -> None:
            await trio.sleep(1)

        watched.agent.respond_with = respond
        sessions = [(await watched.workspace.sessions.create("s")).id for _ in range(5)]
        # One is active; the others are first of their sessions, and wait for its slot.
        for session_id in sessions[:4]:
            await watched.send("hi", session_id=session_id)
            await trio.testing.wait_all_tasks_blocked()
        for session_id in (sessions[4], sessions[0]):
            before = len(await watched.events())
            with pytest.raises(QueueFull) as refused:
                await watched.send("too much", session_id=session_id)
            assert (refused.value.scope, refused.value.limit) == ("workspace", 3)
            assert len(await watched.events()) == before
        await trio.sleep(1.5)
        assert (await watched.ended(await watched.send("hi", session_id=sessions[4]))).state is RunState.COMPLETED


async def test_r16_runs_that_were_canceled_make_room_at_once(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.QUEUE, tmp_path, queue_per_session=1) as staged:
        await staged.workspace.cancel_run(HELD)
        await staged.watched.send("instead", run_id="instead")
        staged.ahead.open()
        assert (await staged.ended("instead")).state is RunState.COMPLETED


async def test_r16_active_run_that_was_canceled_takes_no_room_while_its_turn_is_being_stored(
    autojump_clock: object, tmp_path: object
) -> None:
    is_refused = True

    def fails(number: int, change: Change) -> bool:
        return is_refused and any(settles(HELD)(write) for write in change.writes)

    async with open_staged(
        At.AGENT, tmp_path, queue_per_workspace=1, beneath=lambda store: FailingStore(store, fails)
    ) as staged:
        await staged.workspace.cancel_run(HELD)
        run = await staged.watched.send("next")
        is_refused = False
        assert (await staged.workspace.wait_run(run.id, 1)).state is RunState.COMPLETED


async def test_r17_queue_is_read_in_order_without_what_is_active(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        assert staged.workspace.queued_prompts("nobody") == []
        for number in range(3):
            await staged.watched.send(f"behind {number}")
        assert staged.workspace.queued_prompts(staged.session_id) == ["held", "behind 0", "behind 1", "behind 2"]
        await staged.workspace.cancel_run(HELD)
        assert staged.workspace.queued_prompts(staged.session_id) == ["behind 0", "behind 1", "behind 2"]
        staged.ahead.open()
        await trio.testing.wait_all_tasks_blocked()
        assert staged.workspace.queued_prompts(staged.session_id) == []


async def test_r17_cleared_runs_end_canceled_and_the_active_one_goes_on(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        for number in range(2):
            await staged.watched.send("behind", run_id=f"behind-{number}", if_busy="steer")
        cleared = await staged.workspace.clear_queue(staged.session_id)
        assert cleared == (HELD, "behind-0", "behind-1")
        for run_id in cleared:
            ended = await staged.ended(run_id)
            assert ended.state is RunState.CANCELED
            assert [event.state for event in await staged.watched.terminal_events(ended)] == [RunState.CANCELED]
            assert [finish for _, _, finish in await staged.turn(run_id)] == ["stop", "canceled"]
        assert await staged.workspace.clear_queue(staged.session_id) == ()
        assert await staged.state(AHEAD) is RunState.ACTIVE
        staged.ahead.open()
        assert (await staged.ended(AHEAD)).state is RunState.COMPLETED
        assert staged.began == [AHEAD]


async def test_r17_clearing_covers_a_run_that_has_not_entered_behind_an_active_one(
    autojump_clock: object, tmp_path: object
) -> None:
    active, entry = Gate(), Gate()

    async def before_entry(run: Any) -> None:
        if run.record.id == "entering":
            await entry.pass_through()

    agent = ScriptedAgent(active.pass_through)
    async with open_watched(path=str(tmp_path), agent=agent, before_entry=before_entry) as watched:
        first = await watched.send("first")
        await active.reached()
        await watched.send("second", run_id="entering")
        await entry.reached()
        assert watched.workspace.queued_prompts(watched.session_id) == ["second"]
        assert await watched.workspace.clear_queue(watched.session_id) == ("entering",)
        entry.open()
        active.open()
        assert (await watched.workspace.wait_run("entering", 1)).state is RunState.CANCELED
        assert (await watched.ended(first)).state is RunState.COMPLETED


@pytest.mark.parametrize("at", [At.COMMIT, At.ENTRY, At.SLOT, At.AGENT, At.TOOL])
async def test_r17_clearing_leaves_alone_a_run_that_waits_behind_no_other_and_is(
    at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path) as staged:
        assert staged.workspace.queued_prompts(staged.session_id) == []
        assert await staged.workspace.clear_queue(staged.session_id) == ()
        staged.release()
        assert (await staged.ended()).state is RunState.COMPLETED


async def test_r17_run_that_is_accepted_after_the_clearing_is_not_cleared(
    watched: Watched, autojump_clock: object
) -> None:
    async def respond(turn: Turn) -> None:
        await trio.sleep(1)

    watched.agent.respond_with = respond
    await watched.send("active")
    await trio.sleep(0.5)
    cleared = await watched.send("cleared")
    assert await watched.workspace.clear_queue(watched.session_id) == (cleared.id,)
    later = await watched.send("later")
    assert (await watched.ended(later)).state is RunState.COMPLETED
