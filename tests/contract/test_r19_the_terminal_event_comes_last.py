"""R19: the terminal event is the last of its turn, tells how it ended, and commits with it."""

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.errors import ModelError
from engine.records.change import Change, SettleRun
from engine.records.event import MessageCreated, MessageUpdated, RunChanged, RunCompleted
from engine.records.message import Role
from engine.records.run import RunState, Usage
from engine.store.protocol import Store
from tests.doubles.engine import Watched
from tests.doubles.holding_store import settles
from tests.doubles.stages import HELD, At, open_staged
from tests.doubles.store import FailingStore

ENDINGS = {
    "completes": RunState.COMPLETED,
    "fails": RunState.FAILED,
    "times out": RunState.FAILED,
    "is canceled": RunState.CANCELED,
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_r19_terminal_event_tells_all_and_follows_everything_when_a_turn(
    ending: str, watched: Watched, autojump_clock: object
) -> None:
    async def respond(turn: Turn) -> None:
        turn.say("first step")
        turn.begin_tool_call("call", "nothing")
        await turn.call_tool(turn.end_tool_call("call"))
        await turn.next_step()
        turn.think("hm")
        turn.say("the last words, ")
        await trio.sleep(1)
        turn.say("in ")
        turn.say("full")
        turn.use(Usage(3, 4, cost=0.5))
        if ending == "fails":
            raise ModelError("content_filter", "Refused", "Say it differently.")
        if ending != "completes":
            await trio.sleep_forever()

    watched.agent.respond_with = respond
    run = await watched.send("hi", timeout_s=20)
    await trio.sleep(5)
    if ending == "is canceled":
        await watched.workspace.cancel_run(run.id)
    ended = await watched.ended(run)
    await trio.sleep(1)  # what was not flushed when the turn ended must not come now
    mine = [event for event in await watched.events() if event.run_id == run.id]
    terminal = mine[-1].body
    assert isinstance(terminal, RunCompleted)
    assert sum(isinstance(event.body, RunCompleted) for event in mine) == 1
    last = [message for message in await watched.messages() if message.role is Role.ASSISTANT][-1]
    assert (terminal.run_id, terminal.session_id) == (run.id, watched.session_id)
    assert (terminal.message_id, terminal.text) == (last.id, "the last words, in full")
    assert terminal.state is ended.state is ENDINGS[ending]
    assert ended.usage == Usage(3, 4, cost=0.5)
    assert terminal.error == ended.error
    assert (terminal.error is not None) is (ENDINGS[ending] is RunState.FAILED)
    shown = [event.body for event in mine if isinstance(event.body, MessageCreated | MessageUpdated)]
    assert shown[-1].message == last
    [change] = [e for e in mine if isinstance(e.body, RunChanged) and e.body.run.state.is_terminal]
    assert change.seq is not None
    assert mine[-1].seq is not None
    assert change.seq < mine[-1].seq


@pytest.mark.parametrize("at", [At.AGENT, At.TOOL, At.ENTRY, At.QUEUE])
async def test_r19_state_message_and_event_of_an_ending_are_one_commit(
    at: At, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path) as staged:
        before = staged.store.hold(settles(HELD))
        after = staged.store.hold(settles(HELD), after=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(staged.workspace.cancel_run, HELD)
            await trio.testing.wait_all_tasks_blocked()
            staged.held.open()
            await before.reached()
            assert await staged.state() not in {RunState.COMPLETED, RunState.CANCELED}
            assert not any(finish == "canceled" for _, _, finish in await staged.turn())
            assert not await staged.watched.terminal_events(await staged.workspace.run(HELD))
            before.open()
            await after.reached()
            assert await staged.state() is RunState.CANCELED
            turn = await staged.turn()
            assert [finish for role, _, finish in turn if role == "assistant"] == ["canceled"]
            assert len(await staged.watched.terminal_events(await staged.workspace.run(HELD))) == 1
            after.open()


async def test_r19_nothing_of_an_ending_is_there_when_its_commit_fails(
    autojump_clock: object, tmp_path: object
) -> None:
    failing: list[FailingStore] = []

    def fails(number: int, change: Change) -> bool:
        return any(isinstance(write, SettleRun) for write in change.writes)

    def beneath(store: Store) -> FailingStore:
        failing.append(FailingStore(store, fails))
        return failing[-1]

    async with open_staged(At.TOOL, tmp_path, beneath=beneath) as staged:
        await staged.workspace.cancel_run(HELD)
        await trio.sleep(1)
        assert failing[0].failed >= 2
        assert await staged.state() is RunState.ACTIVE
        assert [finish for _, _, finish in await staged.turn()] == ["stop", ""]
        failing[0].fails = lambda number, change: False
        await trio.sleep(10)
        assert (await staged.ended()).state is RunState.CANCELED


async def test_r19_results_of_open_calls_come_before_the_terminal_event(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.TOOL, tmp_path) as staged:
        await staged.workspace.cancel_run(HELD)
        await staged.ended()
        mine = [event.body for event in await staged.watched.events() if event.run_id == HELD]
        made = [i for i, body in enumerate(mine) if isinstance(body, MessageCreated) and body.message.tool_results]
        ended = [i for i, body in enumerate(mine) if isinstance(body, RunCompleted)]
        assert made == [i for i in made if i < ended[0]]
        assert (len(made), ended) == (1, [len(mine) - 1])
