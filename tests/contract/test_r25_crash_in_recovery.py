"""R25: a crash in the recovery itself is recovered from, wherever it comes; nothing is taken before it is done."""

from itertools import count
from typing import Any

import pytest
import trio
import trio.testing

from engine.backend import NewWorkspace, open_backend
from engine.errors import StoreUnavailable, WorkspaceUnavailable
from engine.records.change import Change, SettleRun
from engine.records.ids import RunId
from engine.records.run import OnCrash, RunState
from engine.runs.recovery import PAGE, STALLED_S
from engine.settings import EngineSettings
from tests.doubles.engine import ScriptedAgent, Watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import HoldingStore, cancels
from tests.doubles.restarting import Disk, open_disk
from tests.doubles.store import StoreDouble


async def never(turn: Any) -> None:
    """An agent that says something and does not end."""
    turn.say("half")
    await trio.sleep_forever()


async def leave_behind(disk: Disk, path: object) -> dict[str, RunState]:
    """Runs in many states, and the one ending that each is to have."""
    async with disk.first_server(path, agent=ScriptedAgent(never)) as first:
        for name, policy in (("a", OnCrash.INTERRUPT), ("b", OnCrash.RETRY), ("c", OnCrash.INTERRUPT)):
            session = await first.workspace.sessions.create(name)
            await first.send(f"{name} active", run_id=f"{name}-active", session_id=session.id, on_crash=policy)
            await first.send(f"{name} queued", run_id=f"{name}-queued", session_id=session.id)
        await trio.sleep(1)
        await first.workspace.cancel_run("a-queued")
        disk.mortal.last = cancels("c-active")
        await first.workspace.cancel_run("c-active")
    ends = {f"{name}-{which}": RunState.COMPLETED for name in "abc" for which in ("active", "queued")}
    return ends | {"a-active": RunState.INTERRUPTED, "a-queued": RunState.CANCELED, "c-active": RunState.CANCELED}


async def test_r25_crash_after_each_commit_of_the_recovery(autojump_clock: object, tmp_path: object) -> None:
    survived = False
    for changes in count(1):
        async with open_disk() as disk:
            ends = await leave_behind(disk, tmp_path)
            async with disk.dying_server(changes):
                await trio.sleep(10)
                survived = not disk.mortal.is_dead
            async with disk.next_server(tmp_path) as again:
                found = {str(run.id): (await again.ended(run)).state for run in await again.workspace.runs()}
                if survived:
                    assert found == ends
                    return
                # What had begun in the server that died in between is interrupted; all else is as it was promised.
                assert all(
                    state is ends[name] or (state is RunState.INTERRUPTED and ends[name] is RunState.COMPLETED)
                    for name, state in found.items()
                ), f"dead after {changes} changes: {found}"
                assert found.keys() == ends.keys()


async def test_r25_pages_of_runs_are_recovered_in_order_and_each_once(autojump_clock: object, tmp_path: object) -> None:
    settings = {"queue_per_session": 1000, "queue_per_workspace": 1000}
    async with open_disk() as disk:
        async with disk.first_server(tmp_path, agent=ScriptedAgent(never), settings=settings) as first:
            runs = [await first.send(f"{number}") for number in range(2 * PAGE + 3)]
            await trio.sleep(1)
        async with disk.next_server(tmp_path) as again:
            states = [(await again.ended(run)).state for run in runs]
            assert states == [RunState.INTERRUPTED, *[RunState.COMPLETED] * (len(runs) - 1)]
            assert [turn.run_id for turn in again.agent.turns] == [run.id for run in runs[1:]]


async def test_r25_prompt_that_comes_during_the_recovery_waits_for_it(autojump_clock: object, tmp_path: object) -> None:
    async with open_disk() as disk:
        async with disk.first_server(tmp_path, agent=ScriptedAgent(never)) as first:
            run = await first.send("before", run_id="before")
            await trio.sleep(1)
        stores: list[HoldingStore] = []

        def wrap(store: Any) -> HoldingStore:
            stores.append(HoldingStore(disk.store))
            return stores[0]

        agent = ScriptedAgent()
        async with open_backend(
            EngineSettings(data_dir=None), environ={}, agent=agent, wrap_store=wrap, recover=False
        ) as backend:
            gate = stores[0].hold(lambda write: isinstance(write, SettleRun))
            order: list[str] = []

            async def send() -> None:
                workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
                again = Watched(backend, workspace, disk.session_id, agent)
                order.append("open")
                await again.ended(await again.send("after"))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await gate.reached()
                await trio.testing.wait_all_tasks_blocked()
                assert order == []
                order.append("recovered")
                gate.open()
            assert order == ["recovered", "open"]
            stored = await disk.store.run(run.workspace_id, run.id)
            assert stored is not None
            assert stored.run.state is RunState.INTERRUPTED


class Unwell(StoreDouble):
    """Takes no ending while it is unwell."""

    is_unwell = True

    async def commit(self, changes: Any) -> Any:
        if self.is_unwell and any(has_ending(change) for change in changes):
            await trio.lowlevel.checkpoint()
            return [StoreUnavailable("the disk is full, says a test") for _ in changes]
        return await self.inner.commit(changes)


def has_ending(change: Change) -> bool:
    """Whether a run ends with it."""
    return any(isinstance(write, SettleRun) for write in change.writes)


