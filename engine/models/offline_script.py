"""What the offline model says when it is told word for word: a script, checked before any of it is spoken.

A script is JSON or TOML: a list of steps, or a table with such a list as `steps`. A step is one response of the model,
a list of actions. An action is a table with exactly one of these verbs:

    {"text": "…"}                      say it; with "repeat": n and "every": seconds, again and again
    {"think": "…"}                     the same, as reasoning; "signature" closes it
    {"tool": "name", "input": {…}}     call a tool; "raw_input" sends any text as the input, "id" names the call,
                                       "unfinished": true never ends it
    {"fail": "rate_limit"}             fail with this kind of `ModelError`; "title", "details", "status" and
                                       "retry_after" say how; with "times": n only the first n attempts fail
    {"wait": seconds}                  say nothing for a while
    {"hang": true}                     say nothing any more; only cancellation ends it
    {"gate": "name"}                   wait at a gate that the program gave by this name
    {"usage": {"input_tokens": n, …}}  report what it cost; without it an estimate is reported
    {"finish": "max_tokens"}           end, for this reason; without it `end_turn`, or `tool_use` after a call
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Annotated, Literal, Protocol

import msgspec

from engine.errors import ModelError, ModelErrorKind
from engine.models.protocol import (
    Chunk,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageReport,
)
from engine.records.message import FinishReason
from engine.records.run import Usage

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
Times = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Name = Annotated[str, msgspec.Meta(min_length=1)]


class Pause(msgspec.Struct, frozen=True):
    """Where a stream waits: for a time, at a gate, or with neither, for ever."""

    seconds: float | None = None
    gate: str | None = None


Move = tuple[Chunk, ...] | Pause


class Action(Protocol):
    """One thing that a step does."""

    @property
    def spoken(self) -> int:
        """How many bytes the model says with it."""
        ...

    def moves(self, call_id: str) -> Iterator[Move]:
        """What comes of it, piece by piece; a call without an id of its own takes `call_id`."""
        ...


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    @property
    def spoken(self) -> int:
        return 0


class Say(_Strict, frozen=True):
    """Words."""

    text: str
    repeat: Times = 1
    every: Seconds = 0.0

    @property
    def spoken(self) -> int:
        return len(self.text.encode()) * self.repeat

    def moves(self, call_id: str) -> Iterator[Move]:
        return _repeated((TextDelta(self.text),), self.repeat, self.every)


class Think(_Strict, frozen=True):
    """Reasoning."""

    think: str
    signature: str = ""
    repeat: Times = 1
    every: Seconds = 0.0

    @property
    def spoken(self) -> int:
        return len(self.think.encode()) * self.repeat

    def moves(self, call_id: str) -> Iterator[Move]:
        yield from _repeated((ReasoningDelta(self.think),), self.repeat, self.every)
        if self.signature:
            yield (ReasoningDelta("", self.signature),)


class CallTool(_Strict, frozen=True):
    """A tool call; `raw_input` wins over `input`."""

    tool: Name
    input: dict[str, object] = {}
    raw_input: str | None = None
    id: Name | None = None
    unfinished: bool = False

    @property
    def input_text(self) -> str:
        """The input as it goes out."""
        return msgspec.json.encode(self.input).decode() if self.raw_input is None else self.raw_input

    @property
    def spoken(self) -> int:
        return len(self.input_text.encode())

    def moves(self, call_id: str) -> Iterator[Move]:
        call_id, text = self.id or call_id, self.input_text
        half = len(text) // 2
        yield (ToolCallStart(call_id, self.tool),)
        for part in (text[:half], text[half:]):
            if part:
                yield (ToolCallDelta(call_id, part),)
        if not self.unfinished:
            yield (ToolCallEnd(call_id),)


class Fail(_Strict, frozen=True):
    """A failure: always, or in the first `times` attempts."""

    fail: ModelErrorKind
    title: str = "The script says: fail"
    details: str = "This failure was asked for by the script of the offline model."
    status: int | None = None
    retry_after: Seconds | None = None
    times: Times | None = None

    def moves(self, call_id: str) -> Iterator[Move]:
        raise ModelError(self.fail, self.title, self.details, status=self.status, retry_after=self.retry_after)


class Wait(_Strict, frozen=True):
    """A silence."""

    wait: Seconds

    def moves(self, call_id: str) -> Iterator[Move]:
        yield Pause(seconds=self.wait)


class Hang(_Strict, frozen=True):
    """Silence until cancelled."""

    hang: Literal[True]

    def moves(self, call_id: str) -> Iterator[Move]:
        yield Pause()


class Gate(_Strict, frozen=True):
    """A named point where the program that runs the model holds it."""

    gate: Name

    def moves(self, call_id: str) -> Iterator[Move]:
        yield Pause(gate=self.gate)


class Report(_Strict, frozen=True):
    """What it cost."""

    usage: Usage

    def moves(self, call_id: str) -> Iterator[Move]:
        yield (UsageReport(self.usage),)


class Finish(_Strict, frozen=True):
    """The end, said on purpose; what is done about it is the step's business."""

    finish: FinishReason

    def moves(self, call_id: str) -> Iterator[Move]:
        yield from ()


