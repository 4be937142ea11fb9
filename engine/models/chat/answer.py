"""From the events of a chat-completions stream to chunks. No I/O."""

from collections.abc import Iterable

from engine.errors import ModelError
from engine.models.call_ids import new_call_id
from engine.models.chat.wire import Details, Piece, ToolCallPiece, Words, decode_piece
from engine.models.protocol import (
    Chunk,
    ReasoningDelta,
    StreamFinish,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageReport,
)
from engine.models.provider_errors import Blame, error_in_stream, error_of_early_end, error_of_nonsense
from engine.records.message import FinishReason
from engine.records.run import Usage

DONE = b"[DONE]"

_REASONS = {
    "stop": FinishReason.END_TURN,
    "eos": FinishReason.END_TURN,
    "length": FinishReason.MAX_TOKENS,
    "tool_calls": FinishReason.TOOL_USE,
    "function_call": FinishReason.TOOL_USE,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _Call:
    """A tool call being put together."""

    def __init__(self, wire_id: str, call_id: str) -> None:
        self.wire_id = wire_id  # empty for a provider that sends none
        self.id = call_id
        self.name = ""


class ChatAnswer:
    """One answer as it comes in. `read` payloads until `is_over`; at the end of the body, `end`."""

    def __init__(self, blame: Blame) -> None:
        self._blame = blame
        self._reason: str | None = None
        self._usage = Usage()
        self._calls: list[_Call] = []
        self._latest: _Call | None = None
        self._call_at: dict[int, _Call] = {}  # by the provider's index
        self._details = Details()
        self._waiting: dict[str, str] = {}  # arguments that came before their call's name
        self._has_begun = False
        self.is_over = False

    @property
    def has_reason(self) -> bool:
        """Whether the provider said why it stopped: everything but the usage is there."""
        return self._reason is not None

    def read(self, payloads: Iterable[bytes]) -> list[Chunk]:
        """The chunks in these payloads. Raises `ModelError`."""
        chunks: list[Chunk] = []
        for payload in payloads:
            if self.is_over:
                break
            if payload == DONE:
                self._finish(chunks)
            elif payload:
                self._read_piece(decode_piece(payload), payload, chunks)
        return chunks

    def end(self) -> list[Chunk]:
        """The body has ended: fine after a reason or `[DONE]`, otherwise a dropped connection."""
        chunks: list[Chunk] = []
        if self.has_reason and not self.is_over:
            self._finish(chunks)
        if not self.is_over:
            raise error_of_early_end(self._blame, has_begun=self._has_begun)
        return chunks

    def _read_piece(self, piece: Piece, payload: bytes, chunks: list[Chunk]) -> None:
        self._has_begun = True
        if piece.error is not None or piece.object == "error":
            raise error_in_stream(payload, self._blame)
        if piece.choices:
            choice = piece.choices[0]
            words = choice.delta or choice.message
            if words is not None:
                self._read_words(words, chunks)
            if choice.finish_reason:
                self._reason = choice.finish_reason
        if piece.usage is not None:
            usage = piece.usage.as_usage()
            if usage != self._usage:
                self._usage = usage
                chunks.append(UsageReport(usage))

    def _read_words(self, words: Words, chunks: list[Chunk]) -> None:
        thought = words.reasoning_content or words.reasoning  # some send both, with the same text
        if thought:
            chunks.append(ReasoningDelta(thought))
        if isinstance(words.reasoning_details, list):
            for piece in words.reasoning_details:
                if isinstance(piece, dict):
                    self._details.add(piece)
        if words.content or words.tool_calls:
            self._end_thought(chunks)
        if words.content:
            chunks.append(TextDelta(words.content))
        if words.refusal:
            chunks.append(TextDelta(words.refusal))
        for call in words.tool_calls or ():
            self._read_call(call, chunks)

    def _end_thought(self, chunks: list[Chunk]) -> None:
        if kept := self._details.take():
            chunks.append(ReasoningDelta("", kept))

    def _read_call(self, piece: ToolCallPiece, chunks: list[Chunk]) -> None:
        name = (piece.function and piece.function.name) or ""
        arguments = (piece.function and piece.function.arguments) or ""
        call = self._call_of(piece, name)
        if not call.name:
            arguments = self._waiting.pop(call.id, "") + arguments
            if not name:
                self._waiting[call.id] = arguments
                return
            call.name = name
            chunks.append(ToolCallStart(call.id, name))
        if arguments:
            chunks.append(ToolCallDelta(call.id, arguments))

    def _call_of(self, piece: ToolCallPiece, name: str) -> _Call:
        """The call that a piece belongs to. Calls may be interleaved. Some providers leave out the index, the id, or
        both, and some give every call the same index: then another id, or a second name, begins another call."""
        call = self._call_at.get(piece.index) if piece.index is not None else self._latest
        if call is None or self._begins_another(call, piece, name):
            taken = {known.id for known in self._calls}
            wire_id = piece.id or ""
            call = _Call(wire_id, wire_id if wire_id and wire_id not in taken else new_call_id())
            self._calls.append(call)
            if piece.index is not None:
                self._call_at[piece.index] = call
        self._latest = call
        return call

    @staticmethod
    def _begins_another(call: _Call, piece: ToolCallPiece, name: str) -> bool:
        if piece.id and piece.id != call.wire_id:
            return bool(name) or piece.index is None
        return bool(name and call.name) and piece.index is None and not piece.id

    def _finish(self, chunks: list[Chunk]) -> None:
        if any(not call.name for call in self._calls):
            raise error_of_nonsense("it called a tool without saying which", self._blame)
        if self._reason in ("error", "insufficient_system_resource"):
            problem = f"it stopped with {self._reason!r}"
            raise ModelError("overloaded", "The provider gave up", self._blame.says(problem))
        self.is_over = True
        self._end_thought(chunks)
        reason = _REASONS.get(self._reason or "", FinishReason.UNKNOWN)
        if self._calls and reason in (FinishReason.END_TURN, FinishReason.UNKNOWN):
            reason = FinishReason.TOOL_USE  # some say `stop` after a call, or nothing
        # Calls may be interleaved, so that none is complete before all are.
        chunks.extend(ToolCallEnd(call.id) for call in self._calls)
        chunks.append(StreamFinish(reason))
