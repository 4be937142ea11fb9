"""Answering what tools ask, and writing down what came of it."""

from typing import TYPE_CHECKING

import trio

from engine.errors import CountermandError, ServerStopping, StoreUnavailable, WorkspaceClosing
from engine.records.ids import RequestId
from engine.records.permission import Decision
from engine.records.question import Answer, QuestionBatch
from engine.workspace import Workspace

if TYPE_CHECKING:
    from tests.explorer.world import World


async def permit(world: "World", workspace: Workspace, request_id: RequestId, decision: Decision) -> None:
    """Answer, and write down what came of it."""
    answered = world.ledger.begin_answer(request_id, decision)
    world.tell("answer", request_id, decision.value)
    try:
        is_decided = await workspace.permissions.answer(request_id, decision)
    except CountermandError as error:
        world.expect(error, StoreUnavailable, WorkspaceClosing, ServerStopping)
    else:
        world.ledger.end_answer(answered, is_decided=is_decided)


async def reply(world: "World", workspace: Workspace, batch: QuestionBatch, *, refuses: bool) -> None:
    """Answer, and write down what came of it."""
    answered = world.ledger.begin_answer(batch.id, None)
    world.tell("reply", batch.id, "refuses" if refuses else "answers")
    try:
        if refuses:
            is_decided = await workspace.questions.refuse(batch.id)
        else:
            answers = [Answer(question_id=question.id, yes=True) for question in batch.questions]
            is_decided = await workspace.questions.answer(batch.id, answers)
    except CountermandError as error:
        world.expect(error, StoreUnavailable, WorkspaceClosing, ServerStopping)
    else:
        world.ledger.end_answer(answered, is_decided=is_decided)


async def answer_the_rest(world: "World") -> None:
    """Deny and answer whatever is asked, so that no run waits for ever."""
    while True:
        if (workspace := world.workspace()) is not None:
            for request in workspace.permissions.waiting():
                await permit(world, workspace, request.id, Decision.DENY)
            for batch in workspace.questions.waiting():
                await reply(world, workspace, batch, refuses=False)
        await trio.sleep(1.0)
