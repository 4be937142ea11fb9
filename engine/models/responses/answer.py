"""From the events of a Responses stream to chunks. No I/O."""

from collections.abc import Iterable

import msgspec

from engine.models.call_ids import new_call_id
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
from engine.models.responses.wire import Content, Event, Item, ItemSignature, Response, decode_event
from engine.records.message import FinishReason

BETWEEN = "\n\n"  # between two messages of an answer, and between two parts of a summary

_DONE = b"[DONE]"  # said by servers that say it everywhere
_ENDS = {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
_INCOMPLETE = {"max_output_tokens": FinishReason.MAX_TOKENS, "content_filter": FinishReason.CONTENT_FILTER}


class _Call:
    """A call that is being put together."""

    def __init__(self, call_id: str) -> None:
        self.id = call_id
        self.has_input = False


class ResponsesAnswer:
    """One answer as it comes in; `AnswerReader` is its contract. What a server leaves out of the stream is taken from
    the items that it calls done, and what it leaves out of these from the answer at the end."""

    def __init__(self, blame: Blame) -> None:
        self._blame = blame
        self._calls: dict[int, _Call] = {}  # the open ones, by their item
        self._ids: set[str] = set()
        self._characters = 0  # of the message that is being said
        self._has_said = False  # a message before it
        self._has_thought = False  # in the thought that is being told
        self._has_refused = False
        self._has_items = False
        self._has_begun = False
        self.is_over = False

    @property
    def has_reason(self) -> bool:
        return self.is_over  # the last event tells everything

    def read(self, payloads: Iterable[bytes]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for payload in payloads:
            if self.is_over:
                break
            if payload and payload != _DONE:
                self._read_event(decode_event(payload), payload, chunks)
        return chunks

    def end(self) -> list[Chunk]:
        if not self.is_over:
            raise error_of_early_end(self._blame, has_begun=self._has_begun)
        return []

    def _read_event(self, event: Event, payload: bytes, chunks: list[Chunk]) -> None:
        self._has_begun = True
        match event.type:
            case "response.output_text.delta" | "response.refusal.delta":
                self._has_refused |= event.type == "response.refusal.delta"
                self._say(event.delta, chunks)
            case "response.function_call_arguments.delta":
                self._give(event.output_index, event.delta, chunks)
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                self._think(event.delta, chunks)
            case "response.reasoning_summary_part.added" if event.summary_index and self._has_thought:
                self._think(BETWEEN, chunks)
            case "response.output_item.added" if event.item is not None:
                self._begin_item(event.output_index, event.item, chunks)
            case "response.output_item.done" if event.item is not None:
                self._end_item(event.output_index, event.item, chunks)
            case _ if event.type in _ENDS and event.response is not None:
                self._finish(event.response, payload, chunks)
            case "" if event.object == "response":
                self._finish(event, payload, chunks)
            case _ if event.type == "error" or event.error is not None:
                raise error_in_stream(payload, self._blame)
            case _:  # the beginning and the end of parts, or something newer than we are
                pass

    def _say(self, words: str | None, chunks: list[Chunk]) -> None:
        if not words:
            return
        if self._has_said and not self._characters:
            chunks.append(TextDelta(BETWEEN))
        self._characters += len(words)
        chunks.append(TextDelta(words))

    def _think(self, thought: str | None, chunks: list[Chunk]) -> None:
        if thought:
            self._has_thought = True
            chunks.append(ReasoningDelta(thought))

    def _give(self, index: int, given: str | None, chunks: list[Chunk]) -> None:
        call = self._calls.get(index)
        if call is not None and given:
            call.has_input = True
            chunks.append(ToolCallDelta(call.id, given))

    def _begin_item(self, index: int, item: Item, chunks: list[Chunk]) -> None:
        self._has_items = True
        if item.type == "function_call":
            self._begin_call(index, item, chunks)

    def _begin_call(self, index: int, item: Item, chunks: list[Chunk]) -> None:
        if not item.name:
            raise error_of_nonsense("it called a tool without saying which", self._blame)
        self._end_call(index, chunks)
        call_id = item.call_id if item.call_id and item.call_id not in self._ids else new_call_id()
        self._ids.add(call_id)
        self._calls[index] = _Call(call_id)
        chunks.append(ToolCallStart(call_id, item.name))

    def _end_call(self, index: int, chunks: list[Chunk]) -> None:
        if (call := self._calls.pop(index, None)) is not None:
            chunks.append(ToolCallEnd(call.id))

    def _end_item(self, index: int, item: Item, chunks: list[Chunk]) -> None:
        self._has_items = True
        match item.type:
            case "message":
                self._end_message(item, chunks)
            case "reasoning":
                if not self._has_thought:
                    self._think(_joined(item.summary) or _joined(item.content), chunks)
                self._has_thought = False
                if item.encrypted_content:
                    kept = ItemSignature("reasoning", item.encrypted_content, id=item.id or "")
                    chunks.append(ReasoningDelta("", str(kept)))
            case "function_call":
                if index not in self._calls:
                    self._begin_call(index, item, chunks)
                if not self._calls[index].has_input:
                    self._give(index, item.arguments, chunks)
                self._end_call(index, chunks)
            case _:  # a tool of the provider's own, which we did not ask for
                pass

    def _end_message(self, item: Item, chunks: list[Chunk]) -> None:
        if not self._characters:
            self._has_refused |= any(part.refusal for part in item.content or ())
            self._say("".join(part.text or part.refusal or "" for part in item.content or ()), chunks)
        if self._characters:
            self._has_said = True
            if item.phase:
                kept = ItemSignature("message", item.phase, characters=self._characters)
                chunks.append(ReasoningDelta("", str(kept)))
        self._characters = 0

    def _finish(self, response: Response, payload: bytes, chunks: list[Chunk]) -> None:
        if response.error is not None or response.status in ("failed", "cancelled"):
            told = msgspec.json.encode({"error": response.error}) if response.error is not None else payload
            raise error_in_stream(told, self._blame)
        if not self._has_items and not self._has_said:
            for index, item in enumerate(response.output or ()):
                self._end_item(index, item, chunks)
        for index in sorted(self._calls):
            self._end_call(index, chunks)
        if response.usage is not None:
            chunks.append(UsageReport(response.usage.as_usage()))
        self.is_over = True
        chunks.append(StreamFinish(self._reason(response)))

    def _reason(self, response: Response) -> FinishReason:
        if response.status == "incomplete":
            why = response.incomplete_details.reason if response.incomplete_details is not None else None
            return _INCOMPLETE.get(why or "", FinishReason.UNKNOWN)
        if self._ids:
            return FinishReason.TOOL_USE
        return FinishReason.CONTENT_FILTER if self._has_refused else FinishReason.END_TURN


def _joined(parts: list[Content] | None) -> str:
    return BETWEEN.join(part.text for part in parts or () if part.text)
