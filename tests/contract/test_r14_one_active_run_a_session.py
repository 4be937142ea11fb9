"""R14: a session runs one run at a time, in accept order; sessions wait for each other at the limit alone, in turn."""

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.backend import NewWorkspace
from engine.records.change import Change
from engine.records.run import RunState
from engine.runs.accepted import AcceptedRun
from engine.settings import EngineSettings
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import settles
from tests.doubles.stages import HELD, At, open_staged
from tests.doubles.store import FailingStore
from tests.doubles.waiting import pause


class CountingAgent(ScriptedAgent):
    """Takes a second for each turn, and knows how many it had at once, of each session and of all."""

    def __init__(self) -> None:
        super().__init__(self.take_a_second)
        self.now: dict[str, int] = {}
        self.most_of_a_session = 0
        self.most = 0

    async def take_a_second(self, turn: Turn) -> None:
        """Answer one turn."""
        session_id = turn.session_id
        self.now[session_id] = self.now.get(session_id, 0) + 1
        self.most_of_a_session = max(self.most_of_a_session, self.now[session_id])
        self.most = max(self.most, sum(self.now.values()))
        await trio.sleep(1)
        self.now[session_id] -= 1


@pytest.mark.parametrize("prompts", [2, 7])
async def test_r14_runs_of_a_session_start_in_accept_order_one_after_the_other(
    prompts: int, autojump_clock: object, tmp_path: object
) -> None:
    agent = CountingAgent()
    async with open_watched(path=str(tmp_path), agent=agent) as watched:
        for _ in range(10):
            agent.turns.clear()
            async with trio.open_nursery() as nursery:
                for _ in range(prompts):
                    nursery.start_soon(watched.send)
            runs = sorted(watched.workspace.lanes.all_runs(), key=lambda run: run.record.seq)
            with trio.fail_after(prompts + 1):
                for run in runs:
                    await run.wait_settled()
            assert [turn.run_id for turn in agent.turns] == [run.record.id for run in runs]
            assert len(agent.turns) == prompts
        assert agent.most_of_a_session == 1


async def test_r14_run_that_enters_before_an_earlier_one_waits_for_it(autojump_clock: object, tmp_path: object) -> None:
    gates = [Gate(), Gate(), Gate()]

    async def before_entry(run: AcceptedRun) -> None:
        await gates[run.record.seq - 1].pass_through()

    async with open_watched(path=str(tmp_path), before_entry=before_entry) as watched:
        runs = [await watched.send(f"{number}") for number in range(3)]
        for number in (2, 1):
            gates[number].open()
            await trio.testing.wait_all_tasks_blocked()
            assert watched.agent.turns == []
            assert await watched.state(runs[number]) is RunState.QUEUED
        gates[0].open()
        for run in runs:
            assert (await watched.ended(run)).state is RunState.COMPLETED
        assert [turn.run_id for turn in watched.agent.turns] == [run.id for run in runs]


async def test_r14_sessions_do_not_wait_for_each_other(autojump_clock: object, tmp_path: object) -> None:
    agent = CountingAgent()
    async with open_watched(path=str(tmp_path), agent=agent) as watched:
        start = trio.current_time()
        sessions = [(await watched.workspace.sessions.create("s")).id for _ in range(20)]
        runs = [await watched.send(session_id=session_id) for session_id in sessions for _ in range(2)]
        for run in runs:
            await watched.ended(run)
        assert trio.current_time() == start + 2
        assert (agent.most, agent.most_of_a_session) == (20, 1)


async def test_r14_hung_session_holds_up_no_other(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Turn) -> None:
        if turn.prompt.text == "hang":
            await trio.sleep_forever()

    watched.agent.respond_with = respond
    hung = await watched.send("hang")
    await watched.send("behind the hung one")
    other = await watched.workspace.sessions.create("other")
    assert (await watched.ended(await watched.send(session_id=other.id))).state is RunState.COMPLETED
    await watched.workspace.cancel_run(hung.id)


