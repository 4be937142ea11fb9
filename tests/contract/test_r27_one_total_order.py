"""R27: durable events have gapless, increasing numbers, and are published after their commit, in that order."""

from functools import partial

import pytest
import trio
import trio.testing

from engine.backend import NewWorkspace
from engine.records.event import RunChanged, RunCompleted
from engine.records.run import RunState
from engine.runs.turn import RunTurn
from tests.doubles.engine import Watched
from tests.doubles.holding_store import settles
from tests.doubles.reading import read_along
from tests.doubles.stages import HELD, At, open_staged


async def test_r27_readers_get_every_number_once_in_order_whatever_runs(
    watched: Watched, autojump_clock: object
) -> None:
    async def respond(turn: RunTurn) -> None:
        for number in range(3):
            turn.say(f"{number} ")
            await trio.sleep(0.05 * (turn.run.seq % 3))
            await turn.next_step()

    watched.agent.respond_with = respond
    async with read_along(watched.workspace, after=0) as early, trio.open_nursery() as nursery:
        sessions = [(await watched.workspace.sessions.create("s")).id for _ in range(8)]
        for _ in range(3):
            for session_id in sessions:
                nursery.start_soon(partial(watched.send, session_id=session_id))
        await trio.sleep(0.07)
        async with read_along(watched.workspace, after=0) as late:
            nursery.start_soon(watched.workspace.cancel_session, sessions[0])
            await trio.sleep(10)
            await late.caught_up()
            events = await watched.events()
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            for reader in (early, late):
                assert reader.numbers == [event.seq for event in events]
            ended = [event for event in events if isinstance(event.body, RunCompleted)]
            assert len(ended) == 24


@pytest.mark.parametrize("written", [False, True], ids=["before it is written", "before its writer knows"])
async def test_r27_nothing_is_published_before_its_commit(
    written: bool, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.AGENT, tmp_path) as staged, read_along(staged.workspace, after=0) as reader:
        gate = staged.store.hold(settles(HELD), after=written)
        staged.held.open()
        await gate.reached()
        await trio.testing.wait_all_tasks_blocked()
        assert not any(isinstance(event.body, RunCompleted) for event in reader.got)
        gate.open()
        await staged.ended()
        await reader.caught_up()
        assert isinstance(reader.got[-1].body, RunCompleted)


async def test_r27_whoever_gets_an_event_finds_it_in_the_store(watched: Watched, autojump_clock: object) -> None:
    run = await watched.send("hi")
    async with watched.workspace.open_feed(after=0) as feed:
        ended = False
        while not ended:
            for event in await feed.receive():
                if event.seq is not None:
                    assert (await watched.workspace.event_range()).latest >= event.seq
                if isinstance(event.body, RunCompleted):
                    assert (await watched.workspace.run(run.id)).state is RunState.COMPLETED
                    ended = True


async def test_r27_answer_of_a_call_comes_after_its_events_are_published(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        await staged.workspace.cancel_session(staged.session_id)
        published = staged.watched.backend._bus.latest(staged.workspace.id)
        marks = [
            event.seq
            for event in await staged.watched.events()
            if isinstance(event.body, RunChanged) and event.body.run.cancel_requested_at_us is not None
        ]
        assert published is not None
        assert marks[0] is not None
        assert published >= marks[0]


async def test_r27_workspaces_are_numbered_each_for_itself(
    watched: Watched, autojump_clock: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = str(tmp_path_factory.mktemp("elsewhere"))
    elsewhere = await watched.backend.create_workspace(NewWorkspace(path=path))
    session = await elsewhere.sessions.create("s")
    for _ in range(3):
        await watched.ended(await watched.send("hi"))
        run = await Watched(watched.backend, elsewhere, session.id, None).send("hi")
        await elsewhere.wait_run(run.id, 1)
    for workspace in (watched.workspace, elsewhere):
        events = await watched.backend.store.events_after(workspace.id, 0, limit=1000)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert {event.workspace_id for event in events} == {workspace.id}
