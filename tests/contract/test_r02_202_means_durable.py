"""R02: a prompt is answered when its run is committed; if that fails, nothing of it remains."""

import base64
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from engine.errors import NotFound, StoreUnavailable
from engine.records.change import AcceptRun, Change
from engine.records.event import RunChanged
from engine.records.message import Attachment
from engine.records.run import IfBusy, OnCrash, RunRecord, RunState
from engine.store.protocol import Store
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import HoldingStore, accepts
from tests.doubles.stages import AHEAD, HELD, At, open_staged
from tests.doubles.store import FailingStore, StoreDouble
from tests.doubles.waiting import until

ROUNDS = 20  # of a race that Trio decides by the toss of a coin


def refuses(*run_ids: str) -> Any:
    """Picks the acceptance of these runs."""

    def fails(number: int, change: Change) -> bool:
        return any(isinstance(write, AcceptRun) and write.run.id in run_ids for write in change.writes)

    return fails


async def test_r02_prompt_is_not_answered_before_its_run_is_committed(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.COMMIT, tmp_path) as staged:
        await trio.testing.wait_all_tasks_blocked()
        assert staged.answers == []
        with pytest.raises(NotFound):
            await staged.workspace.run(HELD)
        after = staged.store.hold(accepts(HELD), after=True)
        staged.held.open()
        await after.reached()
        await trio.testing.wait_all_tasks_blocked()
        assert staged.answers == []
        assert await staged.state() is RunState.ACCEPTED
        after.open()
        await staged.ended()
        assert [answer.id for answer in staged.answers if isinstance(answer, RunRecord)] == [HELD]


async def test_r02_all_of_the_run_is_there_when_the_prompt_is_answered(
    autojump_clock: object, tmp_path: object
) -> None:
    gate = Gate()
    notes = Attachment("/a/notes.txt", "notes.txt", "text/plain", base64.b64encode(b"words").decode())
    async with open_watched(path=str(tmp_path), before_entry=gate.pass_through) as watched:
        before = len(await watched.events())
        answered = await watched.send(
            "hi", attachments=(notes,), if_busy="steer", timeout_s=5, on_crash=OnCrash.RETRY, model="offline/helper"
        )
        stored = await watched.workspace.run(answered.id)
        assert stored == answered
        assert (stored.state, stored.session_id) == (RunState.ACCEPTED, watched.session_id)
        asked = stored.prompt
        assert (asked.text, asked.attachments, asked.if_busy) == ("hi", (notes,), IfBusy.STEER)
        assert (asked.timeout_s, asked.on_crash, asked.model) == (5, OnCrash.RETRY, "offline/helper")
        [told] = (await watched.events())[before:]
        assert isinstance(told.body, RunChanged)
        assert (told.body.run.id, told.body.run.state, told.run_id) == (answered.id, RunState.ACCEPTED, answered.id)
        gate.open()


async def check_no_trace(watched: Watched, run_id: str, events: int) -> None:
    """Nothing of the run is left anywhere."""
    with pytest.raises(NotFound):
        await watched.workspace.run(run_id)
    assert watched.workspace.lanes.find(run_id) is None
    assert not [event for event in (await watched.events())[events:] if event.run_id == run_id]
    assert run_id not in [message.run_id for message in await watched.messages()]


