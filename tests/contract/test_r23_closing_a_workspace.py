"""R23: closing a workspace ends its runs before it ends what they need, and takes a bounded time."""

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.backend import NewWorkspace
from engine.errors import NotFound, WorkspaceClosing
from engine.records.change import Change, SettleRun
from engine.records.event import Event, RunCompleted
from engine.records.message import FinishReason
from engine.records.run import RunState
from engine.settings import EngineSettings
from engine.store.sqlite import open_sqlite_store
from engine.workspace import Workspace
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import settles
from tests.doubles.reading import read_along
from tests.doubles.record import check_order
from tests.doubles.stages import AHEAD, CANCELABLE, HELD, At, open_staged
from tests.doubles.store import FailingStore


@pytest.mark.parametrize("at", CANCELABLE)
async def test_r23_closing_cancels_and_waits_for_a_run_that_is(
    at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path, check=False) as staged:
        store, workspace_id = staged.watched.backend.store, staged.workspace.id
        start = trio.current_time()
        await staged.under_hold(lambda: staged.watched.backend.delete_workspace(workspace_id))
        assert trio.current_time() == start
        # It has returned: everything is committed, without another turn of the scheduler.
        stored = await store.run(workspace_id, HELD)
        assert stored is not None
        assert stored.run.state is RunState.CANCELED
        assert stored.run.cancel_reason == "the workspace was closed"
        assert await store.unsettled_runs(workspace_id) == []
        assert staged.tool.begun == staged.tool.left
        assert staged.watched.backend.statistics().slots_used == 0
        assert staged.workspace.lanes.all_runs() == ()


async def test_r23_store_stays_open_until_every_ending_is_committed(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.QUEUE, tmp_path, check=False) as staged:
        ending = staged.store.hold(settles(HELD))
        closed = trio.Event()

        async def close() -> None:
            await staged.watched.backend.delete_workspace(staged.workspace.id)
            closed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(close)
            await ending.reached()
            await trio.testing.wait_all_tasks_blocked()
            assert not closed.is_set()
            ending.open()
        assert await staged.watched.backend.store.unsettled_runs(staged.workspace.id) == []


@pytest.mark.parametrize("settle_s", [0.5, 4.0])
async def test_r23_closing_is_bounded_though_the_store_hangs(
    settle_s: float, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.AGENT, tmp_path, check=False, settle_s=settle_s, unwind_s=1.0) as staged:
        stuck = staged.store.hold(settles(HELD))
        start = trio.current_time()
        with trio.fail_after(60):
            await staged.watched.backend.delete_workspace(staged.workspace.id)
        assert trio.current_time() - start <= 2 * settle_s + 1.0 + 0.001
        stuck.open()


async def test_r23_closing_is_bounded_though_the_store_hangs_while_a_run_starts(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.START, tmp_path, check=False, settle_s=2.0, unwind_s=1.0) as staged:
        backend, workspace_id = staged.watched.backend, staged.workspace.id
        # Deleting waits for the store as well, to forget that the workspace was kept: that is no part of the closing.
        staged.nursery.start_soon(backend.delete_workspace, workspace_id)
        await trio.sleep(2 * 2.0 + 1.0 + 0.001)
        with pytest.raises(NotFound):
            backend.workspace(workspace_id)


async def test_r23_closing_is_bounded_though_an_agent_does_not_stop(watched: Watched, autojump_clock: object) -> None:
    release = Gate()

    async def respond(turn: Any) -> None:
        with trio.CancelScope(shield=True):
            await release.pass_through()

    watched.agent.respond_with = respond
    run = await watched.send("hi")
    await release.reached()
    workspace_id = watched.workspace.id
    deleted = trio.Event()

    async def delete() -> None:
        await watched.backend.delete_workspace(workspace_id)
        deleted.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(delete)
        await trio.sleep(60)
        stored = await watched.backend.store.run(workspace_id, run.id)
        assert stored is not None
        assert stored.run.state is RunState.CANCELED
        release.open()
        await deleted.wait()


