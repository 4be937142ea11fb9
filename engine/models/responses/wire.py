"""The events of a Responses stream, as far as we read them; and what of an answer is kept among our own signatures.

Nothing is stored at the provider, so that it wants back what only it can read: the encrypted thought of a reasoning
item, kept as `reasoning:ID:…`, and the phase of a message, kept with its number of characters as `message12:…`.
"""

import re

import msgspec

from engine.errors import ModelError
from engine.records.run import Usage

_KEPT = re.compile(r"(reasoning|message)(\d*):(?:([^:]*):)?(.+)", re.DOTALL)


class ItemSignature(msgspec.Struct, frozen=True):
    """What an item of an answer leaves behind: of a thought its id and what was encrypted, of a message its phase and
    its number of characters."""

    kind: str
    value: str
    id: str = ""
    characters: int = 0

    def __str__(self) -> str:
        if self.kind == "message":
            return f"message{self.characters}:{self.value}"
        return f"{self.kind}:{self.id}:{self.value}"

    @classmethod
    def parse(cls, kept: str) -> "ItemSignature | None":
        """What was kept; None for what came from another protocol."""
        found = _KEPT.fullmatch(kept)
        return cls(found[1], found[4], found[3] or "", int(found[2] or 0)) if found else None


class Content(msgspec.Struct, gc=False):
    """Words of a message, a refusal, or a part of a thought."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None


class Item(msgspec.Struct, gc=False):
    """A message, a thought or a call."""

    type: str = ""
    id: str | None = None
    content: list[Content] | None = None
    summary: list[Content] | None = None  # of a thought, as the next
    encrypted_content: str | None = None
    phase: str | None = None  # of a message
    call_id: str | None = None  # of a call, as the rest
    name: str | None = None
    arguments: str | None = None


class InputTokens(msgspec.Struct, gc=False):
    """What the prompt's tokens were."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class TokenUsage(msgspec.Struct, gc=False):
    """Tokens; the cached ones are counted in `input_tokens` too, and thoughts in `output_tokens`."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    input_tokens_details: InputTokens | None = None
    cost: object = None  # OpenRouter

    def as_usage(self) -> Usage:
        """The same, with the cached tokens apart."""
        details = self.input_tokens_details or InputTokens()
        read, written = details.cached_tokens or 0, details.cache_write_tokens or 0
        return Usage(
            input_tokens=max((self.input_tokens or 0) - read - written, 0),
            output_tokens=self.output_tokens or 0,
            cache_read_tokens=read,
            cache_write_tokens=written,
            cost=float(self.cost) if isinstance(self.cost, int | float) and self.cost is not True else 0.0,
        )


class IncompleteDetails(msgspec.Struct, gc=False):
    """Why an answer is not whole."""

    reason: str | None = None


class Response(msgspec.Struct, gc=False):
    """The whole answer, as it stands."""

    status: str | None = None
    output: list[Item] | None = None
    usage: TokenUsage | None = None
    incomplete_details: IncompleteDetails | None = None
    error: object = None


class Event(Response, gc=False):
    """One event of any type; or the whole answer, of a server that does not stream."""

    type: str = ""
    object: str | None = None  # "response" for a whole answer
    output_index: int = 0
    summary_index: int = 0
    item: Item | None = None
    delta: str | None = None
    arguments: str | None = None
    response: Response | None = None


_DECODER = msgspec.json.Decoder(Event)


def decode_event(payload: bytes) -> Event:
    """Read one event. Raises `ModelError("protocol")`."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            "protocol", "The provider sent something that cannot be read", f"a piece of its answer is broken: {error}"
        ) from None
