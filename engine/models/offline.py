"""The offline model: real, deterministic, and in need of nothing.

`offline/helper` says what it was asked and how to get a model that thinks. `offline/script` plays the script in the
prompt (`offline_script` has the language), so that a whole run, its failures included, can be driven from outside.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager

import trio

from engine.errors import ModelError
from engine.models.offline_answer import answer_to, asks_for_title, in_pieces, title_of
from engine.models.offline_script import Fail, Move, Pause, Script, Step, find_script, parse_script, without_script
from engine.models.protocol import (
    Chunk,
    ModelInfo,
    ModelMessage,
    ModelRequest,
    ModelStream,
    StreamFinish,
    TextDelta,
    UsageReport,
)
from engine.models.statistics import RequestCount, RequestStatistics
from engine.records.message import FinishReason
from engine.records.run import Usage

PROVIDER = "offline"
HELPER = "helper"
SCRIPT = "script"
INFOS = {
    HELPER: ModelInfo(id=HELPER, provider=PROVIDER, name="Offline helper", context_window=1_000_000),
    SCRIPT: ModelInfo(
        id=SCRIPT,
        provider=PROVIDER,
        name="Offline script",
        context_window=1_000_000,
        can_reason=True,
        supports_attachments=True,
    ),
}
COUNTED_FAILURES = 1_000  # remembered at once; those of a run that was given up would stay for ever

Gates = Mapping[str, Callable[[], Awaitable[object]]]


class OfflineModel:
    """One offline model. With a `script` given here it plays that, each turn from its start; a script in the prompt is
    read only by the model called `script`, and wins. `gates` are what a script's gates wait for, by name.

    Its only memory is how often a `fail` with `times` has failed, by session, place in the conversation and action.
    """

    def __init__(
        self,
        model_id: str = HELPER,
        *,
        script: str | None = None,
        gates: Gates | None = None,
        count: RequestCount | None = None,
    ) -> None:
        self._info = INFOS[model_id]
        self._script = None if script is None else parse_script(script)
        self._gates = dict(gates or {})
        self._count = count or RequestCount()
        self._failures: dict[tuple[str, int, int, int], int] = {}

    @property
    def info(self) -> ModelInfo:
        return self._info

    def statistics(self) -> RequestStatistics:
        """How many requests it got, and how many of them are over."""
        return self._count.statistics()

    @asynccontextmanager
    async def open_stream(self, request: ModelRequest) -> AsyncIterator[ModelStream]:
        with self._count.request():
            await trio.lowlevel.checkpoint()
            yield _Playback(self._moves(request), self._gates)

    def _moves(self, request: ModelRequest) -> Iterator[Move]:
        """What to do for this request. Raises for a script that is no good before anything is said."""
        prompt = _last_user_message(request)
        if not request.tools and asks_for_title(request.system):
            return _speak(title_of(without_script(prompt.text)), request)
        if self._script is None and self._info.id == HELPER:
            return _speak(answer_to(prompt), request)
        script, number = self._place_in_script(request)
        if number >= len(script):
            return _speak("The script has no more steps.", request)
        step = script[number]
        for gate in step.gates:
            if gate not in self._gates:
                raise ModelError("bad_request", "The script waits at an unknown gate", f"there is no gate {gate!r}")
        return self._play(step, number, request)

    def _place_in_script(self, request: ModelRequest) -> tuple[Script, int]:
        """The script in force, and which of its steps comes next: one for each answer since its prompt.

        A prompt without a script goes on with the one before it, so that a prompt that was steered into a turn does
        not end the script. A script that has been spoken to its end gives way to the one given to the model.
        """
        answers, since_prompt = 0, None
        for message in reversed(request.messages):
            if message.role == "assistant":
                answers += 1
            elif message.role == "user":
                since_prompt = answers if since_prompt is None else since_prompt
                text = find_script(message.text) if self._info.id == SCRIPT else None
                if text is not None:
                    script = parse_script(text)
                    if self._script is None or answers < len(script):
                        return script, answers
                    break
        if self._script is not None:
            return self._script, answers if since_prompt is None else since_prompt
        raise ModelError(
            "bad_request",
            "There is no script to play",
            "offline/script plays the ```script block of the prompt, or the file that COUNTERMAND_OFFLINE_SCRIPT "
            "names; choose offline/helper for a model that answers without one.",
        )

    def _play(self, step: Step, number: int, request: ModelRequest) -> Iterator[Move]:
        messages = len(request.messages)
        for place, action in enumerate(step.actions):
            if isinstance(action, Fail) and not self._is_due(action, (request.session_id, messages, number, place)):
                continue
            # The number of messages makes the id unique in the session, and the same in each attempt.
            yield from action.moves(f"call_{messages}_{place}")
        usage = step.usage or _estimate(request, sum(action.spoken for action in step.actions))
        yield UsageReport(usage), StreamFinish(step.reason)

    def _is_due(self, action: Fail, key: tuple[str, int, int, int]) -> bool:
        if action.times is None:
            return True
        failed = self._failures.pop(key, 0)
        if failed == action.times:
            return False
        self._failures[key] = failed + 1
        if len(self._failures) > COUNTED_FAILURES:
            del self._failures[next(iter(self._failures))]
        return True


class _Playback:
    """The stream of one request."""

    def __init__(self, moves: Iterator[Move], gates: Gates) -> None:
        self._moves = moves
        self._gates = gates

    def __aiter__(self) -> "_Playback":
        return self

    async def __anext__(self) -> tuple[Chunk, ...]:
        await trio.lowlevel.checkpoint()
        for move in self._moves:
            if not isinstance(move, Pause):
                return move
            if move.gate is not None:
                await self._gates[move.gate]()
            elif move.seconds is not None:
                await trio.sleep(move.seconds)
            else:
                await trio.sleep_forever()
        raise StopAsyncIteration


def _speak(text: str, request: ModelRequest) -> Iterator[Move]:
    for piece in in_pieces(text):
        yield (TextDelta(piece),)
    yield UsageReport(_estimate(request, len(text.encode()))), StreamFinish(FinishReason.END_TURN)


def _estimate(request: ModelRequest, spoken: int) -> Usage:
    shown = [request.system]
    for message in request.messages:
        shown += [message.text, message.reasoning]
        shown += [call.input for call in message.tool_calls]
        shown += [result.content for result in message.tool_results]
    return Usage(input_tokens=_tokens(sum(len(text.encode()) for text in shown)), output_tokens=_tokens(spoken))


def _tokens(size: int) -> int:
    return (size + 3) // 4


def _last_user_message(request: ModelRequest) -> ModelMessage:
    users = (message for message in reversed(request.messages) if message.role == "user")
    return next(users, ModelMessage(role="user"))
