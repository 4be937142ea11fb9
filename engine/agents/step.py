"""One step of the built-in agent: a model is asked once, and what it says goes into the turn."""

import uuid
from contextlib import suppress

import msgspec
import trio

from engine.agents.protocol import Turn
from engine.errors import ModelError
from engine.models.protocol import (
    Chunk,
    LanguageModel,
    ModelRequest,
    ReasoningDelta,
    StreamFinish,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageReport,
)
from engine.models.retry import with_retries
from engine.records.message import FinishReason, ToolCall
from engine.records.run import Usage


class StepResult(msgspec.Struct, frozen=True):
    """What a step came to: why the model stopped, the calls it made with the input that it really gave, and the tokens
    of this one request."""

    reason: FinishReason
    calls: tuple[tuple[ToolCall, str], ...]
    usage: Usage


class Step:
    """Asks a model and speaks its answer into the turn; a failed attempt is taken back and made again (R20)."""

    def __init__(self, turn: Turn, model: LanguageModel, request: ModelRequest) -> None:
        self._turn = turn
        self._model = model
        self._request = request
        self._usage = Usage()
        self._reason = FinishReason.UNKNOWN
        self._calls: list[tuple[ToolCall, str]] = []
        self._inputs: dict[str, list[str]] = {}
        self._ids: dict[str, str] = {}  # of this step: the provider's, and ours
        self._taken = {call.id for message in turn.history for call in message.tool_calls}

    async def take(self) -> StepResult:
        """Take the step. Raises ModelError when no attempt succeeds. What was used is accounted for however it ends."""
        try:
            await with_retries(self._ask, before_retry=self._take_back)
        except (ModelError, trio.Cancelled):
            if self._usage != Usage():
                with suppress(RuntimeError, ValueError):  # the turn is over, or nobody can have used that: told is why
                    self._account()
            raise
        self._account()
        return StepResult(self._reason, tuple(self._calls), self._usage)

    async def _ask(self) -> None:
        async with self._model.open_stream(self._request) as stream:
            async for batch in stream:
                for chunk in batch:
                    self._hear(chunk)

    def _account(self) -> None:
        self._turn.use(msgspec.structs.replace(self._usage, cost=self._model.info.cost_of(self._usage)))

    def _take_back(self, error: ModelError, delay: float) -> None:
        if self._usage != Usage():  # what is taken back was paid for all the same
            self._account()
        self._turn.reset()
        self._calls.clear()
        self._inputs.clear()
        self._usage = Usage()

    def _hear(self, chunk: Chunk) -> None:
        turn = self._turn
        match chunk:
            case TextDelta(text):
                turn.say(text)
            case ReasoningDelta(text, signature):
                turn.think(text, signature)
            case ToolCallStart(call_id, name):
                self._inputs[call_id] = []
                # Some servers count their calls from 0 in every answer; a result belongs to one call.
                self._ids[call_id] = f"call_{uuid.uuid4().hex}" if call_id in self._taken else call_id
                turn.begin_tool_call(self._ids[call_id], name)
            case ToolCallDelta(call_id, text):
                self._inputs[call_id].append(text)
                turn.append_tool_input(self._ids[call_id], text)
            case ToolCallEnd(call_id):
                call = turn.end_tool_call(self._ids[call_id])
                self._calls.append((call, "".join(self._inputs.pop(call_id))))
            case UsageReport(usage):
                self._usage = usage
            case StreamFinish(reason):
                self._reason = reason
