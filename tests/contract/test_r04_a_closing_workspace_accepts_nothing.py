"""R04: a workspace that closes, and a server that stops, accept nothing, and hold no reservation back."""

from typing import Any

import pytest
import trio
import trio.testing

from engine.backend import NewWorkspace
from engine.errors import CountermandError, NotFound, ServerStopping, WorkspaceClosing
from engine.records.event import RunCompleted
from engine.records.ids import RunId
from engine.records.run import RunState
from tests.doubles.engine import Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import settles
from tests.doubles.stages import HELD, At, open_staged
from tests.doubles.store import StoreDouble
from tests.doubles.waiting import pause


@pytest.mark.parametrize("ends", ["the workspace closes", "the server stops"])
async def test_r04_prompt_is_refused_while(ends: str, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.AGENT, tmp_path, check=False) as staged:
        backend, workspace = staged.watched.backend, staged.workspace
        ending = staged.store.hold(settles(HELD))
        async with trio.open_nursery() as nursery:
            if ends == "the workspace closes":
                nursery.start_soon(backend.delete_workspace, workspace.id)
                error: type[CountermandError] = WorkspaceClosing
            else:
                backend.begin_shutdown(0)
                error = ServerStopping
            await ending.reached()
            with pytest.raises(error):
                await staged.watched.send("too late", run_id="late")
            assert workspace.lanes.find("late") is None
            assert workspace.statistics().waiting == 0
            ending.open()
        if ends == "the server stops":
            await backend.wait_stopped()
        assert await backend.store.run(workspace.id, RunId("late")) is None
        with pytest.raises(error):
            await staged.watched.send("later still", run_id="later")


async def test_r04_closed_workspace_is_not_found_and_stopping_server_opens_none(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_watched(path=str(tmp_path), check=False) as watched:
        await watched.backend.delete_workspace(watched.workspace.id)
        with pytest.raises(NotFound):
            watched.backend.workspace(watched.workspace.id)
        again = await watched.backend.create_workspace(NewWorkspace(path=str(tmp_path)))
        assert again.id == watched.workspace.id
        session = await again.sessions.create("s")
        run = await Watched(watched.backend, again, session.id, None).send("hi")
        assert (await again.wait_run(run.id, 1)).state is RunState.COMPLETED
        watched.backend.begin_shutdown(0)
        with pytest.raises(ServerStopping):
            await watched.backend.create_workspace(NewWorkspace(path=str(tmp_path)))


@pytest.mark.parametrize("ends", ["the workspace closes", "the server stops"])
async def test_r04_prompt_that_is_being_looked_up_when_it_ends_is_refused(
    ends: str, autojump_clock: object, tmp_path: object
) -> None:
    found = Gate()

    class Slow(StoreDouble):
        async def run(self, *args: Any) -> Any:
            stored = await super().run(*args)
            await found.pass_through()
            return stored

    async with open_watched(path=str(tmp_path), wrap_store=Slow, check=False) as watched:
        refused = trio.Event()

        async def send() -> None:
            with pytest.raises(WorkspaceClosing if ends == "the workspace closes" else ServerStopping):
                await watched.send("hi", run_id="late")
            refused.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await found.reached()
            if ends == "the workspace closes":
                await watched.backend.delete_workspace(watched.workspace.id)
            else:
                watched.backend.begin_shutdown(0)
            found.open()
            await refused.wait()
        assert watched.workspace.lanes.all_lanes() == ()
        assert await watched.backend.store.latest_run_seq(watched.workspace.id) == 0


@pytest.mark.parametrize("head_start", range(-6, 7, 2))
@pytest.mark.parametrize("ends", ["the workspace closes", "the server stops"])
async def test_r04_accept_against_the_end_is_refused_or_accepted_and_never_half(
    ends: str, head_start: int, autojump_clock: object, tmp_path: object
) -> None:
    for _ in range(4):
        async with open_watched(path=str(tmp_path), check=False) as watched:
            backend, workspace = watched.backend, watched.workspace
            answers: list[Any] = []

            async def send(watched: Watched = watched, answers: list[Any] = answers) -> None:
                await pause(max(head_start, 0))
                try:
                    answers.append(await watched.send("hi", run_id="run"))
                except (WorkspaceClosing, ServerStopping) as error:
                    answers.append(error)

            async def end(backend: Any = backend, workspace: Any = workspace) -> None:
                await pause(max(-head_start, 0))
                if ends == "the workspace closes":
                    await backend.delete_workspace(workspace.id)
                else:
                    backend.begin_shutdown(0)
                    await backend.wait_stopped()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                nursery.start_soon(end)
            stored = await backend.store.run(workspace.id, RunId("run"))
            [answer] = answers
            assert (stored is not None) is not isinstance(answer, CountermandError)
            events = await backend.store.events_after(workspace.id, 0, limit=1000)
            terminal = [event.body for event in events if isinstance(event.body, RunCompleted)]
            if stored is None:
                assert not [event for event in events if event.run_id == "run"]
            elif ends == "the workspace closes":
                assert stored.run.state.is_terminal
            assert len(terminal) == (stored is not None and stored.run.state.is_terminal)
