"""The protocols as a test of all of them speaks: the same words, in the form of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from engine.models.settings import ProviderType
from tests.doubles import anthropic_server as anthropic
from tests.doubles import gemini_server as gemini
from tests.doubles import openai_server as chat
from tests.doubles import responses_server as responses
from tests.doubles.model_server import event


@dataclass(frozen=True)
class Voice:
    """One protocol. What it says is a list of pieces: the beginning of an answer, and its end."""

    type: ProviderType
    path: str  # of a request for `gpt-x`
    bases: tuple[str, ...]  # what a base URL may end with; the first is what people write
    key_header: str
    key_prefix: str
    overloaded: Mapping[str, object]  # as an event in the stream
    too_long: Mapping[str, object]  # as the body of a 400

    def say(self, *words: str) -> list[bytes]:
        """Begin an answer with these words, each in a piece of its own."""
        if self.type == "anthropic":
            opened, *deltas, _ = anthropic.text(0, *words)
            return [anthropic.named(each) for each in (anthropic.start(), opened, *deltas)]
        if self.type == "gemini":
            return [event(gemini.say(word)) for word in words]
        if self.type == "openai":
            *begun, _, _, _ = responses.text(0, *words)
            return [responses.named(each) for each in (*responses.start(), *begun)]
        return [event(chat.say(word)) for word in words]

    def end(self) -> list[bytes]:
        """End it well."""
        if self.type == "anthropic":
            closed = {"type": "content_block_stop", "index": 0}
            return [anthropic.named(each) for each in (closed, *anthropic.stop())]
        if self.type == "gemini":
            return [event(gemini.stop())]
        if self.type == "openai":
            return [responses.named(responses.stop())]
        return [event(chat.stop()), chat.DONE]

    def call(self, call_id: str, name: str, *pieces: str) -> list[bytes]:
        """A whole answer that calls a tool, with its input in pieces."""
        if self.type == "anthropic":
            events = (anthropic.start(), *anthropic.tool_use(0, call_id, name, *pieces), *anthropic.stop("tool_use"))
            return [anthropic.named(each) for each in events]
        if self.type == "gemini":
            called = gemini.piece(gemini.call(name, msgspec.json.decode("".join(pieces)), call_id=call_id))
            return [event(called), event(gemini.stop())]
        if self.type == "openai":
            events = (*responses.start(), *responses.call(0, call_id, name, *pieces), responses.stop())
            return [responses.named(each) for each in events]
        more = (event(chat.call(arguments=piece)) for piece in pieces)
        return [event(chat.call(id=call_id, name=name)), *more, event(chat.stop("tool_calls")), chat.DONE]


VOICES = [
    Voice(
        type="openai-compat",
        path="/v1/chat/completions",
        bases=("/v1", "/v1/", "/v1/chat/completions"),
        key_header="authorization",
        key_prefix="Bearer ",
        overloaded={"error": {"message": "busy", "code": 529}},
        too_long={"error": {"message": "too long", "code": "context_length_exceeded"}},
    ),
    Voice(
        type="openai",
        path="/v1/responses",
        bases=("/v1", "/v1/", "/v1/responses"),
        key_header="authorization",
        key_prefix="Bearer ",
        overloaded=responses.error("server_is_overloaded", "Our servers are currently overloaded."),
        too_long={"error": {"message": "Your input exceeds the context window.", "code": "context_length_exceeded"}},
    ),
    Voice(
        type="anthropic",
        path="/v1/messages",
        bases=("", "/", "/v1", "/v1/", "/v1/messages"),
        key_header="x-api-key",
        key_prefix="",
        overloaded=anthropic.error("overloaded_error", "Overloaded"),
        too_long=anthropic.error("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
    ),
    Voice(
        type="gemini",
        path="/v1beta/models/gpt-x:streamGenerateContent?alt=sse",
        bases=("", "/", "/v1beta", "/v1beta/"),
        key_header="x-goog-api-key",
        key_prefix="",
        overloaded=gemini.error(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
        too_long=gemini.error(
            400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."
        ),
    ),
]