async def test_r02_run_whose_commit_fails_is_refused_and_nothing_of_it_remains(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_watched(path=str(tmp_path), wrap_store=lambda s: FailingStore(s, refuses("bad"))) as watched:
        before = len(await watched.events())
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await watched.send("hi", run_id="bad")
        await check_no_trace(watched, "bad", before)
        assert len(await watched.events()) == before
        assert not watched.workspace.lanes.all_lanes()
        assert watched.agent.turns == []
        assert (await watched.ended(await watched.send("hi", run_id="good"))).state is RunState.COMPLETED


@pytest.mark.parametrize("bad", [0, 1, 2])
async def test_r02_runs_around_one_whose_commit_fails_run_in_their_order(
    bad: int, autojump_clock: object, tmp_path: object
) -> None:
    for _ in range(5):  # Trio starts the tasks of a batch in any order
        stores: list[HoldingStore] = []

        def wrap(store: Store, stores: list[HoldingStore] = stores) -> Store:
            stores.append(HoldingStore(FailingStore(store, refuses(f"run-{bad}"))))
            return stores[0]

        errors: list[BaseException] = []

        async with open_watched(path=str(tmp_path), wrap_store=wrap) as watched:

            async def send(number: int, watched: Watched = watched, errors: Any = errors) -> None:
                try:
                    await watched.send(f"{number}", run_id=f"run-{number}")
                except StoreUnavailable as error:
                    errors.append(error)

            gate = stores[0].hold(accepts("run-0"))
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(send, number)
                    await until(partial(watched.workspace.lanes.find, f"run-{number}"))
                gate.open()
            good = [f"run-{number}" for number in range(3) if number != bad]
            for run_id in good:
                await watched.ended(await watched.workspace.run(run_id))
            assert [turn.run_id for turn in watched.agent.turns] == good
            assert len(errors) == 1
            await check_no_trace(watched, f"run-{bad}", 0)


async def test_r02_run_that_was_parked_behind_a_refused_one_is_started(
    autojump_clock: object, tmp_path: object
) -> None:
    stores: list[HoldingStore] = []

    def wrap(store: Store) -> Store:
        names = [f"bad-{number}" for number in range(ROUNDS)]
        stores.append(HoldingStore(FailingStore(store, refuses(*names))))
        return stores[0]

    async with open_watched(path=str(tmp_path), wrap_store=wrap) as watched:
        other = await watched.workspace.sessions.create("other")

        async def send_bad(run_id: str) -> None:
            with pytest.raises(StoreUnavailable):
                await watched.send("bad", run_id=run_id)

        async def send(run_id: str, session_id: str) -> None:
            await watched.send("good", run_id=run_id, session_id=session_id)

        parked = set()
        for number in range(ROUNDS):
            # What is accepted while the writer is held is decided in one step, and Trio starts its tasks in any order.
            gate = stores[0].hold(accepts(f"first-{number}"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, f"first-{number}", other.id)
                await gate.reached()
                nursery.start_soon(send_bad, f"bad-{number}")
                await until(partial(watched.workspace.lanes.find, f"bad-{number}"))
                nursery.start_soon(send, f"good-{number}", watched.session_id)
                await until(partial(watched.workspace.lanes.find, f"good-{number}"))
                gate.open()
            good = await watched.ended(await watched.workspace.run(f"good-{number}"))
            assert good.state is RunState.COMPLETED
            told = [event.body for event in await watched.events() if event.run_id == good.id]
            parked.add(any(isinstance(body, RunChanged) and body.run.state is RunState.QUEUED for body in told))
        assert parked == {True, False}, "the race has gone one way only"


async def test_r02_interrupt_whose_commit_fails_interrupts_nobody(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.QUEUE, tmp_path, beneath=lambda s: FailingStore(s, refuses("bad"))) as staged:
        with pytest.raises(StoreUnavailable):
            await staged.watched.send("now", run_id="bad", if_busy="interrupt")
        staged.release()
        for run_id in (AHEAD, HELD):
            ended = await staged.ended(run_id)
            assert (ended.state, ended.cancel_requested_at_us) == (RunState.COMPLETED, None)


async def test_r02_prompt_whose_session_is_deleted_meanwhile_is_refused(
    autojump_clock: object, tmp_path: object
) -> None:
    found = Gate()

    class Slow(StoreDouble):
        async def run(self, *args: Any) -> Any:
            stored = await super().run(*args)
            await found.pass_through()
            return stored

    async with open_watched(path=str(tmp_path), wrap_store=Slow) as watched:
        session_id = (await watched.workspace.sessions.create("short-lived")).id
        refused = trio.Event()

        async def send() -> None:
            with pytest.raises(NotFound, match="no session"):
                await watched.send("hi", run_id="late", session_id=session_id)
            refused.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await found.reached()
            await watched.workspace.delete_session(session_id)
            before = len(await watched.events())
            found.open()
            await refused.wait()
        await check_no_trace(watched, "late", before)


@pytest.mark.parametrize("takes_it", [True, False], ids=["is written", "fails"])
async def test_r02_prompt_whose_commit_is_under_way_when_the_server_stops_is_told_the_truth(
    takes_it: bool, autojump_clock: object, tmp_path: object
) -> None:
    def beneath(store: Store) -> Store:
        return store if takes_it else FailingStore(store, refuses(HELD))

    async with open_staged(At.COMMIT, tmp_path, check=False, beneath=beneath) as staged:
        backend, workspace_id = staged.watched.backend, staged.workspace.id
        backend.begin_shutdown(0)
        await trio.testing.wait_all_tasks_blocked()
        staged.held.open()
        await backend.wait_stopped()
        await trio.testing.wait_all_tasks_blocked()
        [answer] = staged.answers
        stored = await backend.store.run(workspace_id, HELD)
        assert isinstance(answer, RunRecord) is (stored is not None) is takes_it


async def test_r02_prompt_that_the_log_takes_no_more_is_refused_without_a_trace(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(), check=False) as watched:
        before = len(await watched.events())
        watched.backend.log.close()
        with pytest.raises(StoreUnavailable):
            await watched.send("hi", run_id="late")
        await check_no_trace(watched, "late", before)
        assert not watched.workspace.lanes.all_lanes()
