"""`countermand run` on a terminal answers for the person who sits there; without one it stays as it is."""

import os
import pty
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from engine.records.question import Choice, Question
from engine.records.run import RunState
from tests.doubles.coder import script
from tests.doubles.gate import Gate
from tests.doubles.live_server import COMMAND, clean_environ
from web.client_errors import ClientError, ServerProblem, ServerUnreachable
from web.client_events import ClientEvent
from web.client_run import RunResult
from web.client_text import TextPiece
from web.commands.asking import SILENCE_S, Asker, AskRules, open_asker, read_answer, shown_question, shown_request
from web.commands.run_output import PlainOutput
from web.wire.requests import (
    PermissionNotification,
    PermissionRequest,
    QuestionBatch,
    QuestionBatchNotification,
    QuestionResponse,
)

ROOT = Path("/home/ann/project")


class Person:
    """Sits at a terminal and has the answers ready; then leaves."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.shown = ""

    async def ask(self, text: str) -> str | None:
        await trio.lowlevel.checkpoint()
        self.shown += text
        return self.lines.pop(0) if self.lines else None

    def tell(self, text: str) -> None:
        self.shown += f"<{text}>"


class Dithering(Person):
    """Has read the question, and says nothing until told."""

    def __init__(self, *lines: str) -> None:
        super().__init__(*lines)
        self.asked: list[str] = []
        self.gate = Gate()

    async def ask(self, text: str) -> str | None:
        self.asked.append(text)
        await self.gate.pass_through()
        return await super().ask(text)


def problem(status: int) -> ServerProblem:
    return ServerProblem(status, "any", "says a test", None)


class Answers:
    """In the place of a client: keeps what is answered."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        self.waiting: list[PermissionRequest] = []
        self.troubles: list[ClientError] = []  # what the next calls fail with
        self.is_first = True

    async def permission_requests(self, workspace_id: str) -> list[PermissionRequest]:
        await self._call()
        return self.waiting

    async def answer_permission(self, workspace_id: str, request_id: str, action: str) -> bool:
        await self._call()
        self.given.append(action)
        return self.is_first

    async def answer_questions(self, workspace_id: str, batch_id: str, answers: Any) -> bool:
        await self._call()
        self.given.append(answers)
        return self.is_first

    async def _call(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.troubles:
            raise self.troubles.pop(0)


def permission(tool: str = "bash", action: str = "execute", path: str = str(ROOT), **params: Any) -> PermissionRequest:
    return PermissionRequest(
        id="p", session_id="s", tool_call_id="c", tool_name=tool, description="", action=action, path=path,
        params=params, run_id="r",
    )  # fmt: skip


def questions(*asked: Question) -> QuestionBatch:
    return QuestionBatch(id="q", session_id="s", tool_call_id="c", questions=asked, run_id="r")


def told(payload: Any) -> ClientEvent:
    return ClientEvent("any", "created", payload, 1, b"")


async def answers_to(payload: Any, person: Person | None, **rules: Any) -> list[Any]:
    """What is answered to one event."""
    answers: Any = Answers()
    async with open_asker(
        answers, "w", AskRules(root=ROOT, asks_terminal=person is not None, **rules), person
    ) as asker:
        await asker.see(told(payload))
        await trio.testing.wait_all_tasks_blocked()
    given: list[Any] = answers.given
    return given


@pytest.mark.parametrize(
    ("lines", "action"),
    [(["y"], "allow"), (["S"], "allow_session"), (["no"], "deny"), (["what?", "", "yes"], "allow"), ([], "deny")],
)
async def test_a_permission_is_what_the_person_says(lines: list[str], action: str) -> None:
    assert await answers_to(permission(), Person(*lines)) == [action]


@pytest.mark.parametrize(
    ("rules", "request_", "action"),
    [
        ({"allowed": frozenset({"bash"})}, permission(), "allow"),
        ({"allowed": frozenset({"bash:execute"})}, permission(), "allow"),
        ({"allowed": frozenset({"bash"})}, permission(path="/etc"), "deny"),
        ({"allowed": frozenset({"bash"})}, permission(path=f"{ROOT}/../other"), "deny"),
        ({"allowed": frozenset({"edit"})}, permission(), "deny"),
        ({"allow_all": True}, permission(path="/etc"), "allow"),
    ],
)
async def test_r32_what_was_allowed_beforehand_is_allowed_in_the_directory_and_the_rest_is_not(
    rules: dict[str, Any], request_: PermissionRequest, action: str
) -> None:
    assert await answers_to(request_, None, **rules) == [action]


async def test_an_event_that_asks_nothing_is_answered_nothing() -> None:
    assert await answers_to(None, Person("y")) == []


def test_a_request_is_shown_whole_and_cannot_move_the_cursor() -> None:
    shown = shown_request(permission(command="rm a\x1b[2K\rls\n\u202erm b", description="harmless"))
    assert "bash wants to execute in /home/ann/project" in shown
    assert "rm a[2Kls\n    rm b" in shown
    assert "\x1b" not in shown
    path = f"{ROOT}/a\nAllow it? y (once), s (for this session), n: y"
    lines = shown_request(permission(path=path)).splitlines()
    assert all(line.startswith(("bash wants", "    ")) for line in lines if line), "no name of a file asks like us"
    assert "characters more]" in shown_request(permission(command="x" * 5000))


def test_why_a_run_failed_is_shown_and_does_nothing_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error = "bad\x1b]0;title\x07 request\u202e"
    PlainOutput(is_quiet=True).finish(RunResult(run_id="r", session_id="s", state=RunState.FAILED, error=error))
    assert capsys.readouterr().err == "countermand: run r failed: bad]0;title request\n"


class Words:
    """In the place of a run: says these words, and does something in between."""

    def __init__(self, *steps: str | Callable[[], None]) -> None:
        self._steps = list(steps)

    def __aiter__(self) -> "Words":
        return self

    async def __anext__(self) -> TextPiece:
        await trio.lowlevel.checkpoint()
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, str):
                return TextPiece("m", step)
            step()
        raise StopAsyncIteration