async def test_r25_workspace_whose_endings_cannot_be_written_stays_closed_and_is_tried_again(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_disk() as disk:
        async with disk.first_server(tmp_path, agent=ScriptedAgent(never)) as first:
            active = await first.send("active", run_id="active")
            queued = await first.send("queued", run_id="queued")
            await trio.sleep(1)
        store, agent = Unwell(disk.store), ScriptedAgent()
        async with open_backend(
            EngineSettings(data_dir=None), environ={}, agent=agent, wrap_store=lambda _: store
        ) as backend:
            with pytest.raises(WorkspaceUnavailable, match="does not take the endings"):
                backend.workspace(active.workspace_id)
            assert backend.statistics().unavailable == 1
            assert agent.turns == []
            store.is_unwell = False
            await trio.sleep(10)
            workspace = backend.workspace(active.workspace_id)
            assert backend.statistics().unavailable == 0
            assert (await workspace.wait_run(active.id, 1)).state is RunState.INTERRUPTED
            assert (await workspace.wait_run(queued.id, 1)).state is RunState.COMPLETED


class Slow(StoreDouble):
    """Takes its time for each ending."""

    each_s = 0.0

    async def commit(self, changes: Any) -> Any:
        await trio.sleep(self.each_s * sum(map(has_ending, changes)))
        return await self.inner.commit(changes)


async def leave_active(disk: Disk, path: object, count: int) -> list[Any]:
    """So many runs in the middle of their turns."""
    async with disk.first_server(path, agent=ScriptedAgent(never)) as first:
        sessions = [await first.workspace.sessions.create(f"{number}") for number in range(count)]
        runs = [await first.send("hi", session_id=session.id) for session in sessions]
        await trio.sleep(1)
    return runs


async def test_r25_slow_store_is_waited_for(autojump_clock: object, tmp_path: object) -> None:
    """A server with much to recover, on a machine with much else to do, has all workspaces open when it is ready."""
    async with open_disk() as disk:
        runs = await leave_active(disk, tmp_path, 10)
        store, settings = Slow(disk.store), EngineSettings(data_dir=None)
        store.each_s = settings.settle_s / 4
        async with open_backend(settings, environ={}, agent=ScriptedAgent(), wrap_store=lambda _: store) as backend:
            assert backend.statistics().unavailable == 0
            workspace = backend.workspace(runs[0].workspace_id)
            assert {(await workspace.run(run.id)).state for run in runs} == {RunState.INTERRUPTED}


async def test_r25_store_that_is_stuck_is_not_waited_for(autojump_clock: object, tmp_path: object) -> None:
    async with open_disk() as disk:
        runs = await leave_active(disk, tmp_path, 1)
        store = Slow(disk.store)
        store.each_s = 2 * STALLED_S
        began = trio.current_time()
        async with open_backend(
            EngineSettings(data_dir=None), environ={}, agent=ScriptedAgent(), wrap_store=lambda _: store
        ) as backend:
            assert trio.current_time() - began == pytest.approx(STALLED_S)
            with pytest.raises(WorkspaceUnavailable, match="does not take the endings"):
                backend.workspace(runs[0].workspace_id)


async def test_r25_run_whose_messages_cannot_be_read_ends_by_the_bare_fact(
    autojump_clock: object, tmp_path: object
) -> None:
    class Torn(StoreDouble):
        async def messages_of_runs(self, workspace_id: Any, run_ids: Any) -> Any:
            await trio.lowlevel.checkpoint()
            raise StoreUnavailable("a page is damaged, says a test")

        async def run_messages(self, workspace_id: Any, run_id: Any) -> Any:
            if run_id in {"torn", "torn too"}:
                return await self.messages_of_runs(workspace_id, (run_id,))
            return await self.inner.run_messages(workspace_id, run_id)

    async with open_disk() as disk:
        async with disk.first_server(tmp_path, agent=ScriptedAgent(never)) as first:
            for name in ("torn", "torn too", "whole"):
                session = await first.workspace.sessions.create(name)
                policy = OnCrash.RETRY if name == "torn too" else OnCrash.INTERRUPT
                await first.send(name, run_id=name, session_id=session.id, on_crash=policy)
            await trio.sleep(1)
        async with open_backend(
            EngineSettings(data_dir=None), environ={}, agent=ScriptedAgent(), wrap_store=lambda _: Torn(disk.store)
        ) as backend:
            workspace = backend.workspace(first.workspace.id)
            for name in ("torn", "torn too"):
                torn = await workspace.run(name)
                assert torn.state is RunState.INTERRUPTED
                assert torn.error is not None
                assert "cannot be read" in torn.error.details
            whole = await workspace.run("whole")
            assert whole.error is not None
            assert "is kept" in whole.error.details


async def test_r25_gate_in_recovery_is_no_entry(autojump_clock: object, tmp_path: object) -> None:
    """What waits is started only when everything that ended is on the disk."""
    async with open_disk() as disk:
        async with disk.first_server(tmp_path, agent=ScriptedAgent(never)) as first:
            await first.send("active", run_id="active")
            await first.send("queued", run_id="queued")
            await trio.sleep(1)
        gate, entered = Gate(is_open=True), []

        async def note(run: Any) -> None:
            stored = await disk.store.run(run.record.workspace_id, RunId("active"))
            assert stored is not None
            entered.append((run.record.id, stored.run.state))
            await gate.pass_through()

        async with disk.next_server(tmp_path, before_entry=note) as again:
            await again.ended(await again.workspace.run("queued"))
            assert entered == [("queued", RunState.INTERRUPTED)]
