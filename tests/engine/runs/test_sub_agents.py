"""Sub-agents: what they are given, what they leave, who pays, and what becomes of their sessions."""

from pathlib import Path

import pytest
import trio
import trio.testing

from engine.agents.calls import SIDE_BY_SIDE
from engine.agents.protocol import Turn
from engine.errors import ChildSession
from engine.records.event import MessageCreated, RunCompleted, SessionCreated, SessionDeleted, SessionUpdated
from engine.records.message import FinishReason, Role
from engine.records.permission import Decision
from engine.records.run import Purpose, RunState, Usage
from engine.tools.agent import AgentTool
from engine.tools.protocol import ToolContext, ToolOutcome
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import ScriptedAgent, open_watched
from tests.doubles.gate import Gate
from tests.doubles.sub_agents import ask, child_sessions, last_answer, look, reason, results, tools
from tests.doubles.tools import GateTool
from tests.engine.tools.calling import call


async def test_a_sub_agent_works_in_a_child_session_and_its_last_words_are_the_result(
    autojump_clock: object, tmp_path: Path
) -> None:
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), tools=tools(), **coder(model)) as watched:
        steps = [[{"text": "I look."}, {"tool": "view", "id": "c"}], [{"text": "It is in a.py:7."}]]
        run = await watched.send(script([ask(*steps)], [{"text": "Found."}]))
        assert (await watched.ended(run)).state is RunState.COMPLETED
        outcome = (await results(watched))["ask"]
        assert (outcome.content, outcome.is_error) == ("It is in a.py:7.", False)
        [session_id] = await child_sessions(watched)
        session = await watched.workspace.sessions.get(session_id)
        assert (session.parent_id, session.message_count) == (watched.session_id, 4)
        assert session_id not in [each.id for each in await watched.workspace.sessions.all()]
        messages = await watched.messages(session_id)
        assert [m.role for m in messages] == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]
        assert messages[0].text.startswith("Find it.")
        assert {(m.run_id, m.turn) for m in messages} == {(run.id, run.seq)}
        assert reason(messages) is FinishReason.END_TURN
        assert await watched.workspace.sessions.user_messages(None) == [(await watched.messages())[0]]


async def test_a_sub_agent_has_the_tools_that_only_look_and_knows_what_it_is(
    autojump_clock: object, tmp_path: Path
) -> None:
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), tools=tools(), **coder(model)) as watched:
        steps: list[list[dict[str, object]]] = [
            [{"tool": "write", "id": "c"}, ask([{"text": "deeper"}], call="d")],
            [{"text": "No."}],
        ]
        await watched.ended(await watched.send(script([ask(*steps)], [{"text": "Done."}])))
        [session_id] = await child_sessions(watched)
        found = await results(watched, session_id)
        assert ["there is no tool" in found[call].content for call in ("c", "d")] == [True, True]
        first, inner = model.requests[0], next(each for each in model.requests if each.session_id == session_id)
        assert [tool.name for tool in first.tools] == ["agent", "view", "write"]
        assert [tool.name for tool in inner.tools] == ["view"]
        assert "sub-agent" in inner.system
        assert "sub-agent" not in first.system


async def test_costs_of_a_sub_agent_are_added_to_its_own_session_and_to_the_parents(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def respond(turn: Turn) -> None:
        turn.use(Usage(input_tokens=1, output_tokens=1, cost=1.0))
        if turn.prompt.purpose is not Purpose.DELEGATED:
            turn.begin_tool_call("ask", "agent")
            turn.append_tool_input("ask", '{"prompt": "look"}')
            await turn.call_tool(turn.end_tool_call("ask"))
            await turn.next_step()
            turn.use(Usage(input_tokens=1, output_tokens=1, cost=4.0))
        turn.say("done")

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond), tools=tools()) as watched:
        ended = await watched.ended(await watched.send())
        [session_id] = await child_sessions(watched)
        parent, child = [await watched.workspace.sessions.get(each) for each in (watched.session_id, session_id)]
        assert (parent.cost, child.cost, ended.usage.cost) == (6.0, 1.0, 6.0)
        assert (parent.prompt_tokens, child.prompt_tokens, ended.usage.input_tokens) == (1, 1, 3)


