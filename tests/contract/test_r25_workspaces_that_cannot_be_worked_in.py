"""R25: a workspace whose directory is gone, that cannot be opened, or that fails, is reported, loses nothing, and stops
no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.backend import Backend, NewWorkspace, open_backend
from engine.errors import ConfigInvalid, NotFound, WorkspaceUnavailable
from engine.records.ids import ClientId, RunId, WorkspaceId
from engine.records.run import OnCrash, Prompt, RunState
from engine.reopening import LASTING_S, LOOK_AGAIN_S, RETRY_LAST_S
from engine.settings import EngineSettings
from engine.workspace_config import WORKSPACE_FILE
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.doubles.restarting import Disk, open_disk
from tests.doubles.store import StoreDouble

SETTINGS = EngineSettings(data_dir=None)
NAMES = (  # which of two sessions, the run, and its policy
    (0, "active", OnCrash.INTERRUPT),
    (0, "queued", OnCrash.INTERRUPT),
    (1, "retried", OnCrash.RETRY),
)


async def never(turn: Any) -> None:
    """An agent that says something and does not end."""
    turn.say("half")
    await trio.sleep_forever()


async def leave_behind(disk: Disk, *paths: Path) -> list[WorkspaceId]:
    """Workspaces with an active and a queued run each, and one that is to be retried; their ids."""
    for path in paths:
        path.mkdir()
    async with disk.first_server(paths[0], agent=ScriptedAgent(never)) as first:
        workspaces = [await first.backend.create_workspace(NewWorkspace(path=str(path))) for path in paths]
        for workspace in workspaces:
            one, two = [(await workspace.sessions.create("s")).id for _ in range(2)]
            for session, name, policy in NAMES:
                prompt = Prompt(session_id=(one, two)[session], text=name, run_id=RunId(name), on_crash=policy)
                await workspace.accept(prompt)
        await trio.sleep(1)
        return [workspace.id for workspace in workspaces]


@asynccontextmanager
async def next_backend(disk: Disk, agent: ScriptedAgent | None = None, **options: Any) -> AsyncIterator[Backend]:
    """The next server, which nobody asks for anything."""
    wrap = options.pop("wrap_store", lambda store: store)
    async with open_backend(
        SETTINGS, environ={}, agent=agent or ScriptedAgent(), wrap_store=lambda _: wrap(disk.store), **options
    ) as backend:
        yield backend


async def states(backend: Backend, workspace_id: str) -> dict[str, RunState]:
    """The state of each run as it is stored."""
    return {str(run.id): run.state for run in await backend.store.runs(WorkspaceId(workspace_id))}


ALL = {"active": RunState.INTERRUPTED, "queued": RunState.COMPLETED, "retried": RunState.COMPLETED}
WAITING = {"active": RunState.INTERRUPTED, "queued": RunState.QUEUED, "retried": RunState.ACTIVE}


async def test_r25_directory_that_is_gone_stops_no_other_workspace_and_what_waits_runs_when_it_is_back(
    autojump_clock: object, tmp_path: Path
) -> None:
    gone, there = tmp_path / "gone", tmp_path / "there"
    async with open_disk() as disk:
        lost_id, found_id = await leave_behind(disk, gone, there)
        gone.rename(tmp_path / "elsewhere")
        agent = ScriptedAgent()
        async with next_backend(disk, agent) as backend:
            await trio.sleep(5)
            assert await states(backend, found_id) == ALL
            assert await states(backend, lost_id) == WAITING, "what was active ends; what waits waits on"
            assert {turn.workspace for turn in agent.turns} == {there}
            workspace = backend.workspace(lost_id)
            assert workspace.problem is not None
            assert str(gone) in workspace.problem
            assert backend.statistics().unavailable == 1
            with pytest.raises(WorkspaceUnavailable, match="not lost"):
                await workspace.accept(Prompt(session_id=disk.session_id, text="hi"))
            (tmp_path / "elsewhere").rename(gone)
            await trio.sleep(2 * LOOK_AGAIN_S)
            assert await states(backend, lost_id) == ALL
            assert backend.statistics().unavailable == 0
            assert backend.workspace(lost_id).problem is None
            assert backend.workspace(lost_id).claims.is_kept


async def test_r25_runs_of_a_directory_that_is_gone_can_be_read_and_canceled(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        [workspace_id] = await leave_behind(disk, tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        agent = ScriptedAgent()
        async with next_backend(disk, agent) as backend:
            workspace = backend.workspace(workspace_id)
            for name in ("queued", "retried"):
                assert (await workspace.cancel_run(name)).canceled == (name,)
                assert (await workspace.wait_run(name, 1)).state is RunState.CANCELED
            assert (await workspace.run("active")).state is RunState.INTERRUPTED
            assert agent.turns == []
            await backend.delete_workspace(workspace_id)
            await trio.sleep(10 * LOOK_AGAIN_S)
            assert backend.statistics().unavailable == 0, "nobody waits for it any more"
            with pytest.raises(NotFound):
                backend.workspace(workspace_id)


async def test_r25_workspace_whose_own_configuration_is_wrong_ends_what_ended_and_goes_on_when_it_is_mended(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        [workspace_id] = await leave_behind(disk, tmp_path / "wrong")
        file = tmp_path / "wrong" / WORKSPACE_FILE
        file.parent.mkdir()
        file.write_text('[engine]\nallowed_tools = ["bash"]')
        agent = ScriptedAgent()
        async with next_backend(disk, agent) as backend:
            await trio.sleep(5)
            assert await states(backend, workspace_id) == WAITING
            workspace = backend.workspace(workspace_id)
            assert "engine.allowed_tools" in (workspace.problem or "")
            assert (await workspace.cancel_run("retried")).canceled == ("retried",)
            assert (await workspace.wait_run("retried", 1)).state is RunState.CANCELED
            with pytest.raises(ConfigInvalid):
                await backend.create_workspace(NewWorkspace(path=str(tmp_path / "wrong")))
            assert backend.workspace(workspace_id) is workspace, "who asks in vain takes it from nobody"
            await trio.sleep(2 * LOOK_AGAIN_S)
            assert agent.turns == []
            file.unlink()
            await trio.sleep(2 * LOOK_AGAIN_S)
            assert await states(backend, workspace_id) == ALL | {"retried": RunState.CANCELED}
            assert backend.statistics().unavailable == 0


async def test_r25_client_that_opens_a_directory_that_is_back_need_not_wait(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        [workspace_id] = await leave_behind(disk, tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        async with next_backend(disk) as backend:
            (tmp_path / "gone").mkdir()
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path / "gone")))
            assert (workspace.id, workspace.problem) == (workspace_id, None)
            assert backend.statistics().unavailable == 0
            for name in ("queued", "retried"):
                assert (await workspace.wait_run(name, 1)).state is RunState.COMPLETED


async def test_r25_directory_that_was_moved_and_linked_is_the_same_workspace(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        [workspace_id] = await leave_behind(disk, tmp_path / "old")
        (tmp_path / "old").rename(tmp_path / "new")
        (tmp_path / "old").symlink_to(tmp_path / "new")
        agent = ScriptedAgent()
        async with next_backend(disk, agent) as backend:
            await trio.sleep(1)
            assert await states(backend, workspace_id) == ALL
            assert {turn.workspace for turn in agent.turns} == {tmp_path / "new"}
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path / "old")))
            assert workspace.id == workspace_id


async def test_r25_directory_that_leads_to_another_workspace_is_not_worked_in_twice(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        lost_id, other_id = await leave_behind(disk, tmp_path / "one", tmp_path / "two")
        (tmp_path / "one").rmdir()
        (tmp_path / "one").symlink_to(tmp_path / "two")
        async with next_backend(disk) as backend:
            await trio.sleep(1)
            assert await states(backend, other_id) == ALL
            assert await states(backend, lost_id) == WAITING
            assert "another workspace" in (backend.workspace(lost_id).problem or "")


async def test_r25_workspace_that_nobody_claims_closes_as_always_with_or_without_its_directory(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        [workspace_id] = await leave_behind(disk, tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        async with next_backend(disk) as backend:
            await backend.delete_workspace(workspace_id)
            assert set((await states(backend, workspace_id)).values()) == {RunState.INTERRUPTED, RunState.CANCELED}


# -- workspaces that cannot be opened, or fail


class Broken(StoreDouble):
    """Makes opening one workspace fail, as a mistake of ours would."""

    broken: WorkspaceId
    is_broken = True
    tries = 0

    async def latest_run_seq(self, workspace_id: WorkspaceId) -> int:
        if workspace_id == self.broken and self.is_broken:
            self.tries += 1
            await trio.lowlevel.checkpoint()
            raise ZeroDivisionError("a mistake of ours, says a test")
        return await self.inner.latest_run_seq(workspace_id)


async def test_r25_workspace_that_cannot_be_opened_stops_no_other_and_is_tried_again_more_and_more_rarely(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_disk() as disk:
        store = Broken(disk.store)
        store.broken, other_id = await leave_behind(disk, tmp_path / "one", tmp_path / "two")
        async with next_backend(disk, wrap_store=lambda _: store) as backend:
            assert store.tries == 1
            await trio.sleep(0.5)
            assert await states(backend, other_id) == ALL
            with pytest.raises(WorkspaceUnavailable):
                backend.workspace(store.broken)
            await trio.sleep(60)
            assert 5 <= store.tries <= 7
            await trio.sleep(10 * RETRY_LAST_S)
            assert 14 <= store.tries <= 17
            store.is_broken = False
            await trio.sleep(RETRY_LAST_S)
            assert await states(backend, store.broken) == ALL
            assert backend.statistics().unavailable == 0


async def fail() -> None:
    """A task of a workspace with a mistake of ours."""
    await trio.lowlevel.checkpoint()
    raise ZeroDivisionError("a mistake of ours, says a test")


@pytest.mark.parametrize("is_kept", [True, False])
async def test_r25_workspace_that_fails_is_opened_again_unasked_and_its_runs_are_recovered(
    is_kept: bool, autojump_clock: object, tmp_path: Path
) -> None:
    gate, attempts = Gate(), 0

    async def respond(turn: Any) -> None:
        nonlocal attempts
        attempts += 1
        turn.say("half")
        if attempts <= 2:
            await gate.pass_through()

    async with open_backend(SETTINGS, environ={}, agent=ScriptedAgent(respond)) as backend:
        new = NewWorkspace(path=str(tmp_path), client_id=None if is_kept else ClientId("client"))
        workspace = await backend.create_workspace(new)
        one, two = [(await workspace.sessions.create("s")).id for _ in range(2)]
        for session, name, policy in NAMES:
            prompt = Prompt(session_id=(one, two)[session], text=name, run_id=RunId(name), on_crash=policy)
            await workspace.accept(prompt)
        await trio.sleep(1)
        workspace.start(fail)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(WorkspaceUnavailable):
            backend.workspace(workspace.id)
        await trio.sleep(2)
        again = backend.workspace(workspace.id)
        assert again is not workspace
        assert await states(backend, workspace.id) == ALL
        assert (await again.run("retried")).attempt == 2
        assert again.claims.is_kept is is_kept


async def test_r25_workspace_that_fails_again_and_again_is_not_opened_in_a_circle(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with open_backend(SETTINGS, environ={}, agent=ScriptedAgent()) as backend:
        workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
        opened = []
        for pause in (1, 2, 4, 8, 16, 32, 60, 60):
            backend.workspace(workspace.id).start(fail)
            started = trio.current_time()
            while True:
                await trio.sleep(0.5)
                try:
                    backend.workspace(workspace.id)
                except WorkspaceUnavailable:
                    continue
                break
            opened.append(round(trio.current_time() - started))
            assert opened[-1] in (pause, pause + 1), opened
        await trio.sleep(LASTING_S)
        backend.workspace(workspace.id).start(fail)
        await trio.sleep(2)
        assert backend.workspace(workspace.id).id == workspace.id, "that it failed long ago is forgotten"


@pytest.mark.parametrize("turns", range(6))
async def test_r25_claims_are_made_before_a_workspace_may_be_found_unclaimed(
    turns: int, autojump_clock: object, tmp_path: Path
) -> None:
    """Whoever looks for unclaimed workspaces in the moment in which one has been opened leaves it alone."""
    async with open_disk() as disk:
        [workspace_id] = await leave_behind(disk, tmp_path / "one")
        async with next_backend(disk, recover=False) as backend, trio.open_nursery() as nursery:

            async def look() -> None:
                while (host := backend._hosts.find(workspace_id)) is None or host.opened_at is None:
                    await trio.lowlevel.checkpoint()
                    backend._changed()
                for _ in range(turns):
                    backend._changed()
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(look)
            new = NewWorkspace(path=str(tmp_path / "one"), client_id=ClientId("client"))
            workspace = await backend.create_workspace(new)
            assert (await workspace.wait_run("queued", 1)).state is RunState.COMPLETED
