"""What `countermand run` answers for the person who called it: permissions and questions, as they come with the run."""

import math
import os
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import click
import msgspec
import trio

from engine.records.question import Question
from web.client import CountermandClient
from web.client_errors import ClientError, ServerProblem
from web.client_events import ClientEvent
from web.client_patience import until_answered
from web.commands.run_output import RunOutput
from web.commands.visible import visible
from web.wire.requests import (
    PermissionNotification,
    PermissionRequest,
    QuestionBatch,
    QuestionBatchNotification,
    QuestionResponse,
)

SHOWN_MAX = 4000  # characters of one value
READ = 4096
SILENCE_S = 1.0  # between a question that was withdrawn and the next: what is typed then was meant for the first
GONE = (404, 409)  # there is nothing to answer any more

_ACTIONS = {"y": "allow", "yes": "allow", "s": "allow_session", "session": "allow_session", "n": "deny", "no": "deny"}


Answer = Callable[[], Awaitable[bool]]
"""Sends what a person has decided; whether it was that which decided."""


class Terminal(Protocol):
    """Where a person sits."""

    async def ask(self, text: str) -> str | None:
        """Show a text, in the step in which it is called, and return the line that is answered; None if the person has
        gone."""
        ...

    def tell(self, text: str) -> None:
        """Show a text behind a question that is not to be answered any more."""
        ...


class StdinTerminal:
    """The terminal that the command was called from: questions on stderr, answers from stdin."""

    def __init__(self, output: RunOutput) -> None:
        self._output = output

    async def ask(self, text: str) -> str | None:
        """See `Terminal`. What was typed before the question is no answer to it."""
        self._output.make_room()
        descriptor = sys.stdin.fileno()
        termios.tcflush(descriptor, termios.TCIFLUSH)
        click.echo(text, err=True, nl=False)
        try:
            return await self._read_line(descriptor)
        finally:
            self._output.go_on()

    async def _read_line(self, descriptor: int) -> str | None:
        await trio.lowlevel.checkpoint()
        line = b""
        while not line.endswith(b"\n"):
            await trio.lowlevel.wait_readable(descriptor)
            data = os.read(descriptor, READ)  # a terminal gives a whole line
            if not data:
                return None
            line += data
        return line.decode("utf-8", "replace").strip()

    def tell(self, text: str) -> None:
        """See `Terminal`."""
        click.echo(f"\ncountermand: {text}", err=True)


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


class Prompt(msgspec.Struct, eq=False):
    """Something that a person is asked, or will be when it is its turn."""

    id: str
    key: str  # what says that it is over names this: a permission's tool call, or a batch of questions
    scope: trio.CancelScope = msgspec.field(default_factory=trio.CancelScope)
    is_shown: bool = False


@asynccontextmanager
async def open_asker(
    client: CountermandClient, workspace_id: str, rules: AskRules, terminal: Terminal | None
) -> AsyncIterator["Asker"]:
    """Whoever answers what one run asks. Without a terminal, what was not allowed beforehand is denied. What is still
    open when this is left is not answered."""
    async with trio.open_nursery() as nursery:
        yield Asker(nursery, client, workspace_id, rules, terminal if rules.asks_terminal else None)
        nursery.cancel_scope.cancel()