async def test_several_work_at_a_time_and_not_too_many(autojump_clock: object, tmp_path: Path) -> None:
    view = look(Gate())
    async with open_watched(path=str(tmp_path), tools=tools(view), **coder(RecordingModel())) as watched:
        step = [ask([{"tool": "view", "id": "c"}], [{"text": f"word {n}"}], call=f"ask{n}") for n in range(7)]
        run = await watched.send(script(step, [{"text": "Done."}]))
        await trio.testing.wait_all_tasks_blocked()
        assert (view.begun, view.left, SIDE_BY_SIDE) == (5, 0, 5)
        view.gate.open()
        assert (await watched.ended(run)).state is RunState.COMPLETED
        said = {call: result.content for call, result in (await results(watched)).items()}
        assert said == {f"ask{n}": f"word {n}" for n in range(7)}
        assert len(await child_sessions(watched)) == 7


@pytest.mark.parametrize("how", ["model", "bug", "silence", "circles"])
async def test_a_sub_agent_that_fails_is_a_result_and_not_the_end_of_the_run(
    how: str, autojump_clock: object, tmp_path: Path
) -> None:
    view = look()
    if how == "bug":
        view.gate.pass_through = None  # type: ignore[assignment,method-assign]
    inner: dict[str, list[list[dict[str, object]]]] = {
        "model": [[{"text": "Half"}, {"fail": "bad_request", "title": "No", "details": "because"}]],
        "bug": [[{"text": "Half"}, {"tool": "view", "id": "c"}]],
        "silence": [[{"finish": "end_turn"}]],
        "circles": [[{"tool": "view", "id": f"c{n}"}] for n in range(12)],
    }
    async with open_watched(path=str(tmp_path), tools=tools(view), **coder(RecordingModel())) as watched:
        run = await watched.send(script([ask(*inner[how])], [{"text": "I go on."}]))
        assert (await watched.ended(run)).state is RunState.COMPLETED
        outcome = (await results(watched))["ask"]
        assert outcome.is_error == (how in ("model", "bug"))
        told = {
            "model": "The sub-agent failed: No. because\n\nUntil then it said:\nHalf",
            "bug": "The sub-agent failed: The agent failed. TypeError",
            "silence": "The sub-agent ended without a word.",
            "circles": "[Stopped: the agent goes round in circles",
        }
        assert outcome.content.startswith(told[how])
        messages = await watched.messages((await child_sessions(watched))[0])
        assert (reason(messages) is FinishReason.ERROR) == outcome.is_error


class AskingView(GateTool):
    """Asks before it looks."""

    async def call(self, arguments: object, context: ToolContext) -> ToolOutcome:
        await context.permit(action="read", path=context.workspace)
        return ToolOutcome(content="seen")


@pytest.mark.parametrize("decision", [Decision.ALLOW_SESSION, Decision.DENY])
async def test_r31_a_sub_agent_asks_for_the_session_that_it_works_for(
    decision: Decision, autojump_clock: object, tmp_path: Path
) -> None:
    view = AskingView("view")
    async with open_watched(path=str(tmp_path), tools=tools(view), **coder(RecordingModel())) as watched:
        inner = [[{"tool": "view", "id": "c"}], [{"tool": "view", "id": "d"}], [{"text": "Seen."}]]
        run = await watched.send(script([ask(*inner)], [{"tool": "view", "id": "e"}], [{"text": "Done."}]))
        await trio.testing.wait_all_tasks_blocked()
        [request] = watched.workspace.permissions.waiting()
        assert (request.session_id, request.tool_call_id, request.run_id) == (watched.session_id, "c", run.id)
        assert await watched.workspace.permissions.answer(request.id, decision)
        assert (await watched.ended(run)).state is RunState.COMPLETED
        outcome = (await results(watched))["ask"]
        if decision is Decision.DENY:  # a no to the sub-agent is a no to the turn
            assert (outcome.content, outcome.is_error) == ("User denied permission", True)
            assert last_answer(await watched.messages()).text == ""
        else:
            assert (outcome.content, last_answer(await watched.messages()).text) == ("Seen.", "Done.")


