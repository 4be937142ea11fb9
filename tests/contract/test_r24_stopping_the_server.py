"""R24: a stopping server lets active runs finish for a while, cancels them then, and keeps for the next start what had
not begun."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.backend import NewWorkspace, open_backend
from engine.errors import NotFound, ServerStopping
from engine.records.ids import SessionId
from engine.records.run import RunRecord, RunState
from engine.settings import EngineSettings
from engine.store.protocol import Store
from engine.store.sqlite import open_sqlite_store
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.invariants import check_invariants
from tests.doubles.stages import AHEAD, CANCELABLE, HELD, UNBEGUN, At, open_staged

DRAIN_S = 10.0


@asynccontextmanager
async def started_again(disk: Store, path: object, session_id: SessionId) -> AsyncIterator[Watched]:
    """The next server over the same store; what it took up has ended when this is left."""
    agent = ScriptedAgent()
    async with open_backend(
        EngineSettings(data_dir=None), environ={}, agent=agent, wrap_store=lambda _: disk
    ) as backend:
        workspace = await backend.create_workspace(NewWorkspace(path=str(path)))
        yield Watched(backend, workspace, session_id, agent)
        await check_invariants(backend, workspace)


async def takes(seconds: float, turn: Any) -> None:
    """An agent that needs so long."""
    await trio.sleep(seconds)
    turn.say("done")


@pytest.mark.parametrize("at", CANCELABLE)
@pytest.mark.parametrize("drain_s", [0.0, DRAIN_S])
async def test_r24_what_has_begun_is_canceled_and_what_has_not_runs_after_the_next_start(
    drain_s: float, at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_sqlite_store(None) as disk:
        async with open_staged(at, tmp_path, beneath=lambda _: disk, check=False) as staged:
            backend, workspace_id = staged.watched.backend, staged.workspace.id
            start = trio.current_time()
            backend.begin_shutdown(drain_s)
            await trio.testing.wait_all_tasks_blocked()
            if at in {At.COMMIT, At.START}:
                staged.held.open()
            with trio.fail_after(drain_s + 1):
                await backend.wait_stopped()
            has_neighbor = at in {At.QUEUE, At.SLOT, At.STEERED}
            assert trio.current_time() - start == (drain_s if has_neighbor or at in {At.AGENT, At.TOOL} else 0)
            stored = await disk.run(workspace_id, HELD)
            assert stored is not None
            if at in UNBEGUN:
                expected = {RunState.ACCEPTED, RunState.QUEUED}
            else:
                expected = {RunState.COMPLETED} if at is At.START and drain_s else {RunState.CANCELED}
            assert stored.run.state in expected
            if has_neighbor:
                ahead = await disk.run(workspace_id, AHEAD)
                assert ahead is not None
                assert (ahead.run.state, ahead.run.cancel_reason) == (RunState.CANCELED, "the server stopped")
        async with started_again(disk, tmp_path, staged.session_id) as again:
            run = await again.workspace.wait_run(HELD, 1)
            assert run.state is (RunState.COMPLETED if at in UNBEGUN else stored.run.state)
            assert [turn.run_id for turn in again.agent.turns] == ([HELD] if at in UNBEGUN else [])


async def test_r24_active_runs_may_finish_within_the_drain_and_nothing_starts_behind_them(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_sqlite_store(None) as disk:
        agent = ScriptedAgent(lambda turn: takes(DRAIN_S / 2, turn))
        async with open_watched(path=str(tmp_path), agent=agent, wrap_store=lambda _: disk, check=False) as watched:
            active = await watched.send("active")
            waiting = [await watched.send(f"{number}") for number in range(3)]
            await trio.sleep(1)
            start = trio.current_time()
            watched.backend.begin_shutdown(DRAIN_S)
            await watched.backend.wait_stopped()
            assert trio.current_time() - start == DRAIN_S / 2 - 1
            states = [(await watched.backend.store.run(watched.workspace.id, run.id)) for run in (active, *waiting)]
            assert [stored and stored.run.state for stored in states] == [RunState.COMPLETED, *[RunState.QUEUED] * 3]
            assert len(agent.turns) == 1
        async with started_again(disk, tmp_path, watched.session_id) as again:
            for run in waiting:
                assert (await again.ended(run)).state is RunState.COMPLETED
            assert [turn.run_id for turn in again.agent.turns] == [run.id for run in waiting]


async def test_r24_active_run_is_canceled_when_the_drain_is_over(autojump_clock: object, tmp_path: object) -> None:
    async with open_watched(path=str(tmp_path), check=False) as watched:
        watched.agent.respond_with = lambda turn: takes(1000, turn)
        run = await watched.send("long")
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        watched.backend.begin_shutdown(DRAIN_S)
        await watched.backend.wait_stopped()
        assert trio.current_time() - start == DRAIN_S
        check_stopped(await watched.backend.store.run(watched.workspace.id, run.id))


async def test_r24_second_signal_skips_the_wait(autojump_clock: object, tmp_path: object) -> None:
    async with open_watched(path=str(tmp_path), check=False) as watched:
        watched.agent.respond_with = lambda turn: takes(1000, turn)
        run = await watched.send("long")
        await trio.sleep(1)
        start = trio.current_time()
        watched.backend.begin_shutdown(DRAIN_S)
        await trio.sleep(3)
        watched.backend.begin_shutdown(2 * DRAIN_S)
        watched.backend.hurry()
        await watched.backend.wait_stopped()
        assert trio.current_time() - start == 3
        check_stopped(await watched.backend.store.run(watched.workspace.id, run.id))


async def test_r24_second_signal_in_the_same_moment_skips_the_wait(autojump_clock: object, tmp_path: object) -> None:
    async with open_watched(path=str(tmp_path), check=False) as watched:
        watched.agent.respond_with = lambda turn: takes(1000, turn)
        await watched.send("long")
        await trio.sleep(1)
        start = trio.current_time()
        watched.backend.begin_shutdown(DRAIN_S)
        watched.backend.hurry()
        await watched.backend.wait_stopped()
        assert trio.current_time() == start


@pytest.mark.parametrize("at", [At.QUEUE, At.SLOT])
async def test_r24_run_may_be_canceled_during_the_drain(at: At, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(at, tmp_path, check=False) as staged:
        start = trio.current_time()
        staged.watched.backend.begin_shutdown(DRAIN_S)
        await trio.sleep(1)
        assert (await staged.workspace.cancel_run(HELD)).canceled == (HELD,)
        assert (await staged.ended()).state is RunState.CANCELED
        assert (await staged.workspace.cancel_run(AHEAD)).canceled == (AHEAD,)
        await staged.watched.backend.wait_stopped()
        assert trio.current_time() == start + 1


async def test_r24_run_that_is_accepted_and_canceled_when_the_server_stops_does_not_run_after_the_next_start(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_sqlite_store(None) as disk:
        async with open_staged(At.ENTRY, tmp_path, beneath=lambda _: disk, check=False) as staged:
            assert (await staged.workspace.cancel_run(HELD)).canceled == (HELD,)
            staged.watched.backend.begin_shutdown(DRAIN_S)
            await staged.watched.backend.wait_stopped()
        async with started_again(disk, tmp_path, staged.session_id) as again:
            assert (await again.workspace.wait_run(HELD, 1)).state is RunState.CANCELED
            assert again.agent.turns == []


async def test_r24_prompt_that_waits_to_steer_is_not_taken_into_a_turn_that_finishes_within_the_drain(
    autojump_clock: object, tmp_path: object
) -> None:
    gate = Gate()
    heard: list[str] = []

    async def respond(turn: Any) -> None:
        await gate.pass_through()
        heard.extend(message.text for message in await turn.steered())

    async with open_sqlite_store(None) as disk:
        async with open_watched(
            path=str(tmp_path), agent=ScriptedAgent(respond), wrap_store=lambda _: disk, check=False
        ) as watched:
            host = await watched.send("host")
            await gate.reached()
            steered = await watched.send("by the way", if_busy="steer")
            await trio.testing.wait_all_tasks_blocked()
            watched.backend.begin_shutdown(DRAIN_S)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
            await watched.backend.wait_stopped()
        states = [await disk.run(watched.workspace.id, run.id) for run in (host, steered)]
        assert [stored and stored.run.state for stored in states] == [RunState.COMPLETED, RunState.QUEUED]
        assert heard == []


@pytest.mark.parametrize("turn_s", [4.0, 100.0])
async def test_r24_several_workspaces_drain_side_by_side(
    turn_s: float, autojump_clock: object, tmp_path: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with open_watched(path=str(tmp_path), check=False) as watched:
        watched.agent.respond_with = lambda turn: takes(turn_s, turn)
        for number in range(3):
            path = str(tmp_path_factory.mktemp(f"w{number}"))
            other = await watched.backend.create_workspace(NewWorkspace(path=path))
            session = await other.sessions.create("s")
            await Watched(watched.backend, other, session.id, None).send("hi")
        await watched.send("hi")
        start = trio.current_time()
        watched.backend.begin_shutdown(DRAIN_S)
        await watched.backend.wait_stopped()
        assert trio.current_time() - start == min(turn_s, DRAIN_S)
        assert await watched.backend.store.unsettled_counts() == {}


async def test_r24_a_workspace_that_a_stopping_server_has_closed_is_not_said_to_be_unknown(
    watched: Watched, autojump_clock: object
) -> None:
    """Whoever has lost its stream, or its answer, comes back to the next server: it must not take this for the end."""
    with pytest.raises(NotFound):
        watched.backend.workspace("another")
    watched.backend.begin_shutdown(0)
    await watched.backend.wait_stopped()
    for workspace_id in (watched.workspace.id, "another"):
        with pytest.raises(ServerStopping):
            watched.backend.workspace(workspace_id)
    with pytest.raises(ServerStopping):
        async with watched.workspace.open_feed(after=0):
            pass


@pytest.mark.slow
async def test_r24_queued_runs_are_on_the_disk_and_run_after_the_next_start(tmp_path: Path) -> None:
    """On a real disk, with real threads, on the real clock."""
    settings = EngineSettings(data_dir=tmp_path / "data")
    directory = tmp_path / "project"
    directory.mkdir()
    with trio.fail_after(20):
        begun = trio.Event()

        async def respond(turn: Any) -> None:
            turn.say("I am at it")
            begun.set()
            await trio.sleep_forever()

        async with open_watched(
            path=str(directory), agent=ScriptedAgent(respond), settings=settings, check=False
        ) as watched:
            active = await watched.send("active")
            await begun.wait()
            queued = [await watched.send(f"queued {number}") for number in range(3)]
            watched.backend.begin_shutdown(0.05)
            await watched.backend.wait_stopped()
        agent = ScriptedAgent()
        async with open_backend(settings, environ={}, agent=agent) as backend:
            # Nobody has asked for the workspace: it was opened for the runs that wait in it.
            [workspace] = backend.workspaces()
            assert workspace.id == watched.workspace.id
            for run in queued:
                assert (await workspace.wait_run(run.id, 10)).state is RunState.COMPLETED
            assert (await workspace.run(active.id)).state is RunState.CANCELED
            assert [turn.prompt.text for turn in agent.turns] == [f"queued {number}" for number in range(3)]
            await check_invariants(backend, workspace)


def check_stopped(stored: Any) -> None:
    """The run was canceled because the server stopped."""
    run: RunRecord = stored.run
    assert (run.state, run.cancel_reason) == (RunState.CANCELED, "the server stopped")
