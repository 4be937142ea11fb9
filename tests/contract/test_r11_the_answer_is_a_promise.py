"""R11: a cancel answers when it is committed, and names the runs that will end `canceled`, whatever happens next."""

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.backend import NewWorkspace, open_backend
from engine.errors import StoreUnavailable
from engine.records.change import Change, RequestCancel, SettleRun
from engine.records.run import RunState
from engine.settings import EngineSettings
from engine.store.sqlite import open_sqlite_store
from tests.doubles.engine import ScriptedAgent, Watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import DyingStore, accepts, cancels, settles
from tests.doubles.invariants import check_invariants
from tests.doubles.stages import CANCELABLE, HELD, At, open_staged
from tests.doubles.store import FailingStore
from tests.doubles.waiting import pause


@pytest.mark.parametrize("by", ["session", "run"])
@pytest.mark.parametrize("known", [False, True], ids=["on its way", "written, and nobody knows yet"])
async def test_r11_run_whose_ending_comes_first_is_not_named_and_ends_as_it_did(
    by: str, known: bool, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.ENDING, tmp_path) as staged:
        if known:
            after = staged.store.hold(settles(HELD), after=True)
            staged.held.open()
            await after.reached()
            staged.held = after
        if by == "session":
            assert await staged.under_hold(lambda: staged.workspace.cancel_session(staged.session_id)) == ()
        else:
            answer = await staged.under_hold(lambda: staged.workspace.cancel_run(HELD))
            assert (answer.canceled, answer.state) == ((), RunState.COMPLETED)
        ended = await staged.ended()
        assert (ended.state, ended.cancel_requested_at_us) == (RunState.COMPLETED, None)


async def test_r11_run_that_finishes_while_its_cancel_is_being_committed_is_named_and_canceled(
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
            staged.held.open()
            await trio.testing.wait_all_tasks_blocked()
            assert not named, "it was answered before it was committed"
            assert (await staged.workspace.run(HELD)).cancel_requested_at_us is None
            commit.open()
        assert named == [HELD]
        assert (await staged.ended()).state is RunState.CANCELED


@pytest.mark.parametrize("head_start", range(-4, 9))
async def test_r11_finish_against_cancel_is_decided_once_and_told_truly(
    head_start: int, watched: Watched, autojump_clock: object
) -> None:
    gate = Gate()

    async def respond(turn: Turn) -> None:
        await gate.pass_through()

    watched.agent.respond_with = respond
    for _ in range(5):
        gate = Gate()
        run = await watched.send("hi")
        await gate.reached()
        named: list[str] = []

        async def cancel(out: list[str] = named) -> None:
            await pause(max(head_start, 0))
            out.extend(await watched.workspace.cancel_session(watched.session_id))

        async def finish(gate: Gate = gate) -> None:
            await pause(max(-head_start, 0))
            gate.open()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            nursery.start_soon(finish)
        ended = await watched.ended(run)
        assert ended.state is (RunState.CANCELED if named == [run.id] else RunState.COMPLETED)
        assert (ended.cancel_requested_at_us is not None) is bool(named)


async def test_r11_finish_between_an_interrupt_and_its_flag_is_canceled(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.AGENT, tmp_path) as staged:
        # The interrupting prompt is committed, and the cancel with it; its run task has not been told.
        written = staged.store.hold(accepts("now"), after=True)
        staged.nursery.start_soon(lambda: staged.watched.send("now", run_id="now", if_busy="interrupt"))
        await written.reached()
        staged.held.open()
        await trio.testing.wait_all_tasks_blocked()
        written.open()
        ended = await staged.ended()
        assert (ended.state, ended.cancel_reason) == (RunState.CANCELED, "interrupted by run now")
        last = (await staged.watched.backend.store.run_messages(staged.workspace.id, HELD))[-1]
        assert last.finish is not None
        assert last.finish.details == "interrupted by run now"
        assert (await staged.ended("now")).state is RunState.COMPLETED


async def test_r11_cancel_between_two_tries_to_write_the_ending_wins(autojump_clock: object, tmp_path: object) -> None:
    failures = 1

    def fails(number: int, change: Change) -> bool:
        nonlocal failures
        is_settle = any(isinstance(write, SettleRun) for write in change.writes)
        failures -= is_settle
        return is_settle and failures >= 0

    async with open_staged(At.AGENT, tmp_path, beneath=lambda store: FailingStore(store, fails)) as staged:
        staged.held.open()
        await trio.testing.wait_all_tasks_blocked()
        assert await staged.state() is RunState.ACTIVE
        assert await staged.workspace.cancel_session(staged.session_id) == (HELD,)
        with trio.fail_after(1):
            await staged.workspace.wait_run(HELD, 1)
        assert await staged.state() is RunState.CANCELED


async def test_r11_cancel_that_cannot_be_committed_is_not_answered_but_raised(
    autojump_clock: object, tmp_path: object
) -> None:
    def fails(number: int, change: Change) -> bool:
        return any(isinstance(write, RequestCancel) for write in change.writes)

    async with open_staged(At.AGENT, tmp_path, beneath=lambda store: FailingStore(store, fails)) as staged:
        with pytest.raises(StoreUnavailable):
            await staged.workspace.cancel_session(staged.session_id)
        assert (await staged.workspace.run(HELD)).cancel_requested_at_us is None
        staged.release()
        await staged.ended()


@pytest.mark.parametrize("at", CANCELABLE)
async def test_r11_named_run_ends_canceled_though_the_server_dies_while_it_is(
    at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_sqlite_store(None) as disk:
        async with open_staged(
            at, tmp_path, beneath=lambda _: DyingStore(disk, cancels(HELD)), check=False, settle_s=0.1
        ) as staged:
            assert HELD in await staged.under_hold(lambda: staged.workspace.cancel_session(staged.session_id))
        agent = ScriptedAgent()
        settings = EngineSettings(data_dir=None)
        async with open_backend(settings, environ={}, agent=agent, wrap_store=lambda _: disk) as backend:
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
            run = await workspace.wait_run(HELD, 1)
            assert (run.state, run.cancel_reason) == (RunState.CANCELED, "canceled by the user")
            await check_invariants(backend, workspace)
            assert HELD not in [turn.run_id for turn in agent.turns]