async def test_two_calls_of_one_message_under_one_id_do_not_share_a_session(
    autojump_clock: object, tmp_path: Path
) -> None:
    async def respond(turn: Turn) -> None:
        if turn.prompt.purpose is Purpose.DELEGATED:
            turn.say("found")
            return
        for _ in range(2):
            turn.begin_tool_call("same", "agent")
            turn.append_tool_input("same", '{"prompt": "look"}')
            told.append(await turn.call_tool(turn.end_tool_call("same")))

    told: list[ToolOutcome] = []
    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond), tools=tools()) as watched:
        assert (await watched.ended(await watched.send())).state is RunState.COMPLETED
        assert (told[0].content, told[0].is_error) == ("found", False)
        assert "already" in told[1].content
        assert told[1].is_error
        messages = await watched.messages((await child_sessions(watched))[0])
        assert [message.text for message in messages] == ["look", "found"]


async def test_a_child_session_can_be_read_and_nothing_else(autojump_clock: object, tmp_path: Path) -> None:
    async with open_watched(path=str(tmp_path), tools=tools(), **coder(RecordingModel())) as watched:
        await watched.ended(await watched.send(script([ask([{"text": "Here."}])], [{"text": "Done."}])))
        [session_id] = await child_sessions(watched)
        with pytest.raises(ChildSession):
            await watched.send(session_id=session_id)
        with pytest.raises(ChildSession):
            await watched.workspace.delete_session(session_id)
        assert await watched.workspace.cancel_session(session_id) == ()
        assert len(await watched.messages(session_id)) == 2


async def test_a_session_is_deleted_with_the_work_of_its_sub_agents_also_in_the_middle_of_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    view = look(Gate())
    async with open_watched(path=str(tmp_path), tools=tools(view), **coder(RecordingModel())) as watched:
        run = await watched.send(script([ask([{"tool": "view", "id": "c"}])]))
        await trio.testing.wait_all_tasks_blocked()
        [session_id] = await child_sessions(watched)
        await watched.workspace.delete_session(watched.session_id)
        store, workspace_id = watched.backend.store, watched.workspace.id
        assert await store.session(workspace_id, session_id) is None
        assert await store.run_messages(workspace_id, run.id) == []
        bodies = [event.body for event in await watched.events()]
        gone = [body.session.id for body in bodies if isinstance(body, SessionDeleted)]
        assert gone == [session_id, watched.session_id]


async def test_what_a_sub_agent_does_is_told_before_the_end_of_the_run(autojump_clock: object, tmp_path: Path) -> None:
    async with open_watched(path=str(tmp_path), tools=tools(), **coder(RecordingModel())) as watched:
        run = await watched.send(script([ask([{"text": "Here."}])], [{"text": "Done."}]))
        await watched.ended(run)
        [session_id] = await child_sessions(watched)
        events = await watched.events()
        told = [type(event.body) for event in events if event.session_id == session_id]
        assert told[:3] == [SessionCreated, MessageCreated, MessageCreated]
        assert SessionUpdated in told
        assert RunCompleted not in told  # it is no run
        assert isinstance(events[-1].body, RunCompleted)
        [terminal] = await watched.terminal_events(run)
        assert (terminal.session_id, terminal.text) == (watched.session_id, "Done.")


async def test_outside_of_a_turn_there_is_no_sub_agent(autojump_clock: object, tmp_path: Path) -> None:
    outcome = await call(AgentTool(), tmp_path, prompt="look")
    assert (outcome.content, outcome.is_error) == ("there is no sub-agent here", True)
    assert "prompt" in (await call(AgentTool(), tmp_path)).content