async def test_r23_tools_can_still_be_used_while_their_runs_unwind(autojump_clock: object, tmp_path: object) -> None:
    used: list[str] = []

    async def respond(turn: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(1, shield=True):
                turn.begin_tool_call("last", "nothing")
                await turn.call_tool(turn.end_tool_call("last"))
                used.append("tool")

    async with open_watched(path=str(tmp_path), check=False) as watched:
        watched.agent.respond_with = respond
        await watched.send("hi")
        await trio.testing.wait_all_tasks_blocked()
        await watched.backend.delete_workspace(watched.workspace.id)
        assert used == ["tool"]


async def test_r23_readers_get_every_terminal_event_and_then_the_end(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.QUEUE, tmp_path, check=False) as staged:
        async with read_along(staged.workspace, after=0) as reader:
            await staged.watched.backend.delete_workspace(staged.workspace.id)
            await reader.caught_up()
            assert reader.is_at_end
        ended = {event.body.run_id for event in reader.got if isinstance(event.body, RunCompleted)}
        assert ended == {HELD, AHEAD}
        assert reader.numbers == list(range(1, len(reader.numbers) + 1))


async def test_r23_readers_get_every_terminal_event_and_then_the_end_when_the_engine_is_left(
    autojump_clock: object, tmp_path: object
) -> None:
    reading, gate = trio.Event(), Gate()
    got: list[Event] = []

    async def read(workspace: Workspace) -> None:
        async with workspace.open_feed(after=0) as feed:
            reading.set()
            with suppress(trio.EndOfChannel):
                while True:
                    got.extend(await feed.receive())

    agent = ScriptedAgent(gate.pass_through)
    async with trio.open_nursery() as nursery, open_watched(path=str(tmp_path), agent=agent, check=False) as watched:
        run = await watched.send("hi")
        await gate.reached()
        nursery.start_soon(read, watched.workspace)  # noqa: ASYNC111  (it ends first, and its reader sees it)
        await reading.wait()
    assert [event.body.run_id for event in got if isinstance(event.body, RunCompleted)] == [run.id]


@pytest.mark.parametrize("failures", [0, 1])
async def test_r23_engine_that_is_canceled_from_outside_commits_the_endings_of_its_active_runs(
    failures: int, autojump_clock: object, tmp_path: object
) -> None:
    left = failures

    def fails(number: int, change: Change) -> bool:
        nonlocal left
        is_picked = left > 0 and any(isinstance(write, SettleRun) for write in change.writes)
        left -= is_picked
        return is_picked

    gate = Gate()

    async def respond(turn: Any) -> None:
        turn.say("words")
        await gate.pass_through()

    async with open_sqlite_store(None) as disk:
        with trio.CancelScope() as scope:
            async with open_watched(
                path=str(tmp_path), agent=ScriptedAgent(respond), wrap_store=lambda _: FailingStore(disk, fails),
                check=False,
            ) as watched:  # fmt: skip
                run = await watched.send("hi")
                await gate.reached()
                scope.cancel()
        stored = await disk.run(watched.workspace.id, run.id)
        assert stored is not None
        assert stored.run.state is RunState.INTERRUPTED
        last = (await disk.run_messages(watched.workspace.id, run.id))[-1]
        assert last.finish is not None
        assert (last.text, last.finish.reason) == ("words", FinishReason.ERROR)


async def test_r23_canceled_runs_do_not_hand_the_lane_on_to_one_another(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.QUEUE, tmp_path, check=False) as staged:
        for number in range(5):
            await staged.watched.send(f"{number}")
        await staged.watched.backend.delete_workspace(staged.workspace.id)
        assert staged.began == [AHEAD]


async def test_r23_closing_one_workspace_leaves_the_others_alone(
    watched: Watched, autojump_clock: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def respond(turn: Turn) -> None:
        await trio.sleep(5)

    watched.agent.respond_with = respond
    path = str(tmp_path_factory.mktemp("elsewhere"))
    elsewhere = await watched.backend.create_workspace(NewWorkspace(path=path))
    session = await elsewhere.sessions.create("s")
    there = await Watched(watched.backend, elsewhere, session.id, None).send("hi")
    here = await watched.send("hi")
    await trio.sleep(1)
    await watched.backend.delete_workspace(elsewhere.id)
    assert (await watched.ended(here)).state is RunState.COMPLETED
    stored = await watched.backend.store.run(elsewhere.id, there.id)
    assert stored is not None
    assert stored.run.state is RunState.CANCELED
    with pytest.raises(NotFound):
        watched.backend.workspace(elsewhere.id)
    await watched.backend.delete_workspace(elsewhere.id)


async def test_r23_what_is_asked_of_a_closed_workspace_is_refused_or_answered_truly(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.QUEUE, tmp_path, check=False) as staged:
        workspace = staged.workspace
        await staged.watched.backend.delete_workspace(workspace.id)
        with pytest.raises(WorkspaceClosing):
            await workspace.cancel_session(staged.session_id)
        with pytest.raises(WorkspaceClosing):
            await workspace.clear_queue(staged.session_id)
        with pytest.raises(WorkspaceClosing):
            async with workspace.open_feed(after=None):
                pass
        assert (await workspace.run(HELD)).state is RunState.CANCELED
        assert (await workspace.wait_run(HELD, 10)).state is RunState.CANCELED


async def test_r23_workspace_that_is_opened_while_it_closes_is_a_new_one(
    autojump_clock: object, tmp_path: object
) -> None:
    settings = EngineSettings(data_dir=None)
    async with open_watched(path=str(tmp_path), settings=settings, check=False) as watched:

        async def respond(turn: Turn) -> None:
            await trio.sleep_forever()

        watched.agent.respond_with = respond
        first = await watched.send("hi")
        await trio.testing.wait_all_tasks_blocked()
        again: list[Any] = []

        async def reopen() -> None:
            again.append(await watched.backend.create_workspace(NewWorkspace(path=str(tmp_path))))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.backend.delete_workspace, watched.workspace.id)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(reopen)
        assert again[0] is not watched.workspace
        assert again[0].id == watched.workspace.id
        watched.agent.respond_with = None
        second = await Watched(watched.backend, again[0], watched.session_id, None).send("again")
        assert (await again[0].wait_run(second.id, 1)).state is RunState.COMPLETED
        runs = await again[0].runs()
        assert [(run.id, run.state) for run in runs] == [
            (second.id, RunState.COMPLETED),
            (first.id, RunState.CANCELED),
        ]
        check_order([(run.session_id, run.seq) for run in reversed(runs)])