async def test_words_wait_while_a_question_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    output = PlainOutput(is_quiet=True)
    said: list[str] = []
    run: Any = Words(
        "before ", output.make_room, "beside ", "it ", lambda: said.append(capsys.readouterr().out), output.go_on,
        "after ", lambda: said.append(capsys.readouterr().out), output.make_room, "the end",
    )  # fmt: skip
    await output.follow(run)
    assert [*said, capsys.readouterr().out] == ["before \n", "beside it after ", "\nthe end"]


CHOICES = (Choice("pg", "Postgres"), Choice("lite", "SQLite", "small"))


@pytest.mark.parametrize(
    ("type", "line", "response"),
    [
        ("yes_no", "y", {"yes": True}),
        ("yes_no", "no", {"yes": False}),
        ("yes_no", "s", None),
        ("yes_no", "maybe", None),
        ("free_text", "as you like", {"fill_in_text": "as you like"}),
        ("single_choice", "2", {"selected_ids": ("lite",)}),
        ("single_choice", "1 2", None),
        ("single_choice", "3", None),
        ("single_choice", "0", None),
        ("single_choice", ",", None),
        ("single_choice", "neither", {"fill_in_text": "neither"}),
        ("multi_choice", "2, 1", {"selected_ids": ("lite", "pg")}),
    ],
)
def test_a_line_is_read_as_the_question_wants_it(type: Any, line: str, response: dict[str, Any] | None) -> None:
    question = Question(id="1", type=type, question="Which?", choices=CHOICES)
    assert read_answer(question, line) == (response and QuestionResponse(request_id="1", **response))
    assert "Which?" in shown_question(question)


async def test_questions_are_answered_together_or_not_at_all() -> None:
    asked = questions(
        Question(id="1", type="yes_no", question="Sure?"), Question(id="2", type="free_text", question="Why?")
    )
    person = Person("perhaps", "y", "because")
    [responses] = await answers_to(asked, person)
    assert [(each.request_id, each.yes, each.fill_in_text) for each in responses] == [
        ("1", True, ""),
        ("2", None, "because"),
    ]
    assert "That is no answer to it" in person.shown
    assert await answers_to(asked, Person("y", "")) == [None]
    assert await answers_to(asked, None, allow_all=True) == [None]


@asynccontextmanager
async def asking(person: Person) -> AsyncIterator[tuple[Asker, Answers]]:
    """Somebody who asks this person, and what is answered."""
    answers: Any = Answers()
    async with open_asker(answers, "w", AskRules(root=ROOT, asks_terminal=True), person) as asker:
        yield asker, answers


async def test_r31_what_somebody_else_has_answered_is_not_asked_any_more(autojump_clock: object) -> None:
    person = Dithering("y")
    async with asking(person) as (asker, answers):
        for payload in (permission(), questions(Question(id="1", type="yes_no", question="Sure?"))):
            await asker.see(told(payload))
            await trio.testing.wait_all_tasks_blocked()
        [shown] = person.asked
        assert "bash wants" in shown, "one at a time"
        await asker.see(told(PermissionNotification(tool_call_id="c")))
        await trio.testing.wait_all_tasks_blocked()
        assert len(person.asked) == 1, "it was said that it asks, and not that it was answered"
        await asker.see(told(PermissionNotification(tool_call_id="c", granted=True)))
        await trio.sleep(SILENCE_S / 2)
        assert len(person.asked) == 1, "what is typed now was meant for the first"
        await trio.sleep(SILENCE_S)
        assert "Sure?" in person.asked[1]
        await asker.see(told(QuestionBatchNotification("q")))
        await trio.testing.wait_all_tasks_blocked()
        assert person.shown.count("<somebody else has answered") == 2
        await asker.see(told(permission()))
        person.gate.open()
        await trio.sleep(2 * SILENCE_S)
    assert answers.given == ["allow"]