class Step(msgspec.Struct, frozen=True):
    """One response."""

    actions: tuple[Action, ...]

    @property
    def reason(self) -> FinishReason:
        """How it ends."""
        if self.actions and isinstance(self.actions[-1], Finish):
            return self.actions[-1].finish
        calls = any(isinstance(action, CallTool) for action in self.actions)
        return FinishReason.TOOL_USE if calls else FinishReason.END_TURN

    @property
    def usage(self) -> Usage | None:
        """What it says of its cost, if it does; the last word counts."""
        return next((action.usage for action in reversed(self.actions) if isinstance(action, Report)), None)

    @property
    def gates(self) -> tuple[str, ...]:
        """The gates it waits at."""
        return tuple(action.gate for action in self.actions if isinstance(action, Gate))


Script = tuple[Step, ...]

_VERBS: dict[str, type[Action]] = {
    "text": Say,
    "think": Think,
    "tool": CallTool,
    "fail": Fail,
    "wait": Wait,
    "hang": Hang,
    "gate": Gate,
    "usage": Report,
    "finish": Finish,
}
_FENCED = re.compile(r"^```script[ \t]*\r?\n(.*?)^```[ \t]*\r?$", re.MULTILINE | re.DOTALL)


def find_script(prompt: str) -> str | None:
    """The text of the first ```` ```script ```` block of a prompt."""
    found = _FENCED.search(prompt)
    return found[1] if found else None


def without_script(prompt: str) -> str:
    """The prompt as a person would tell it; a script whose end was cut off is left out too."""
    return _FENCED.sub("", prompt).partition("```script")[0]


def parse_script(text: str) -> Script:
    """Check a script. Raises `ModelError("bad_request")` that names the faulty step and action, counted from 1."""
    data = _parse_data(text)
    if isinstance(data, dict):
        if set(data) != {"steps"}:
            raise _unusable("a script that is a table has one key, `steps`")
        data = data["steps"]
    if not isinstance(data, list) or not data:
        raise _unusable("a script is a list of at least one step")
    return tuple(_parse_step(step, number) for number, step in enumerate(data, 1))


def _parse_data(text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        json_problem = error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unusable(f"it is neither JSON ({json_problem}) nor TOML ({error})") from None


def _parse_step(data: object, number: int) -> Step:
    if not isinstance(data, list):
        raise _unusable(f"step {number}: a step is a list of actions")
    actions = tuple(_parse_action(action, f"step {number}, action {place}") for place, action in enumerate(data, 1))
    for place, action in enumerate(actions[:-1], 1):
        if isinstance(action, Finish):
            raise _unusable(f"step {number}, action {place}: nothing can follow `finish`")
    return Step(actions)


def _parse_action(data: object, where: str) -> Action:
    if not isinstance(data, dict):
        raise _unusable(f"{where}: an action is a table")
    verbs = [key for key in data if key in _VERBS]
    if len(verbs) != 1:
        raise _unusable(f"{where}: an action has exactly one of {', '.join(_VERBS)}")
    try:
        return msgspec.convert(data, _VERBS[verbs[0]])
    except msgspec.ValidationError as error:
        raise _unusable(f"{where}: {error}") from None


def _unusable(problem: str) -> ModelError:
    return ModelError("bad_request", "The script of the offline model cannot be used", problem)


def _repeated(batch: tuple[Chunk, ...], times: int, every: float) -> Iterator[Move]:
    for index in range(times):
        if index and every:
            yield Pause(seconds=every)
        yield batch