@pytest.mark.parametrize("limit", [1, 2])
async def test_r14_limit_of_active_runs_is_fair_between_sessions(
    limit: int, autojump_clock: object, tmp_path: object
) -> None:
    agent = CountingAgent()
    settings = EngineSettings(data_dir=None, max_active_runs=limit)
    async with open_watched(path=str(tmp_path), agent=agent, settings=settings) as watched:
        greedy, *modest = [(await watched.workspace.sessions.create("s")).id for _ in range(3)]
        runs = [await watched.send(session_id=greedy) for _ in range(6)]
        await pause(30)
        runs += [await watched.send(session_id=session_id) for session_id in modest for _ in range(2)]
        for run in runs:
            await watched.ended(run)
        assert agent.most == limit
        order = [[greedy, *modest].index(turn.session_id) for turn in agent.turns]
        if limit == 1:
            assert order == [0, 1, 2, 0, 1, 2, 0, 0, 0, 0]
        else:
            # Each of the modest is served as soon as a slot is free, and again before the greedy has had its third.
            assert order[:3] in ([0, 1, 2], [0, 2, 1])
            assert order.index(0, order.index(0, order.index(0) + 1) + 1) >= 4


async def test_r14_limit_of_active_runs_is_the_servers_and_not_that_of_each_workspace(
    autojump_clock: object, tmp_path: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    agent = CountingAgent()
    settings = EngineSettings(data_dir=None, max_active_runs=2)
    async with open_watched(path=str(tmp_path), agent=agent, settings=settings) as watched:
        for number in range(3):
            path = str(tmp_path_factory.mktemp(f"workspace-{number}"))
            workspace = await watched.backend.create_workspace(NewWorkspace(path=path))
            for _ in range(2):
                session = await workspace.sessions.create("s")
                await Watched(watched.backend, workspace, session.id, agent).send()
        start = trio.current_time()
        for workspace in watched.backend.workspaces():
            for run in await workspace.runs():
                await workspace.wait_run(run.id, 60)
        assert (agent.most, trio.current_time() - start) == (2, 3)


async def test_r14_run_waiting_for_a_slot_gives_up_its_place_when_it_is_canceled(
    autojump_clock: object, tmp_path: object
) -> None:
    agent = CountingAgent()
    settings = EngineSettings(data_dir=None, max_active_runs=1)
    async with open_watched(path=str(tmp_path), agent=agent, settings=settings) as watched:
        sessions = [(await watched.workspace.sessions.create("s")).id for _ in range(3)]
        first, second, third = [await watched.send(session_id=session_id) for session_id in sessions]
        await pause(30)
        await watched.workspace.cancel_run(second.id)
        start = trio.current_time()
        assert (await watched.ended(third)).state is RunState.COMPLETED
        assert trio.current_time() == start + 2
        assert [turn.run_id for turn in agent.turns] == [first.id, third.id]


async def test_r14_slot_is_free_while_an_ending_is_being_written(autojump_clock: object, tmp_path: object) -> None:
    is_refused = True

    def fails(number: int, change: Change) -> bool:
        return is_refused and any(settles(HELD)(write) for write in change.writes)

    async with open_staged(
        At.AGENT, tmp_path, max_active_runs=1, beneath=lambda store: FailingStore(store, fails)
    ) as staged:
        other = await staged.workspace.sessions.create("other")
        await staged.watched.send("hi", run_id="other", session_id=other.id)
        staged.held.open()
        assert (await staged.ended("other")).state is RunState.COMPLETED
        assert await staged.state() is RunState.ACTIVE
        is_refused = False
        assert (await staged.workspace.wait_run(HELD, 1)).state is RunState.COMPLETED


async def test_r14_no_slot_stays_taken_whichever_run_is_canceled(autojump_clock: object, tmp_path: object) -> None:
    settings = EngineSettings(data_dir=None, max_active_runs=1)
    async with open_watched(path=str(tmp_path), agent=CountingAgent(), settings=settings) as watched:
        for number in range(5):
            other = (await watched.workspace.sessions.create("s")).id
            runs = [await watched.send(), await watched.send(session_id=other)]
            await trio.sleep(0.5)
            await watched.workspace.cancel_run(runs[number % 2].id)
            for run in runs:
                await watched.ended(run)
            assert watched.backend.statistics().slots_used == 0
