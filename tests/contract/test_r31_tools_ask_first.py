"""R31: a tool that changes something asks first; the first answer wins; nothing waits longer than its run."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.errors import NOBODY_TO_ASK, StoreUnavailable
from engine.records.change import Change, ResolveRequest, Write
from engine.records.event import PermissionResolved
from engine.records.message import FinishReason, ToolResult
from engine.records.permission import Decision, PermissionRequest
from engine.records.run import RunState
from engine.store.protocol import Store
from engine.tools.protocol import ToolContext, ToolOutcome
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.holding_store import HoldingStore
from tests.doubles.store import FailingStore
from tests.doubles.waiting import until


class AskingTool:
    """A tool that asks before it does anything."""

    name = "change"
    description = "Changes something."
    parameters: Mapping[str, object] = {"type": "object"}
    is_parallel = False

    def __init__(self) -> None:
        self.done = 0

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        await context.permit(action="write", path=context.workspace, description="change it", params={"a": 1})
        self.done += 1
        return ToolOutcome(content="changed")


async def ask(turn: Turn) -> None:
    """Two calls, one after the other."""
    for call_id in ("c1", "c2"):
        turn.begin_tool_call(call_id, "change")
        turn.append_tool_input(call_id, "{}")
        outcome = await turn.call_tool(turn.end_tool_call(call_id))
        if outcome.ends_turn:
            return
    await turn.next_step()
    turn.say("done")


async def asked(watched: Watched) -> PermissionRequest:
    """What waits for an answer, once something does."""
    await until(lambda: bool(watched.workspace.permissions.waiting()))
    await trio.testing.wait_all_tasks_blocked()
    [request] = watched.workspace.permissions.waiting()
    return request


def opening(path: Path, tool: AskingTool, **others: Any) -> AbstractAsyncContextManager[Watched]:
    return open_watched(path=str(path), agent=ScriptedAgent(ask), tools={"change": tool}, **others)


async def test_r31_a_call_waits_until_it_is_allowed_and_is_asked_again_the_next_time(
    autojump_clock: object, tmp_path: Path
) -> None:
    tool = AskingTool()
    async with opening(tmp_path, tool) as watched:
        run = await watched.send()
        first = await asked(watched)
        assert (tool.done, first.tool_name, first.action, first.tool_call_id) == (0, "change", "write", "c1")
        assert (first.run_id, first.path, first.params) == (run.id, str(tmp_path), {"a": 1})
        assert await watched.workspace.permissions.answer(first.id, Decision.ALLOW)
        second = await asked(watched)
        assert (tool.done, second.tool_call_id) == (1, "c2")
        assert await watched.workspace.permissions.answer(second.id, Decision.ALLOW)
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert tool.done == 2


async def test_r31_a_grant_for_the_session_holds_there_and_nowhere_else(autojump_clock: object, tmp_path: Path) -> None:
    tool = AskingTool()
    async with opening(tmp_path, tool) as watched:
        run = await watched.send()
        assert await watched.workspace.permissions.answer((await asked(watched)).id, Decision.ALLOW_SESSION)
        assert (await watched.ended(run)).state is RunState.COMPLETED
        other = await watched.workspace.sessions.create("other")
        run = await watched.send(session_id=other.id)
        assert (await asked(watched)).session_id == other.id
        await watched.workspace.cancel_run(run.id)


async def test_r31_a_denial_ends_the_turn_cleanly(autojump_clock: object, tmp_path: Path) -> None:
    tool, model = AskingTool(), RecordingModel()
    async with open_watched(path=str(tmp_path), tools={"change": tool}, **coder(model)) as watched:
        run = await watched.send(script([{"tool": "change"}], [{"text": "never said"}]))
        assert await watched.workspace.permissions.answer((await asked(watched)).id, Decision.DENY)
        assert (await watched.ended(run)).state is RunState.COMPLETED
        _, answer, result = await watched.messages()
        assert answer.finish is not None
        assert answer.finish.reason is FinishReason.END_TURN
        assert [(one.content, one.is_error) for one in result.tool_results] == [("User denied permission", True)]
        assert (tool.done, len(model.requests)) == (0, 1)


async def test_r31_the_first_answer_wins_and_the_others_are_told(autojump_clock: object, tmp_path: Path) -> None:
    tool = AskingTool()
    async with opening(tmp_path, tool) as watched:
        permissions = watched.workspace.permissions
        run = await watched.send()
        request, told = await asked(watched), []

        async def answer(decision: Decision) -> None:
            told.append((decision, await permissions.answer(request.id, decision)))

        async with trio.open_nursery() as nursery:
            for decision in (Decision.DENY, Decision.ALLOW_SESSION, Decision.ALLOW):
                nursery.start_soon(answer, decision)
        assert sorted(resolved for _, resolved in told) == [False, False, True]
        [winner] = [decision for decision, resolved in told if resolved]
        events = [event.body for event in await watched.events() if isinstance(event.body, PermissionResolved)]
        assert [event.decision for event in events] == [winner]
        assert not await permissions.answer(request.id, Decision.ALLOW)
        await watched.workspace.cancel_run(run.id)
        await watched.ended(run)
        assert tool.done <= (winner is not Decision.DENY) * 2


async def test_r31_an_answer_counts_whose_sender_has_gone(autojump_clock: object, tmp_path: Path) -> None:
    tool = AskingTool()
    stores: list[HoldingStore] = []

    def hold(store: Store) -> Store:
        stores.append(HoldingStore(store))
        return stores[0]

    async with opening(tmp_path, tool, wrap_store=hold) as watched:
        run = await watched.send()
        request = await asked(watched)
        answered = stores[0].hold(is_answer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watched.workspace.permissions.answer, request.id, Decision.ALLOW_SESSION)
            await answered.reached()
            nursery.cancel_scope.cancel()
        answered.open()
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert tool.done == 2


async def test_r31_an_answer_that_cannot_be_stored_decides_nothing(autojump_clock: object, tmp_path: Path) -> None:
    tool = AskingTool()

    failed: list[int] = []

    def fails(number: int, change: Change) -> bool:
        is_first = not failed and any(map(is_answer, change.writes))
        failed.extend([number] * is_first)
        return is_first

    async with opening(tmp_path, tool, wrap_store=lambda store: FailingStore(store, fails)) as watched:
        run = await watched.send()
        request = await asked(watched)
        with pytest.raises(StoreUnavailable):
            await watched.workspace.permissions.answer(request.id, Decision.ALLOW_SESSION)
        assert (await asked(watched), tool.done) == (request, 0)
        assert await watched.workspace.permissions.answer(request.id, Decision.ALLOW_SESSION)
        assert (await watched.ended(run)).state is RunState.COMPLETED


async def test_r10_a_cancel_withdraws_what_waits(autojump_clock: object, tmp_path: Path) -> None:
    tool = AskingTool()
    async with opening(tmp_path, tool) as watched:
        run = await watched.send()
        request = await asked(watched)
        assert await watched.workspace.cancel_session(watched.session_id) == (run.id,)
        assert (await watched.ended(run)).state is RunState.CANCELED
        events = [event.body for event in await watched.events() if isinstance(event.body, PermissionResolved)]
        assert [(event.request_id, event.decision) for event in events] == [(request.id, Decision.WITHDRAWN)]
        assert watched.workspace.permissions.waiting() == []
        assert not await watched.workspace.permissions.answer(request.id, Decision.ALLOW)
        assert tool.done == 0


async def test_r31_other_runs_do_not_wait(autojump_clock: object, tmp_path: Path) -> None:
    tool = AskingTool()
    async with opening(tmp_path, tool) as watched:
        waiting = await watched.send()
        first = await asked(watched)
        other = await watched.workspace.sessions.create("other")
        watched.workspace.permissions.allowed = frozenset({"change:write"})
        assert (await watched.ended(await watched.send(session_id=other.id))).state is RunState.COMPLETED
        assert tool.done == 2
        assert await watched.workspace.permissions.answer(first.id, Decision.ALLOW)
        assert (await watched.ended(waiting)).state is RunState.COMPLETED


@pytest.mark.parametrize("allowed", [{"change"}, {"change:write"}])
async def test_r31_what_is_on_the_allow_list_is_not_asked(
    autojump_clock: object, tmp_path: Path, allowed: set[str]
) -> None:
    tool = AskingTool()
    async with opening(tmp_path, tool) as watched:
        watched.workspace.permissions.allowed = frozenset(allowed)
        assert (await watched.ended(await watched.send())).state is RunState.COMPLETED
        assert tool.done == 2


async def test_r31_a_workspace_that_skips_asks_nobody(autojump_clock: object, tmp_path: Path) -> None:
    tool = AskingTool()
    async with opening(tmp_path, tool) as watched:
        watched.workspace.permissions.skip = True
        assert (await watched.ended(await watched.send())).state is RunState.COMPLETED
        assert tool.done == 2


async def test_r31_with_nobody_to_ask_the_model_is_told_at_once_and_goes_on(
    autojump_clock: object, tmp_path: Path
) -> None:
    tool = AskingTool()
    async with opening(tmp_path, tool) as watched:
        watched.workspace.permissions.attend(False, clients=1)
        assert (await watched.ended(await watched.send(), within=1)).state is RunState.COMPLETED
        results = [one for message in await watched.messages() for one in message.tool_results]
        assert [(one.content, one.is_error) for one in results] == [(NOBODY_TO_ASK, True)] * 2
        assert [isinstance(one, ToolResult) for one in results] == [True, True]
        assert tool.done == 0


def is_answer(write: Write) -> bool:
    """Whether it is an answer."""
    return isinstance(write, ResolveRequest)
