"""`question`: asked, answered, refused, withdrawn; several at once; answers that do not fit leave it open."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio.testing

from engine.agents.protocol import Turn
from engine.errors import InvalidAnswer
from engine.records.event import QuestionsResolved
from engine.records.question import Answer, QuestionBatch
from engine.records.run import RunState
from engine.tools.question import CANCELLED, NOBODY, QuestionTool
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.waiting import until

CHOICES = [{"id": "pg", "label": "Postgres"}, {"id": "lite", "label": "SQLite"}]
ASKED: dict[str, Any] = {
    "questions": [
        {"type": "single_choice", "question": "Which?", "description": "To know.", "choices": CHOICES},
        {"type": "yes_no", "question": "Sure?", "description": "To be sure."},
        {"type": "free_text", "question": "Name?", "description": "To call it."},
        {"type": "multi_choice", "question": "More?", "description": "More.", "options": CHOICES},
    ]
}
ANSWERS = [
    Answer(question_id="1", selected_ids=("pg",), notes={"pg": "fast", "_question": "hm"}),
    Answer(question_id="2", yes=False),
    Answer(question_id="3", fill_in_text="ann"),
    Answer(question_id="4", fill_in_text="neither"),
]
TOLD = """Which?
Answer: Postgres
Note on Postgres: fast
Note: hm

Sure?
Answer: no

Name?
Answer: ann

