"""Anthropic's own SDK as an oracle: it hears what our client hears, and would send what our client sends."""

from functools import cache
from typing import Any

import anthropic
import msgspec
import pydantic
import pytest
import trio
from anthropic.types import message_create_params as params

from engine.models.protocol import ModelInfo
from engine.models.provider import open_provider
from engine.records.message import FinishReason
from engine.records.run import Usage
from tests.doubles.anthropic_server import answer, error, redacted, start, stop, text, thinking, tool_use
from tests.doubles.model_server import ModelServer, Reply, refusal
from tests.engine.models.asking import KEY, ask, endpoint, flat
from tests.engine.models.oracle import Whole, anthropic_client, conversations, materialized, put_together

pytestmark = pytest.mark.slow

INFO = ModelInfo(
    id="m", provider="test", name="M", default_max_tokens=64_000, can_reason=True, supports_attachments=True
)
REASONS = {
    "end_turn": FinishReason.END_TURN,
    "tool_use": FinishReason.TOOL_USE,
    "max_tokens": FinishReason.MAX_TOKENS,
    "refusal": FinishReason.CONTENT_FILTER,
}


@cache
def schema() -> Any:
    """What the SDK takes for a request."""
    return pydantic.TypeAdapter(params.MessageCreateParamsStreaming)


async def heard_by_sdk(server: ModelServer) -> Whole:
    """What the SDK makes of the next reply."""
    message = await trio.to_thread.run_sync(read_with_sdk, server)
    whole = Whole(reason=REASONS[message.stop_reason])
    for block in message.content:
        match block.type:
            case "text":
                whole.text += block.text
            case "thinking":
                whole.thinking += block.thinking
                whole.signatures.append(block.signature)
            case "redacted_thinking":
                whole.signatures.append(f"redacted:{block.data}")
            case "tool_use":
                whole.calls.append((block.name, block.input))
    used = message.usage
    whole.usage = Usage(
        used.input_tokens, used.output_tokens, used.cache_read_input_tokens, used.cache_creation_input_tokens
    )
    return whole


def read_with_sdk(server: ModelServer) -> Any:
    """Ask, and put the message together."""
    asked: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
    with anthropic_client(server) as client, client.messages.stream(**asked) as stream:
        return stream.get_final_message()


def send_with_sdk(server: ModelServer, body: dict[str, Any]) -> None:
    """Have the SDK send what a body of ours says."""
    with anthropic_client(server) as client:
        client.messages.create(**body).close()


def client_of(server: ModelServer, info: ModelInfo = INFO) -> Any:
    """Our client of the server, as a context."""
    return open_provider(msgspec.structs.replace(endpoint(server.base_url), type="anthropic"))


@pytest.mark.parametrize(
    "reply",
    [
        answer(*text(0, "Grüße ", "😀"), *stop()),
        answer(*thinking(0, "h", "m"), *redacted(1, "ZGF0YQ=="), *text(2, "So."), *stop("max_tokens")),
        answer(*thinking(0), *text(1, "So."), *stop("refusal")),
        answer(*text(0, "I look."), *tool_use(1, "a", "look", '{"p', 'ath":"ü"}'), *tool_use(2, "b", "wait"),
               *stop("tool_use")),
        answer(start(input_tokens=9, cache_read_input_tokens=8, cache_creation_input_tokens=7), *text(0, "x"),
               *stop(output_tokens=30), begin=False),
        answer(*text(0, "x"), *stop(input_tokens=30, cache_read_input_tokens=4)),
    ],
)  # fmt: skip
async def test_the_sdk_hears_what_our_client_hears(reply: Reply, server: ModelServer) -> None:
    server.enqueue(reply, reply)
    async with client_of(server) as provider:
        ours = put_together(flat(await ask(provider.model(INFO))))
    assert ours == await heard_by_sdk(server)


@pytest.mark.parametrize(
    "reply",
    [
        refusal(529, error("overloaded_error", "Overloaded")),
        answer(*text(0, "x"), error("overloaded_error", "Overloaded")),
        refusal(401, error("authentication_error", "invalid x-api-key")),
    ],
)
async def test_the_sdk_is_refused_when_our_client_is(reply: Reply, server: ModelServer) -> None:
    server.enqueue(reply)
    with pytest.raises(anthropic.APIStatusError) as caught:
        await heard_by_sdk(server)
    body: Any = caught.value.body
    assert body["error"]["type"] in str(reply.moves)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("thinks_by", ["effort", "budget"])
async def test_the_sdk_would_send_what_our_client_sends(number: int, thinks_by: Any, server: ModelServer) -> None:
    info = msgspec.structs.replace(INFO, thinks_by=thinks_by)
    asked = list(conversations("c2lnbmVk"))[number]
    server.default = answer(*text(0, "x"), *stop())
    async with client_of(server) as provider:
        await ask(provider.model(info), asked)
    ours = server.requests[0]
    assert materialized(schema().validate_python(ours.body)) == ours.body
    await trio.to_thread.run_sync(send_with_sdk, server, ours.body)
    theirs = server.requests[1]
    assert theirs.body == ours.body
    assert theirs.path == ours.path
    assert theirs.headers["content-type"] == ours.headers["content-type"]
    # Since October 2026 the SDK speaks a newer version, and sends the key as others do; the older ways go on working.
    assert (ours.headers["x-api-key"], theirs.headers["authorization"]) == (KEY, f"Bearer {KEY}")
    assert ours.headers["anthropic-version"] <= theirs.headers["anthropic-version"]
