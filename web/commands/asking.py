"""What `countermand run` answers for the person who called it: permissions and questions, as they come with the run."""

import os
import sys
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec
import trio

from engine.records.question import Question
from web.client import CountermandClient
from web.client_events import ClientEvent
from web.commands.visible import visible
from web.wire.requests import PermissionRequest, QuestionBatch, QuestionResponse

SHOWN_MAX = 4000  # characters of one value
READ = 4096

_ACTIONS = {"y": "allow", "yes": "allow", "s": "allow_session", "session": "allow_session", "n": "deny", "no": "deny"}


class Terminal(Protocol):
    """Where a person sits."""

    async def ask(self, text: str) -> str | None:
        """Show a text, and return the line that is answered; None if the person has gone."""
        ...


class StdinTerminal:
    """The terminal that the command was called from: questions on stderr, answers from stdin."""

    def __init__(self, make_room: Callable[[], None]) -> None:
        self._make_room = make_room

    async def ask(self, text: str) -> str | None:
        """See `Terminal`. What was typed before the question is no answer to it."""
        await trio.lowlevel.checkpoint()
        self._make_room()
        descriptor = sys.stdin.fileno()
        termios.tcflush(descriptor, termios.TCIFLUSH)
        click.echo(text, err=True, nl=False)
        line = b""
        while not line.endswith(b"\n"):
            await trio.lowlevel.wait_readable(descriptor)
            data = os.read(descriptor, READ)  # a terminal gives a whole line
            if not data:
                return None
            line += data
        return line.decode("utf-8", "replace").strip()


class AskRules(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers. `allowed` holds `tool` and `tool:action`, and counts below `root`; `allow_all` counts everywhere."""

    root: Path
    allowed: frozenset[str] = frozenset()
    allow_all: bool = False
    asks_terminal: bool = False

    @property
    def is_interactive(self) -> bool:
        """Whether anything that is asked can be answered."""
        return self.asks_terminal or self.allow_all or bool(self.allowed)

    def allows(self, request: PermissionRequest) -> bool:
        """Whether the person has allowed it beforehand."""
        tool = request.tool_name
        is_inside = Path(os.path.normpath(request.path)).is_relative_to(os.path.realpath(self.root))
        return self.allow_all or (is_inside and not self.allowed.isdisjoint({tool, f"{tool}:{request.action}"}))


class Asker:
    """Answers what one run asks. Without a terminal, what was not allowed beforehand is denied."""

    def __init__(
        self, client: CountermandClient, workspace_id: str, rules: AskRules, terminal: Terminal | None
    ) -> None:
        self._client = client
        self._workspace_id = workspace_id
        self._rules = rules
        self._terminal = terminal if rules.asks_terminal else None

    async def see(self, event: ClientEvent) -> None:
        """Take an event of the run, and answer it if it asks. Canceled, it has answered nothing."""
        await trio.lowlevel.checkpoint()
        match event.payload:
            case PermissionRequest() as request:
                action = "allow" if self._rules.allows(request) else await self._ask_permission(request)
                await self._client.answer_permission(self._workspace_id, request.id, action)
            case QuestionBatch() as batch:
                await self._client.answer_questions(self._workspace_id, batch.id, await self._ask_all(batch))

    async def _ask_permission(self, request: PermissionRequest) -> str:
        await trio.lowlevel.checkpoint()
        if self._terminal is None:
            return "deny"
        text = shown_request(request)
        while True:
            answer = await self._terminal.ask(f"{text}\nAllow it? y (once), s (for this session), n: ")
            action = "deny" if answer is None else _ACTIONS.get(answer.lower())
            if action is not None:
                return action
            text = ""

    async def _ask_all(self, batch: QuestionBatch) -> list[QuestionResponse] | None:
        """The answers; None if the person does not want to answer."""
        await trio.lowlevel.checkpoint()
        responses = []
        for question in batch.questions:
            response = None if self._terminal is None else await self._ask_question(question, self._terminal)
            if response is None:
                return None
            responses.append(response)
        return responses

    async def _ask_question(self, question: Question, terminal: Terminal) -> QuestionResponse | None:
        text = shown_question(question)
        while True:
            line = await terminal.ask(text)
            if not line:
                return None
            response = read_answer(question, line)
            if response is not None:
                return response
            text = "That is no answer to it. Again, or nothing to leave it: "


def shown_request(request: PermissionRequest) -> str:
    """What a tool wants to do, as a person is shown it."""
    lines = [f"{request.tool_name} wants to {request.action} in {_value(request.path)}"]
    lines += [_value(request.description)] if request.description else []
    lines += [f"  {name}: {_value(value)}" for name, value in _telling(request.params).items()]
    return "\n" + visible("\n".join(lines))


def _telling(params: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        name: value for name, value in params.items() if value not in ("", None, False, 0) and name != "description"
    }


def _value(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(text) > SHOWN_MAX:
        text = f"{text[:SHOWN_MAX]}\n[{len(text) - SHOWN_MAX} characters more]"
    return text.replace("\n", "\n    ")


def shown_question(question: Question) -> str:
    """A question, as a person is shown it."""
    lines = [question.question, *([question.description] if question.description else [])]
    for number, choice in enumerate(question.choices, 1):
        lines.append(f"  {number}. {choice.label}" + (f" ({choice.description})" if choice.description else ""))
    how = {
        "yes_no": "y or n",
        "single_choice": "A number, or your own words",
        "multi_choice": "Numbers, or your own words",
        "free_text": "Your answer",
    }[question.type]
    return "\n" + visible("\n".join(lines)) + f"\n{how} (nothing: do not answer): "


def read_answer(question: Question, line: str) -> QuestionResponse | None:
    """The answer that a line is; None for one that does not fit."""
    match question.type:
        case "yes_no":
            said = _ACTIONS.get(line.lower())
            return (
                None if said not in ("allow", "deny") else QuestionResponse(request_id=question.id, yes=said == "allow")
            )
        case "free_text":
            return QuestionResponse(request_id=question.id, fill_in_text=line)
        case _:
            words = line.replace(",", " ").split()
            if not all(word.isdecimal() for word in words):
                return QuestionResponse(request_id=question.id, fill_in_text=line)
            chosen = [int(word) - 1 for word in words]
            fits = all(0 <= each < len(question.choices) for each in chosen)
            if not fits or (question.type == "single_choice" and len(chosen) > 1):
                return None
            ids = tuple(dict.fromkeys(question.choices[each].id for each in chosen))
            return QuestionResponse(request_id=question.id, selected_ids=ids)