class Asker:
    """Answers what one run asks. One thing is asked at a time; what somebody else has answered is not asked any more.
    Made by `open_asker`."""

    def __init__(
        self,
        nursery: trio.Nursery,
        client: CountermandClient,
        workspace_id: str,
        rules: AskRules,
        terminal: Terminal | None,
    ) -> None:
        self._nursery = nursery
        self._client = client
        self._workspace_id = workspace_id
        self._rules = rules
        self._terminal = terminal
        self._turn = trio.Lock()  # to ask the person
        self._prompts: list[Prompt] = []
        self._silent_until = -math.inf

    async def see(self, event: ClientEvent) -> None:
        """Take an event of the run: answer it or begin to ask, or stop asking if somebody else has answered. Canceled,
        it has answered nothing."""
        await trio.lowlevel.checkpoint()
        match event.payload:
            case PermissionRequest() as request:
                is_allowed = self._rules.allows(request)
                if is_allowed or self._terminal is None:
                    await self._send(self._decision(request, "allow" if is_allowed else "deny"))
                else:
                    ask = partial(self._ask_permission, request, self._terminal)
                    self._begin(Prompt(request.id, request.tool_call_id), ask, self._terminal)
            case QuestionBatch() as batch:
                if self._terminal is None:
                    await self._send(self._responses(batch, None))
                else:
                    ask = partial(self._ask_questions, batch, self._terminal)
                    self._begin(Prompt(batch.id, batch.id), ask, self._terminal)
            case PermissionNotification(tool_call_id=call_id) as told if told.granted or told.denied:
                if any(prompt.key == call_id for prompt in self._prompts):
                    self._nursery.start_soon(self._drop_answered, call_id)
            case QuestionBatchNotification(batch_id):
                self._drop(batch_id, still_open=frozenset())

    def _begin(self, prompt: Prompt, ask: Callable[[], Awaitable[Answer]], terminal: Terminal) -> None:
        self._prompts.append(prompt)
        self._nursery.start_soon(self._ask, prompt, ask, terminal)

    async def _ask(self, prompt: Prompt, ask: Callable[[], Awaitable[Answer]], terminal: Terminal) -> None:
        """Ask the person when it is its turn, unless it is dropped, and send what is answered."""
        answer: Answer | None = None
        with prompt.scope:
            async with self._turn:
                await trio.sleep_until(self._silent_until)
                prompt.is_shown = True
                answer = await ask()
        self._prompts.remove(prompt)
        if answer is None:
            if not prompt.is_shown:
                return
            self._silent_until = trio.current_time() + SILENCE_S
        elif await self._send(answer):
            return
        terminal.tell("somebody else has answered that, or it is not asked any more")

    async def _send(self, answer: Answer) -> bool:
        """Send an answer, also to a server that is being restarted: the first one counts, however often it comes."""
        try:
            return await until_answered(answer)
        except ServerProblem as problem:
            if problem.status not in GONE:
                raise
            # What became of the run is told by its stream.
            return False  # noqa: ASYNC910  (it has been asked)

    async def _drop_answered(self, call_id: str) -> None:
        """Calls of two sub-agents may have the same id: the server knows which of them still waits."""
        with suppress(ClientError):  # the stream tells what becomes of the run, and a late answer does nothing
            waiting = await self._client.permission_requests(self._workspace_id)
            self._drop(call_id, still_open=frozenset(request.id for request in waiting))
        await trio.lowlevel.checkpoint()

    def _drop(self, key: str, *, still_open: frozenset[str]) -> None:
        for prompt in self._prompts:
            if prompt.key == key and prompt.id not in still_open:
                prompt.scope.cancel()

    def _decision(self, request: PermissionRequest, action: str) -> Answer:
        return partial(self._client.answer_permission, self._workspace_id, request.id, action)

    def _responses(self, batch: QuestionBatch, responses: list[QuestionResponse] | None) -> Answer:
        return partial(self._client.answer_questions, self._workspace_id, batch.id, responses)

    async def _ask_permission(self, request: PermissionRequest, terminal: Terminal) -> Answer:
        text = shown_request(request)
        while True:
            line = await terminal.ask(f"{text}\nAllow it? y (once), s (for this session), n: ")
            action = "deny" if line is None else _ACTIONS.get(line.lower())
            if action is not None:
                return self._decision(request, action)
            text = ""

    async def _ask_questions(self, batch: QuestionBatch, terminal: Terminal) -> Answer:
        """Ask all of them; one that the person does not want to answer declines the rest."""
        responses: list[QuestionResponse] = []
        for question in batch.questions:
            response = await self._ask_question(question, terminal)
            if response is None:
                return self._responses(batch, None)
            responses.append(response)
        await trio.lowlevel.checkpoint()
        return self._responses(batch, responses)

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
            if not words:
                return None
            chosen = [int(word) - 1 for word in words]
            fits = all(0 <= each < len(question.choices) for each in chosen)
            if not fits or (question.type == "single_choice" and len(chosen) > 1):
                return None
            ids = tuple(dict.fromkeys(question.choices[each].id for each in chosen))
            return QuestionResponse(request_id=question.id, selected_ids=ids)
