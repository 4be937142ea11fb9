"""The shapes of the chat-completions protocol, as lenient as its many speakers need: a field that some of them leave
out, or fill with null, has a default; one whose type differs between them is an `object`.

OpenRouter wants the details of a thought back as it gave them. They are kept among our own signatures, as JSON after
`details:`.
"""

from collections.abc import Iterable

import msgspec

from engine.errors import ModelError
from engine.records.run import Usage


class FunctionPiece(msgspec.Struct, gc=False):
    """A part of a call's name and arguments."""

    name: str | None = None
    arguments: str | None = None


class Details:
    """The details of one thought, put together from pieces: those of one entry follow each other, and what they have to
    say is cut anywhere."""

    _MARK = "details:"
    _CUT = ("text", "summary", "data")  # what comes in pieces; of the other fields the last one said counts

    def __init__(self) -> None:
        self._entries: list[dict[str, object]] = []

    def add(self, piece: dict[str, object]) -> None:
        """One piece."""
        last = self._entries[-1] if self._entries else None
        if last is None or any(last.get(key) != piece.get(key) for key in ("type", "index")):
            self._entries.append(dict(piece))
            return
        for key, value in piece.items():
            known = last.get(key)
            if key in self._CUT and isinstance(known, str) and isinstance(value, str):
                last[key] = known + value
            elif value is not None or key not in last:
                last[key] = value

    def take(self) -> str:
        """What was put together since it was last asked for, as it is kept; empty if that is nothing."""
        entries, self._entries = self._entries, []
        return self._MARK + msgspec.json.encode(entries).decode() if entries else ""

    @classmethod
    def parse(cls, kept: Iterable[str]) -> list[object]:
        """The entries of what was kept; signatures of other protocols are passed over."""
        return [
            entry
            for each in kept
            if each.startswith(cls._MARK)
            for entry in msgspec.json.decode(each.removeprefix(cls._MARK), type=list[object])
        ]


class ToolCallPiece(msgspec.Struct, gc=False):
    """A part of a call; `index` says of which."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class Words(msgspec.Struct, gc=False):
    """The `delta` of a stream, or the `message` of a server that does not stream."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None  # DeepSeek, vLLM
    reasoning: str | None = None  # OpenRouter, Ollama, newer vLLM
    reasoning_details: object = None  # OpenRouter
    tool_calls: list[ToolCallPiece] | None = None


class Choice(msgspec.Struct, gc=False):
    """One of the answers; we ask for one."""

    delta: Words | None = None
    message: Words | None = None
    finish_reason: str | None = None


class PromptTokens(msgspec.Struct, gc=False):
    """What the prompt's tokens were."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class TokenUsage(msgspec.Struct, gc=False):
    """Tokens; the cached ones are counted in `prompt_tokens` too."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptTokens | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek
    cost: object = None  # OpenRouter: a number; others: a table

    def as_usage(self) -> Usage:
        """The same, with the cached tokens apart."""
        details = self.prompt_tokens_details or PromptTokens()
        read = details.cached_tokens or self.prompt_cache_hit_tokens or 0
        written = details.cache_write_tokens or 0
        return Usage(
            input_tokens=max((self.prompt_tokens or 0) - read - written, 0),
            output_tokens=self.completion_tokens or 0,
            cache_read_tokens=read,
            cache_write_tokens=written,
            cost=float(self.cost) if isinstance(self.cost, int | float) and self.cost is not True else 0.0,
        )


class Piece(msgspec.Struct, gc=False):
    """One event of the stream, or the whole body of an answer that is none."""

    choices: list[Choice] | None = None
    usage: TokenUsage | None = None
    error: object = None
    object: str | None = None  # "error" where vLLM sends an error without an `error` around it


_DECODER = msgspec.json.Decoder(Piece)


def decode_piece(payload: bytes) -> Piece:
    """Read one event. Raises `ModelError("protocol")`."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            "protocol", "The provider sent something that cannot be read", f"a piece of its answer is broken: {error}"
        ) from None
