"""What the tests against the providers' own SDKs have in common: conversations, answers put together, and schemas."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import anthropic
import httpx2
import msgspec
import openai

from engine.models.protocol import (
    Chunk,
    ModelMessage,
    ModelRequest,
    ModelToolResult,
    ReasoningDelta,
    StreamFinish,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    ToolSpec,
    UsageReport,
)
from engine.records.message import Attachment, FinishReason, Reasoning, ToolCall
from engine.records.run import Usage
from tests.doubles.model_server import ModelServer
from tests.engine.models.asking import KEY, assistant, request, user

LOOK = ToolSpec("look", "Looks.", {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]})
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
IMAGE = Attachment("/a/dot.png", "dot.png", "image/png", PIXEL)
NOTES = Attachment("/a/notes.md", "notes.md", "text/markdown", "R3LDvMOfZQ==")


class Whole(msgspec.Struct):
    """An answer put together."""

    text: str = ""
    thinking: str = ""
    signatures: list[str] = []
    calls: list[tuple[str, object]] = []  # name and input
    reason: FinishReason = FinishReason.UNKNOWN
    usage: Usage = Usage()


def put_together(chunks: Iterable[Chunk]) -> Whole:
    """What our client heard."""
    whole = Whole()
    names: dict[str, str] = {}
    inputs: dict[str, str] = {}
    for chunk in chunks:
        match chunk:
            case TextDelta(text):
                whole.text += text
            case ReasoningDelta(text, signature):
                whole.thinking += text
                whole.signatures += [signature] if signature else []
            case ToolCallStart(call_id, name):
                names[call_id], inputs[call_id] = name, ""
            case ToolCallDelta(call_id, text):
                inputs[call_id] += text
            case UsageReport(usage):
                whole.usage = usage
            case StreamFinish(reason):
                whole.reason = reason
            case _:
                pass
    whole.calls = [(names[call_id], msgspec.json.decode(given or "{}")) for call_id, given in inputs.items()]
    return whole


def conversations(signature: str, *, call_id: str = "call_1") -> Iterator[ModelRequest]:
    """Requests with everything in them that a session may hold; the thoughts are signed like this."""
    yield request(user("hi"), system="")
    yield msgspec.structs.replace(request(user("look", IMAGE, NOTES)), tools=(LOOK,), max_tokens=4_000)
    shown = ModelToolResult(call_id, "a dot", mime_type="image/png", data=PIXEL)
    failed = ModelToolResult(f"{call_id}b", "no such file", is_error=True)
    calls = (ToolCall(call_id, "look", '{"path":"ä"}'), ToolCall(f"{call_id}b", "look", '{"path":"b"}'))
    history = (
        user("look"), assistant(Reasoning("hm", signature), "I look.", *calls),
        ModelMessage(role="tool", tool_results=(shown, failed)), user("be quick"),
    )  # fmt: skip
    yield msgspec.structs.replace(request(*history), tools=(LOOK, LOOK), reasoning_effort="low")
    yield request(*history, assistant(Reasoning("", signature), "A dot."), user("thanks"))


def materialized(value: Any) -> Any:
    """What a schema has let through, with its lazy sequences read: reading them is what checks them."""
    if isinstance(value, Mapping):
        return {key: materialized(each) for key, each in value.items()}
    if isinstance(value, str | bytes | int | float | None):
        return value
    return [materialized(each) for each in value]


def openai_client(server: ModelServer) -> openai.OpenAI:
    """OpenAI's own client of the server. The asynchronous ones leave generators to the garbage collector, which Trio
    resents: they are for asyncio. This one blocks, so it belongs in a thread."""
    return openai.OpenAI(api_key=KEY, base_url=server.base_url, max_retries=0, http_client=plain_http())


def anthropic_client(server: ModelServer) -> anthropic.Anthropic:
    """Anthropic's."""
    return anthropic.Anthropic(api_key=KEY, base_url=server.root, max_retries=0, http_client=plain_http())


def plain_http() -> httpx2.Client:
    """What both speak HTTP with; without the certificates, which take longer to load than all the rest."""
    return httpx2.Client(trust_env=False, verify=False, timeout=10)
