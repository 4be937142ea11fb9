"""Endings that the store does not take for a long while, or not at all: the run ends as soon and as well as it can, and
what waits is not burnt."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from engine.errors import StoreError
from engine.records.change import AcceptRun, Change, RequestCancel, SettleRun
from engine.records.run import RunState
from engine.settings import EngineSettings
from engine.store.protocol import Committed
from engine.tools.toolbox import OpenTools
from tests.doubles.engine import ScriptedAgent, open_watched
from tests.doubles.gate import Gate
from tests.doubles.store import FailingStore, GatedStore, StoreDouble

MINUTE = 60.0  # far beyond `settle_s`
REFUSED = StoreError("the change is refused, says a test")


async def test_r22_run_that_ended_while_the_disk_was_full_ends_when_there_is_room(
    autojump_clock: object, tmp_path: object
) -> None:
    gate = Gate()
    is_full = False

    def beneath(store: Any) -> FailingStore:
        return FailingStore(store, lambda number, change: is_full)

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(gate.pass_through), wrap_store=beneath) as watched:
        run = await watched.send("hi")
        await gate.reached()
        is_full = True
        gate.open()
        await trio.sleep(MINUTE)
        assert await watched.state(run) is RunState.ACTIVE
        is_full = False
        assert (await watched.ended(run, 10)).state is RunState.COMPLETED
        assert (await watched.ended(await watched.send("next"))).state is RunState.COMPLETED
        await watched.workspace.delete_session(watched.session_id)


async def test_r11_run_whose_ending_is_late_can_still_be_canceled(autojump_clock: object, tmp_path: object) -> None:
    gate = Gate()
    is_full = False

    def beneath(store: Any) -> FailingStore:
        return FailingStore(store, lambda number, change: is_full)

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(gate.pass_through), wrap_store=beneath) as watched:
        run = await watched.send("hi")
        await gate.reached()
        is_full = True
        gate.open()
        await trio.sleep(MINUTE)
        is_full = False
        assert await watched.workspace.cancel_session(watched.session_id) == (run.id,)
        assert (await watched.ended(run, 10)).state is RunState.CANCELED


@pytest.mark.parametrize("late_s", [0.0, MINUTE])
async def test_r10_run_that_is_canceled_while_its_good_ending_is_late_leaves_nothing_running(
    late_s: float, autojump_clock: object, tmp_path: object
) -> None:
    gone: list[str] = []
    has_failed, is_full = trio.Event(), True

    @asynccontextmanager
    async def open_tools(seams: object) -> AsyncIterator[OpenTools]:
        async def end_run(run_id: str) -> None:
            await trio.lowlevel.checkpoint()
            assert await watched.state(run) is RunState.ACTIVE
            gone.append(run_id)

        yield OpenTools(tools={}, end_run=end_run)

    def fails(number: int, change: Change) -> bool:
        if is_full and any(isinstance(write, SettleRun) for write in change.writes):
            has_failed.set()
            return True
        return False

    async with open_watched(
        path=str(tmp_path), tools=open_tools, wrap_store=lambda store: FailingStore(store, fails)
    ) as watched:
        run = await watched.send("hi")
        await has_failed.wait()
        await trio.sleep(late_s)
        assert not gone
        is_full = False
        await watched.workspace.cancel_run(run.id)
        assert (await watched.ended(run, 10)).state is RunState.CANCELED
        assert gone == [run.id]


def refuses_interrupting(number: int, change: Change) -> bool:
    """The acceptance of a prompt that interrupts."""
    return {AcceptRun, RequestCancel} <= {type(write) for write in change.writes}


async def test_r02_prompt_that_is_refused_has_interrupted_nobody(autojump_clock: object, tmp_path: object) -> None:
    gate, gone = Gate(), list[str]()

    @asynccontextmanager
    async def open_tools(seams: object) -> AsyncIterator[OpenTools]:
        async def end_run(run_id: str) -> None:
            await trio.lowlevel.checkpoint()
            gone.append(run_id)

        yield OpenTools(tools={}, end_run=end_run)

    async with open_watched(
        path=str(tmp_path), agent=ScriptedAgent(gate.pass_through), tools=open_tools,
        wrap_store=lambda store: FailingStore(store, refuses_interrupting),
    ) as watched:  # fmt: skip
        run = await watched.send("hi")
        await gate.reached()
        with pytest.raises(StoreError):
            await watched.send("refused", if_busy="interrupt")
        gate.open()
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert not gone, "what it has left running may go on"


async def test_r24_run_that_a_refused_prompt_was_to_interrupt_is_left_to_the_next_start(
    autojump_clock: object, tmp_path: object
) -> None:
    gate = Gate()
    async with open_watched(
        path=str(tmp_path), agent=ScriptedAgent(gate.pass_through), check=False,
        settings=EngineSettings(data_dir=None, max_active_runs=1),
        wrap_store=lambda store: FailingStore(store, refuses_interrupting),
    ) as watched:  # fmt: skip
        await watched.send("hi")
        await gate.reached()
        other = await watched.workspace.sessions.create("other")
        waits = await watched.send("waits", session_id=other.id)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StoreError):
            await watched.send("refused", session_id=other.id, if_busy="interrupt")
        await watched.workspace.drain(0)
        assert await watched.state(waits) is RunState.ACCEPTED


async def test_queue_is_run_though_the_store_says_nothing_for_a_minute(
    autojump_clock: object, tmp_path: object
) -> None:
    gate = Gate()
    stores: list[GatedStore] = []

    def wrap(store: Any) -> GatedStore:
        stores.append(GatedStore(store))
        return stores[0]

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(gate.pass_through), wrap_store=wrap) as watched:
        runs = [await watched.send("hi") for _ in range(6)]
        await gate.reached()
        await trio.testing.wait_all_tasks_blocked()
        stores[0].before_commit = Gate()
        gate.open()
        await trio.sleep(MINUTE)
        stores[0].before_commit.open()
        for run in runs:
            assert (await watched.ended(run)).state is RunState.COMPLETED
        assert [turn.run_id for turn in watched.agent.turns] == [run.id for run in runs]


@pytest.mark.parametrize("how", [RunState.FAILED, RunState.CANCELED])
async def test_r22_ending_that_the_store_refuses_is_made_without_words(
    how: RunState, autojump_clock: object, tmp_path: object
) -> None:
    class Refusing(StoreDouble):
        async def commit(self, changes: Sequence[Change]) -> list[Committed | Exception]:
            outcomes = [
                (await self.inner.commit([change]))[0] if not is_worded(change) else REFUSED for change in changes
            ]
            await trio.lowlevel.checkpoint()
            return outcomes

    def is_worded(change: Change) -> bool:
        return any(
            isinstance(write, SettleRun) and write.run_id == "run" and write.planned.writes for write in change.writes
        )

    gate = Gate()
    async with open_watched(
        path=str(tmp_path), agent=ScriptedAgent(gate.pass_through), wrap_store=Refusing, check=False
    ) as watched:
        run = await watched.send("hi", run_id="run")
        await gate.reached()
        if how is RunState.CANCELED:
            await watched.workspace.cancel_run("run")
        gate.open()
        ended = await watched.ended(run, 10)
        assert ended.state is how
        assert (ended.error.type if ended.error else "") == ("store" if how is RunState.FAILED else "")
        assert [event.state for event in await watched.terminal_events(run)] == [how]
        assert (await watched.ended(await watched.send("next"))).state is RunState.COMPLETED


async def test_r22_run_ends_though_a_mistake_of_ours_keeps_its_ending_from_being_made(
    autojump_clock: object, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistake(outcome: object) -> str:
        raise ZeroDivisionError("a mistake of ours, says a test")

    monkeypatch.setattr("engine.runs.turn_closing.why_no_result", mistake)
    async with open_watched(path=str(tmp_path), check=False) as watched:
        ended = await watched.ended(await watched.send("hi"), 10)
        assert ended.state is RunState.FAILED
        assert ended.error is not None
        assert ended.error.type == "internal"
        assert len(await watched.terminal_events(ended)) == 1
        assert watched.workspace.lanes.all_runs() == ()
