"""R12: a run is canceled by its id, whatever its state, and its neighbors do not notice."""

import pytest
import trio

from engine.agents.protocol import Turn
from engine.errors import ModelError, NotFound
from engine.records.ids import RunId, WorkspaceId
from engine.records.run import RunState
from engine.runs.cancel import CancelAnswer
from engine.store.protocol import Store, StoredRun
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.stages import AHEAD, CANCELABLE, HELD, WITH_NEIGHBOR, At, open_staged
from tests.doubles.store import StoreDouble


@pytest.mark.parametrize("at", CANCELABLE)
async def test_r12_run_is_canceled_alone_while_it_is(at: At, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(at, tmp_path) as staged:
        if at in WITH_NEIGHBOR:
            await staged.watched.send("behind", run_id="behind")
        answer = await staged.under_hold(lambda: staged.workspace.cancel_run(HELD))
        assert answer.canceled == (HELD,)
        assert (await staged.ended()).state is RunState.CANCELED
        if at in WITH_NEIGHBOR:
            assert await staged.state(AHEAD) is RunState.ACTIVE
        staged.release()
        if at in WITH_NEIGHBOR or at is At.SLOT:
            assert (await staged.ended(AHEAD)).state is RunState.COMPLETED
        if at in WITH_NEIGHBOR:
            assert (await staged.ended("behind")).state is RunState.COMPLETED
            assert [run for run in staged.began if run != HELD] == [AHEAD, "behind"]


@pytest.mark.parametrize("at", [At.ENTRY, At.START, At.AGENT, At.TOOL])
async def test_r12_next_run_goes_on_when_the_one_before_it_is_canceled_while_it_is(
    at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path) as staged:
        if at is At.START:
            staged.nursery.start_soon(lambda: staged.watched.send("behind", run_id="behind"))
        else:
            await staged.watched.send("behind", run_id="behind")
        await staged.under_hold(lambda: staged.workspace.cancel_run(HELD))
        assert (await staged.ended()).state is RunState.CANCELED
        assert (await staged.ended("behind")).state is RunState.COMPLETED


async def test_r12_runs_around_a_canceled_one_keep_their_order(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        for number in range(3):
            await staged.watched.send(f"{number}", run_id=f"behind-{number}")
        await staged.workspace.cancel_run("behind-1")
        await staged.workspace.cancel_run(HELD)
        staged.ahead.open()
        await staged.ended("behind-2")
        assert staged.began == [AHEAD, "behind-0", "behind-2"]


async def test_r12_words_of_a_steered_run_that_is_canceled_stay_in_the_turn_that_took_it_in(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.STEERED, tmp_path) as staged:
        await staged.workspace.cancel_run(HELD)
        ended = await staged.ended()
        assert (ended.state, ended.steered_into) == (RunState.CANCELED, AHEAD)
        [terminal] = await staged.watched.terminal_events(ended)
        assert terminal.steered_into == AHEAD
        staged.ahead.open()
        assert (await staged.ended(AHEAD)).state is RunState.COMPLETED
        assert [message.text for message in await staged.watched.messages()] == [
            "ahead",
            "You said: ahead. I heard you.",
            "held",
        ] or [message.text for message in await staged.watched.messages()] == [
            "ahead",
            "held",
            "You said: ahead. I heard you.",
        ]


@pytest.mark.parametrize("state", [RunState.COMPLETED, RunState.CANCELED, RunState.FAILED])
async def test_r12_canceling_a_run_that_has_ended_changes_nothing_and_says_how_it_ended(
    state: RunState, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.ENTRY, tmp_path) as staged:

        async def respond(turn: Turn) -> None:
            if state is RunState.FAILED:
                raise ModelError("authentication", "No key", "Set one.")

        staged.watched.agent.respond_with = respond
        if state is RunState.CANCELED:
            await staged.workspace.cancel_run(HELD)
        staged.release()
        ended = await staged.ended()
        events = len(await staged.watched.events())
        answer = await staged.workspace.cancel_run(HELD)
        assert (answer.canceled, answer.state) == ((), state)
        assert await staged.ended() == ended
        assert len(await staged.watched.events()) == events


async def test_r12_canceling_a_run_that_never_was_is_an_error_that_names_it(
    watched: Watched, autojump_clock: object
) -> None:
    with pytest.raises(NotFound, match="no run 'nobody'"):
        await watched.workspace.cancel_run("nobody")


class HeldRead(StoreDouble):
    """Holds the first read of a run."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.gates = [Gate()]
        self.gate = self.gates[0]

    async def run(self, workspace_id: WorkspaceId, run_id: RunId) -> StoredRun | None:
        if self.gates:
            await self.gates.pop().pass_through()
        return await self.inner.run(workspace_id, run_id)


async def test_r12_run_that_is_accepted_while_its_cancel_looks_for_it_is_canceled(
    autojump_clock: object, tmp_path: object
) -> None:
    stores: list[HeldRead] = []
    answers: list[CancelAnswer] = []

    def wrap(store: Store) -> Store:
        stores.append(HeldRead(store))
        return stores[0]

    async def cancel() -> None:
        answers.append(await watched.workspace.cancel_run("late"))

    agent = ScriptedAgent(Gate().pass_through)
    async with (
        open_watched(path=str(tmp_path), agent=agent, wrap_store=wrap) as watched,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(cancel)
        await stores[0].gate.reached()
        run = await watched.send(run_id="late")
        stores[0].gate.open()
        assert (await watched.ended(run)).state is RunState.CANCELED
    assert answers == [CancelAnswer((run.id,), answers[0].state)]
