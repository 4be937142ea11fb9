"""R08: a cancel covers nothing that is registered after it, and two cancels are one."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from engine.records.event import RunChanged
from engine.records.message import FinishReason, Role
from engine.records.run import RunState
from tests.doubles.engine import Watched
from tests.doubles.holding_store import cancels
from tests.doubles.stages import CANCELABLE, HELD, HELD_BY_STORE, At, open_staged
from tests.doubles.waiting import until

# Nothing that a test holds is between the flag of such a run and its ending.
ENDS_AT_ONCE = (At.QUEUE, At.SLOT)


@pytest.mark.parametrize("session", ["idle", "unknown"])
async def test_r08_cancel_where_nothing_runs_does_nothing_and_poisons_nothing(
    session: str, watched: Watched, autojump_clock: object
) -> None:
    before = len(await watched.events())
    session_id = watched.session_id if session == "idle" else "no such session"
    assert await watched.workspace.cancel_session(session_id) == ()
    assert await watched.workspace.clear_queue(session_id) == ()
    assert len(await watched.events()) == before
    run = await watched.send("hi")
    assert (await watched.ended(run)).state is RunState.COMPLETED


async def test_r08_cancel_of_a_session_whose_run_has_ended_changes_nothing(
    watched: Watched, autojump_clock: object
) -> None:
    run = await watched.send("hi")
    await watched.ended(run)
    before = len(await watched.events())
    assert await watched.workspace.cancel_session(watched.session_id) == ()
    assert len(await watched.events()) == before
    assert (await watched.ended(await watched.send("again"))).state is RunState.COMPLETED


@pytest.mark.parametrize("at", CANCELABLE)
async def test_r08_run_accepted_after_the_cancel_of_one_that_is(
    at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path) as staged:
        await staged.under_hold(lambda: staged.workspace.cancel_session(staged.session_id))
        await staged.watched.send("later", run_id="later")
        staged.ahead.open()
        assert (await staged.ended("later")).state is RunState.COMPLETED
        assert "later" in staged.began


@pytest.mark.parametrize("at", [at for at in CANCELABLE if at not in HELD_BY_STORE])
async def test_r08_cancel_of_another_session_leaves_alone_a_run_that_is(
    at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path) as staged:
        other = await staged.workspace.sessions.create("another")
        staged.nursery.start_soon(lambda: staged.watched.send("a", run_id="another", session_id=other.id))
        await until(lambda: staged.workspace.lanes.find("another"))
        assert await staged.under_hold(lambda: staged.workspace.cancel_session(other.id)) == ("another",)
        staged.release()
        assert (await staged.ended()).state is RunState.COMPLETED
        assert (await staged.ended("another")).state is RunState.CANCELED


async def test_r08_run_accepted_while_a_cancel_is_being_committed_is_not_covered(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.AGENT, tmp_path) as staged:
        commit = staged.store.hold(cancels(HELD))
        named: list[str] = []

        async def cancel() -> None:
            named.extend(await staged.workspace.cancel_session(staged.session_id))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            await commit.reached()
            nursery.start_soon(lambda: staged.watched.send("later", run_id="later"))
            await until(lambda: staged.workspace.lanes.find("later"))
            commit.open()
        assert named == [HELD]
        assert (await staged.ended()).state is RunState.CANCELED
        assert (await staged.ended("later")).state is RunState.COMPLETED


@pytest.mark.parametrize("at", CANCELABLE)
async def test_r08_two_cancels_are_one_for_a_run_that_is(at: At, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(at, tmp_path) as staged:
        answers: list[tuple[str, ...]] = []

        async def cancel(reason: str) -> None:
            answers.append(await staged.workspace.cancel_session(staged.session_id, reason))

        commit = staged.store.hold(cancels(HELD))

        async def twice() -> None:
            async with trio.open_nursery() as nursery:
                await until_started(nursery, cancel, "first")
                if at in ENDS_AT_ONCE:
                    await trio.testing.wait_all_tasks_blocked()
                await until_started(nursery, cancel, "second")
                commit.open()

        await staged.under_hold(twice)
        # The ending of these is on its way before the second cancel is: that one comes too late (R11).
        assert [HELD in named for named in answers] == [True, at not in ENDS_AT_ONCE]
        ended = await staged.ended()
        assert (ended.state, ended.cancel_reason) == (RunState.CANCELED, "first")
        messages = await staged.watched.backend.store.run_messages(staged.workspace.id, HELD)
        for message in (message for message in messages if message.role is Role.ASSISTANT):
            assert message.finish is not None
            assert (message.finish.reason, message.finish.details) == (FinishReason.CANCELED, "first")
        bodies = [event.body for event in await staged.watched.events() if event.run_id == HELD]
        marked = [b.run for b in bodies if isinstance(b, RunChanged) and b.run.cancel_requested_at_us is not None]
        assert [run.state.is_terminal for run in marked] == [False, True]


async def until_started(nursery: trio.Nursery, cancel: Callable[[str], Awaitable[object]], reason: str) -> None:
    """Start a cancel, and return when it has done what it does without waiting."""
    started = trio.Event()

    async def begin() -> None:
        started.set()
        await cancel(reason)

    nursery.start_soon(begin)
    await started.wait()
