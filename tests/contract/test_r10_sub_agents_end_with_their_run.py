"""R10, R13, R21: a run that is canceled or out of time takes its sub-agents with it, wherever they are."""

import math
from pathlib import Path

import pytest
import trio
import trio.testing

from engine.records.change import CreateMessage, CreateSession, PutMessage, Write
from engine.records.ids import is_child_session
from engine.records.message import FinishReason, Role
from engine.records.run import RunState
from engine.store.protocol import Store
from engine.tools.protocol import ToolOutcome
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import HoldingStore
from tests.doubles.store import FailingStore
from tests.doubles.sub_agents import ask, child_sessions, last_answer, look, reason, results, tools
from tests.doubles.tools import GateTool

WORK = [[{"text": "I look."}, {"tool": "view", "id": "c"}], [{"gate": "late"}, {"text": "It is "}, {"text": "here."}]]


def creates(write: Write) -> bool:
    """The session of the sub-agent."""
    return isinstance(write, CreateSession) and is_child_session(write.session.id)


def ends(write: Write) -> bool:
    """The last message of the sub-agent, ended by itself."""
    if not isinstance(write, PutMessage) or not is_child_session(write.message.session_id):
        return False
    return reason([write.message]) is FinishReason.END_TURN


def answers(write: Write) -> bool:
    """The result of the sub-agent, in the session of the run."""
    return isinstance(write, CreateMessage) and any(one.tool_call_id == "ask" for one in write.message.tool_results)


class Failing:
    """Fails the n-th change after its beginning, whatever it is."""

    def __init__(self, at: int) -> None:
        self._at: float = math.inf
        self._after = at

    def wrap(self, store: Store) -> Store:
        self._store = FailingStore(store, lambda number, change: number == self._at)
        return self._store

    def begin(self) -> None:
        self._at = self._store.asked + self._after + 1  # not the acceptance

    @property
    def has_failed(self) -> bool:
        return self._store.failed > 0


PLACES = ["beginning", "in a tool", "in the model", "ending", "answering"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("how", ["session", "run"])
async def test_r10_a_cancel_ends_a_sub_agent_wherever_it_is(
    place: str, after: bool, how: str, autojump_clock: object, tmp_path: Path
) -> None:
    stores: list[HoldingStore] = []
    late, view = Gate(is_open=place != "in the model"), look(Gate(is_open=place != "in a tool"))
    model = RecordingModel(gates={"late": late})

    def hold(store: Store) -> Store:
        stores.append(HoldingStore(store))
        return stores[0]

    async with open_watched(path=str(tmp_path), tools=tools(view), wrap_store=hold, **coder(model)) as watched:
        picks = {"beginning": creates, "ending": ends, "answering": answers}.get(place)
        held = {"in a tool": view.gate, "in the model": late}.get(place) or stores[0].hold(picks, after=after)  # type: ignore[arg-type]
        run = await watched.send(script([ask(*WORK), ask(*WORK, call="too")], [{"hang": True}]))
        await held.reached()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            cancel = watched.workspace.cancel_run if how == "run" else watched.workspace.cancel_session
            nursery.start_soon(cancel, run.id if how == "run" else watched.session_id)
            await trio.testing.wait_all_tasks_blocked()
            stores[0].release()
        with trio.fail_after(0.001):  # nothing is waited for but the store (R13)
            assert (await watched.ended(run)).state is RunState.CANCELED
        assert (view.left, model.statistics().open) == (view.begun, 0)
        assert reason(await watched.messages()) is FinishReason.CANCELED
        sessions = await child_sessions(watched)
        assert len(sessions) == 2
        for session_id in sessions:
            ending = reason(await watched.messages(session_id))
            assert ending is FinishReason.CANCELED or place in ("ending", "answering")
        found = await results(watched)
        assert set(found) == {"ask", "too"}
        assert place == "answering" or all("canceled" in one.content and one.is_error for one in found.values())


async def test_r10_what_a_sub_agent_had_said_stays_and_its_open_call_has_a_result(
    autojump_clock: object, tmp_path: Path
) -> None:
    view = look(Gate())
    async with open_watched(path=str(tmp_path), tools=tools(view), **coder(RecordingModel())) as watched:
        run = await watched.send(script([ask(*WORK)]))
        await trio.testing.wait_all_tasks_blocked()
        await watched.workspace.cancel_run(run.id, "enough")
        await watched.ended(run)
        [session_id] = await child_sessions(watched)
        messages = await watched.messages(session_id)
        assert [m.role for m in messages] == [Role.USER, Role.ASSISTANT, Role.TOOL]
        last = last_answer(messages)
        assert last.finish is not None
        assert (last.text, last.finish.details) == ("I look.", "enough")
        result = (await results(watched, session_id))["c"]
        assert (result.is_error, "canceled" in result.content) == (True, True)


async def test_r21_the_deadline_of_the_run_bounds_its_sub_agents(autojump_clock: object, tmp_path: Path) -> None:
    view = look(Gate())
    async with open_watched(path=str(tmp_path), tools=tools(view), **coder(RecordingModel())) as watched:
        begun = trio.current_time()
        run = await watched.send(script([ask(*WORK)]), timeout_s=30)
        ended = await watched.ended(run)
        assert ended.state is RunState.FAILED
        assert trio.current_time() - begun == pytest.approx(30, abs=1)
        [session_id] = await child_sessions(watched)
        last = last_answer(await watched.messages(session_id))
        assert last.finish is not None
        assert (last.finish.reason, last.finish.title) == (FinishReason.ERROR, "Timed out")


async def test_r13_a_sub_agent_that_does_not_stop_is_closed_without_it_and_can_write_nothing_more(
    autojump_clock: object, tmp_path: Path
) -> None:
    class Stubborn(GateTool):
        async def call(self, *given: object) -> ToolOutcome:
            with trio.move_on_after(1000, shield=True):
                await trio.sleep(900)
            return ToolOutcome(content="late")

    async with open_watched(path=str(tmp_path), tools=tools(Stubborn("view")), **coder(RecordingModel())) as watched:
        run = await watched.send(script([ask(*WORK)]))
        await trio.testing.wait_all_tasks_blocked()
        await watched.workspace.cancel_run(run.id)
        assert (await watched.ended(run)).state is RunState.CANCELED
        [session_id] = await child_sessions(watched)
        before = await watched.messages(session_id)
        assert reason(before) is FinishReason.CANCELED
        assert watched.workspace._outlet.snapshots() == []
        await trio.sleep(1000)
        assert await watched.messages(session_id) == before


async def test_r18_a_store_that_fails_anywhere_leaves_no_sub_agent_open(autojump_clock: object, tmp_path: Path) -> None:
    at = 0
    while True:
        at += 1
        failing = Failing(at)
        model = RecordingModel(gates={"late": Gate(is_open=True)})
        async with open_watched(
            path=str(tmp_path), tools=tools(), wrap_store=failing.wrap, **coder(model)
        ) as watched:  # fmt: skip
            failing.begin()
            ended = await watched.ended(await watched.send(script([ask(*WORK)], [{"text": "Done."}]), run_id="r"), 600)
        if not failing.has_failed:
            break
    assert ended.state is RunState.COMPLETED
    assert at > 10, "every commit of the run was failed once"
