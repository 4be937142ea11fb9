"""R18: every accepted run has exactly one terminal event, in whichever way it ends."""

import pytest
import trio

from engine.agents.protocol import Turn
from engine.backend import NewWorkspace, open_backend
from engine.errors import ModelError, NotFound
from engine.records.change import Change, Ending, SettleRun
from engine.records.event import RunCompleted
from engine.records.message import Message
from engine.records.run import OnCrash, RunRecord, RunState
from engine.settings import EngineSettings
from engine.store.sqlite import open_sqlite_store
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.holding_store import DyingStore, Picks, accepts, starts
from tests.doubles.invariants import check_invariants
from tests.doubles.stages import AHEAD, HELD, At, open_staged
from tests.doubles.store import StoreDouble


async def check_one_ending(watched: Watched, run: RunRecord, state: RunState) -> None:
    """The run has ended so, and there is one event that tells."""
    ended = await watched.ended(run)
    assert ended.state is state
    assert ended.ended_at_us is not None
    assert [(event.state, event.error) for event in await watched.terminal_events(run)] == [(state, ended.error)]


async def test_r18_completed(watched: Watched, autojump_clock: object) -> None:
    await check_one_ending(watched, await watched.send("hi"), RunState.COMPLETED)


@pytest.mark.parametrize("at", [At.COMMIT, At.ENTRY, At.QUEUE, At.SLOT, At.START, At.AGENT, At.TOOL, At.STEERED])
async def test_r18_canceled_while(at: At, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(at, tmp_path) as staged:
        for _ in range(2):
            await staged.under_hold(lambda: staged.workspace.cancel_run(HELD))
        await check_one_ending(staged.watched, await staged.workspace.run(HELD), RunState.CANCELED)


@pytest.mark.parametrize("at", [At.COMMIT, At.ENTRY, At.QUEUE, At.SLOT, At.START, At.AGENT, At.TOOL, At.STEERED])
async def test_r18_workspace_closed_while(at: At, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(at, tmp_path, check=False) as staged:
        store, workspace_id = staged.watched.backend.store, staged.workspace.id
        await staged.under_hold(lambda: staged.watched.backend.delete_workspace(workspace_id))
        ended = [event.body for event in await store.events_after(workspace_id, 0, limit=1000)]
        states = {event.run_id: event.state for event in ended if isinstance(event, RunCompleted)}
        expected = {HELD, AHEAD} if at in {At.QUEUE, At.SLOT, At.STEERED} else {HELD}
        assert states == dict.fromkeys(expected, RunState.CANCELED)
        assert sum(isinstance(event, RunCompleted) for event in ended) == len(expected)


async def test_r18_failed_before_the_model_was_called(autojump_clock: object, tmp_path: object) -> None:
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        run = await watched.send("there is no script in this")
        await check_one_ending(watched, run, RunState.FAILED)


@pytest.mark.parametrize("error", [NotFound("model", "gone/away"), RuntimeError("a bug"), OSError("no disk")])
async def test_r18_failed_because_the_agent_raised(error: Exception, watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Turn) -> None:
        raise error

    watched.agent.respond_with = respond
    await check_one_ending(watched, await watched.send("hi"), RunState.FAILED)


async def test_r18_failed_because_the_history_could_not_be_read(autojump_clock: object, tmp_path: object) -> None:
    class Forgetful(StoreDouble):
        async def history(self, *_: object) -> list[Message]:
            raise OSError("the page is torn out")

    async with open_watched(path=str(tmp_path), wrap_store=Forgetful) as watched:
        await check_one_ending(watched, await watched.send("hi"), RunState.FAILED)
        assert watched.agent.turns == []


async def test_r18_failed_in_the_model(autojump_clock: object, tmp_path: object) -> None:
    async with open_watched(path=str(tmp_path), **coder(RecordingModel())) as watched:
        run = await watched.send(script([{"text": "I was about to"}, {"fail": "content_filter"}]))
        await check_one_ending(watched, run, RunState.FAILED)


async def test_r18_timed_out(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Turn) -> None:
        await trio.sleep_forever()

    watched.agent.respond_with = respond
    await check_one_ending(watched, await watched.send("hi", timeout_s=10), RunState.FAILED)


async def test_r18_steered_and_ended_with_its_host(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.STEERED, tmp_path) as staged:
        staged.release()
        await check_one_ending(staged.watched, await staged.workspace.run(AHEAD), RunState.COMPLETED)
        await check_one_ending(staged.watched, await staged.workspace.run(HELD), RunState.COMPLETED)


async def test_r18_host_of_a_steered_run_failed(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.STEERED, tmp_path) as staged:
        passing = staged.ahead.pass_through

        async def fail() -> None:
            await passing()
            raise ModelError("content_filter", "Refused", "Say it differently.")

        staged.ahead.pass_through = fail  # type: ignore[method-assign, assignment]
        staged.watched.agent.respond_with = staged.respond
        staged.ahead.open()
        for run_id in (AHEAD, HELD):
            await staged.ended(run_id)


@pytest.mark.parametrize(
    ("last", "on_crash", "state"),
    [
        pytest.param(accepts("run"), OnCrash.INTERRUPT, RunState.COMPLETED, id="accepted, runs after the restart"),
        pytest.param(starts("run"), OnCrash.INTERRUPT, RunState.INTERRUPTED, id="active"),
        pytest.param(starts("run"), OnCrash.RETRY, RunState.COMPLETED, id="active, to be retried"),
    ],
)
async def test_r18_recovered_after_a_crash_while_it_was(
    last: Picks, on_crash: OnCrash, state: RunState, autojump_clock: object, tmp_path: object
) -> None:
    settings = EngineSettings(data_dir=None, settle_s=0.1)
    async with open_sqlite_store(None) as disk:
        async with open_watched(
            path=str(tmp_path), settings=settings, wrap_store=lambda _: DyingStore(disk, last), check=False
        ) as watched:
            await watched.send("hi", run_id="run", on_crash=on_crash)
            workspace_id = watched.workspace.id
        async with open_backend(settings, environ={}, agent=ScriptedAgent(), wrap_store=lambda _: disk) as backend:
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
            assert workspace.id == workspace_id
            again = Watched(backend, workspace, watched.session_id, None)
            await check_one_ending(again, await workspace.run("run"), state)
            await check_invariants(backend, workspace)


async def test_r18_store_makes_a_second_one_impossible(watched: Watched, autojump_clock: object) -> None:
    run = await watched.ended(await watched.send("hi"))
    ending = Ending(state=RunState.FAILED, at_us=run.accepted_at_us)
    change = Change(watched.workspace.id, run.accepted_at_us, (SettleRun(run.id, ending, ending),))
    committed = await watched.backend.log.commit(change)
    assert committed.applied == (False,)
    assert committed.events == ()
    await check_one_ending(watched, run, RunState.COMPLETED)
