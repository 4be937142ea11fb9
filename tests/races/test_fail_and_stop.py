"""A workspace that fails against a server that stops."""

from pathlib import Path

import trio

from engine.agents.protocol import Turn
from engine.backend import NewWorkspace
from engine.records.ids import WorkspaceId
from engine.records.run import RunState
from engine.reopening import RETRY_FIRST_S
from engine.store.protocol import Store
from tests.doubles.engine import ScriptedAgent, open_watched
from tests.doubles.store import StoreDouble
from tests.doubles.waiting import until


class CountingStore(StoreDouble):
    """Counts how often the settings are read; from many times on it takes a while."""

    asked = 0
    MANY = 20

    async def settings(self, workspace_id: WorkspaceId | None) -> dict[str, str]:
        self.asked += 1
        if self.asked > self.MANY:
            await trio.sleep(1.0)
        return await self.inner.settings(workspace_id)


async def test_r24_a_workspace_that_failed_is_not_tried_again_and_again_while_the_server_stops(
    autojump_clock: object, tmp_path: Path
) -> None:
    """Its time comes while another workspace is drained: nothing can be opened then, and nobody may spin over it."""
    stores: list[CountingStore] = []

    def wrap(store: Store) -> CountingStore:
        stores.append(CountingStore(store))
        return stores[0]

    async def respond(turn: Turn) -> None:
        await trio.sleep(30 * RETRY_FIRST_S)

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug, says a test")

    agent = ScriptedAgent(respond)
    async with open_watched(path=str(tmp_path), agent=agent, wrap_store=wrap) as watched:
        other = tmp_path / "other"
        other.mkdir()
        failing = await watched.backend.create_workspace(NewWorkspace(path=str(other)))
        run = await watched.send()
        await until(lambda: agent.turns)
        failing.start(fail)
        await until(watched.backend.reopening.all)
        before = stores[0].asked
        watched.backend.begin_shutdown(60 * RETRY_FIRST_S)
        await watched.backend.wait_stopped()
        stored = await watched.backend.store.run(watched.workspace.id, run.id)
        assert stored is not None
        assert stored.run.state is RunState.COMPLETED
        assert stores[0].asked - before <= 2