More?
Answer: neither"""


class LateTool:
    """The tool of a workspace that is opened after it."""

    name = QuestionTool.name
    description = QuestionTool.description
    parameters = QuestionTool.parameters
    is_parallel = False

    def __init__(self) -> None:
        self.watched: Watched | None = None

    async def call(self, arguments: Any, context: Any) -> Any:
        assert self.watched is not None
        workspace = self.watched.workspace
        return await QuestionTool(workspace.questions, workspace.permissions).call(arguments, context)


def asking(asked: dict[str, Any], told: list[Any]) -> ScriptedAgent:
    async def respond(turn: Turn) -> None:
        turn.begin_tool_call("c", "question")
        turn.append_tool_input("c", msgspec.json.encode(asked).decode())
        outcome = await turn.call_tool(turn.end_tool_call("c"))
        told.append(outcome)

    return ScriptedAgent(respond)


def opening(
    path: Path, told: list[Any], asked: dict[str, Any] = ASKED
) -> tuple[LateTool, AbstractAsyncContextManager[Watched]]:
    tool = LateTool()
    return tool, open_watched(path=str(path), agent=asking(asked, told), tools={"question": tool})


async def waiting(watched: Watched) -> QuestionBatch:
    await until(lambda: bool(watched.workspace.questions.waiting()))
    await trio.testing.wait_all_tasks_blocked()
    return watched.workspace.questions.waiting()[0]


async def test_questions_are_asked_and_their_answers_told(autojump_clock: object, tmp_path: Path) -> None:
    told: list[Any] = []
    tool, opened = opening(tmp_path, told)
    async with opened as watched:
        tool.watched = watched
        run = await watched.send()
        batch = await waiting(watched)
        assert [question.id for question in batch.questions] == ["1", "2", "3", "4"]
        assert (batch.run_id, batch.tool_call_id, bool(batch.confirm_title)) == (run.id, "c", True)
        assert await watched.workspace.questions.answer("", ANSWERS)
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert (told[0].content, told[0].is_error, told[0].ends_turn) == (TOLD, False, False)
        assert not await watched.workspace.questions.answer(batch.id, ANSWERS)


BAD = [
    (ANSWERS[:3], "one for each"),
    ([*ANSWERS, ANSWERS[0]], "one for each"),
    ([Answer(question_id="1", selected_ids=("x",)), *ANSWERS[1:]], "no choice x"),
    ([Answer(question_id="1", selected_ids=("pg", "lite")), *ANSWERS[1:]], "one choice only"),
    ([Answer(question_id="1"), *ANSWERS[1:]], "nothing is chosen"),
    ([ANSWERS[0], Answer(question_id="2"), *ANSWERS[2:]], "`yes`"),
    ([*ANSWERS[:2], Answer(question_id="3"), ANSWERS[3]], "`fill_in_text`"),
]


@pytest.mark.parametrize(("answers", "problem"), BAD)
async def test_answers_that_do_not_fit_are_refused_and_the_questions_stay_open(
    autojump_clock: object, tmp_path: Path, answers: list[Answer], problem: str
) -> None:
    told: list[Any] = []
    tool, opened = opening(tmp_path, told)
    async with opened as watched:
        tool.watched = watched
        run = await watched.send()
        batch = await waiting(watched)
        with pytest.raises(InvalidAnswer, match=problem):
            await watched.workspace.questions.answer(batch.id, answers)
        assert watched.workspace.questions.waiting() == [batch]
        assert await watched.workspace.questions.refuse()
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert (told[0].content, told[0].is_error, told[0].ends_turn) == (CANCELLED, True, True)


async def test_two_sessions_ask_at_once_and_each_gets_its_own_answers(autojump_clock: object, tmp_path: Path) -> None:
    told: list[Any] = []
    one = {"questions": [{"type": "free_text", "question": "Name?", "description": "To call it."}]}
    tool, opened = opening(tmp_path, told, one)
    async with opened as watched:
        tool.watched = watched
        other = await watched.workspace.sessions.create("other")
        runs = [await watched.send(), await watched.send(session_id=other.id)]
        await until(lambda: len(watched.workspace.questions.waiting()) == 2)
        await trio.testing.wait_all_tasks_blocked()
        first, second = watched.workspace.questions.waiting()
        for batch, name in ((second, "second"), (first, "first")):
            assert await watched.workspace.questions.answer(batch.id, [Answer(question_id="1", fill_in_text=name)])
        for run in runs:
            await watched.ended(run)
        assert sorted(outcome.content for outcome in told) == ["Name?\nAnswer: first", "Name?\nAnswer: second"]


async def test_r10_a_cancel_withdraws_the_questions(autojump_clock: object, tmp_path: Path) -> None:
    told: list[Any] = []
    tool, opened = opening(tmp_path, told)
    async with opened as watched:
        tool.watched = watched
        run = await watched.send()
        batch = await waiting(watched)
        await watched.workspace.cancel_run(run.id)
        assert (await watched.ended(run)).state is RunState.CANCELED
        assert QuestionsResolved(batch.id, batch.session_id) in [event.body for event in await watched.events()]
        assert (watched.workspace.questions.waiting(), told) == ([], [])


async def test_with_nobody_there_the_model_is_told_at_once(autojump_clock: object, tmp_path: Path) -> None:
    told: list[Any] = []
    tool, opened = opening(tmp_path, told)
    async with opened as watched:
        tool.watched = watched
        watched.workspace.permissions.attend(False, clients=1)
        await watched.ended(await watched.send(), within=1)
        assert (told[0].content, told[0].is_error, told[0].ends_turn) == (NOBODY, True, False)


MALFORMED: list[dict[str, Any]] = [
    {"questions": []},
    {"questions": [ASKED["questions"][0]] * 6},
    {"questions": [ASKED["questions"][0] | {"choices": CHOICES[:1]}]},
    {"questions": [ASKED["questions"][0] | {"choices": CHOICES[:1] * 2}]},
    {"questions": [ASKED["questions"][1] | {"type": "maybe"}]},
    {"questions": [ASKED["questions"][1] | {"description": ""}]},
    {"questions": [ASKED["questions"][1] | {"question": "x" * 241}]},
]


@pytest.mark.parametrize("asked", MALFORMED)
async def test_questions_that_are_none_are_the_models_to_mend(
    autojump_clock: object, tmp_path: Path, asked: dict[str, Any]
) -> None:
    told: list[Any] = []
    tool, opened = opening(tmp_path, told, asked)
    async with opened as watched:
        tool.watched = watched
        assert (await watched.ended(await watched.send())).state is RunState.COMPLETED
        assert (told[0].is_error, told[0].ends_turn) == (True, False)