async def test_r31_what_was_dropped_before_it_was_shown_is_not_spoken_of(autojump_clock: object) -> None:
    person = Dithering()
    async with asking(person) as (asker, _):
        await asker.see(told(questions(Question(id="1", type="yes_no", question="Sure?"))))
        await asker.see(told(permission()))
        await asker.see(told(PermissionNotification(tool_call_id="c", denied=True)))
        await trio.sleep(2 * SILENCE_S)
    assert len(person.asked) == 1
    assert person.shown == ""


@pytest.mark.parametrize("troubles", [[ServerUnreachable("h", "gone")], [problem(503), problem(503)]], ids=repr)
async def test_r31_an_answer_waits_for_a_server_that_is_away(
    troubles: list[ClientError], autojump_clock: object
) -> None:
    async with asking(Person("y")) as (asker, answers):
        answers.troubles = troubles
        await asker.see(told(permission()))
        await trio.sleep(60)
    assert answers.given == ["allow"]


async def test_r31_an_answer_that_comes_too_late_says_so_and_ends_nothing(autojump_clock: object) -> None:
    person = Person("y", "n")
    async with asking(person) as (asker, answers):
        answers.troubles = [problem(404)]
        await asker.see(told(permission()))
        await trio.sleep(1)
        assert person.shown.count("<somebody else has answered") == 1
        answers.is_first = False
        await asker.see(told(permission()))
        await trio.sleep(1)
    assert person.shown.count("<somebody else has answered") == 2


async def test_r31_who_cannot_be_asked_what_still_waits_is_not_waited_for(autojump_clock: object) -> None:
    person = Dithering("y")
    async with asking(person) as (asker, answers):
        await asker.see(told(permission()))
        await trio.testing.wait_all_tasks_blocked()
        answers.troubles = [ServerUnreachable("h", "gone")]
        await asker.see(told(PermissionNotification(tool_call_id="c", denied=True)))
        await trio.sleep(1)
        assert answers.troubles == []
        person.gate.open()
        await trio.sleep(1)
    assert answers.given == ["allow"]


async def test_r31_of_two_calls_under_one_id_the_one_that_still_waits_is_asked(autojump_clock: object) -> None:
    person = Dithering("y")
    async with asking(person) as (asker, answers):
        other = msgspec.structs.replace(permission(tool="edit"), id="other")
        for payload in (permission(), other):
            await asker.see(told(payload))
            await trio.testing.wait_all_tasks_blocked()
        answers.waiting = [other]
        await asker.see(told(PermissionNotification(tool_call_id="c", denied=True)))
        await trio.sleep(2 * SILENCE_S)
        assert "edit wants" in person.asked[1]
        person.gate.open()
        await trio.testing.wait_all_tasks_blocked()
    assert answers.given == ["allow"]


async def test_what_is_still_asked_when_the_run_has_ended_is_not_answered(autojump_clock: object) -> None:
    async with asking(Dithering("y")) as (asker, answers):
        await asker.see(told(permission()))
        await trio.testing.wait_all_tasks_blocked()
    assert answers.given == []


EDIT = {"file_path": "a.txt", "old_string": "hello", "new_string": "bye"}
PROMPT = script(
    [{"tool": "view", "input": {"file_path": "a.txt"}}], [{"tool": "edit", "input": EDIT}], [{"text": "done"}]
)


def run_on_terminal(project: Path, data: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Call the command on a terminal, and answer once it asks; its exit code, and what the terminal shows."""
    ours, theirs = pty.openpty()
    environ = clean_environ(COUNTERMAND_MODEL="offline/script", COUNTERMAND_DATA_DIR=str(data), TERM="dumb")
    process = subprocess.Popen(
        [str(COMMAND), "run", "--quiet", "--cwd", str(project), *arguments, PROMPT],
        stdin=theirs, stdout=subprocess.DEVNULL, stderr=theirs, env=environ,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while select.select([ours], [], [], 60)[0] and (data_ := os.read(ours, 4096)):
            shown += data_
            if shown.endswith(b"n: "):
                os.write(ours, answer.encode())
    except OSError:  # Linux: the other side is closed
        pass
    finally:
        os.close(ours)
    try:
        return process.wait(60), shown.decode()
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a terminal of one's own")
@pytest.mark.parametrize(
    ("answer", "arguments", "text"),
    [("y\n", (), "bye"), ("n\n", (), "hello"), ("", ("--no-ask",), "hello"), ("", ("--allow", "edit:write"), "bye")],
    ids=["yes", "no", "not asked", "allowed"],
)
def test_r31_a_person_at_the_terminal_is_asked(
    answer: str, arguments: tuple[str, ...], text: str, tmp_path: Path
) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "a.txt").write_text("hello")
    code, shown = run_on_terminal(tmp_path / "project", tmp_path / "data", answer, *arguments)
    assert code == 0, shown
    assert (tmp_path / "project" / "a.txt").read_text() == text
    assert ("edit wants to write" in shown) is bool(answer)
