"""OpenAI's own SDK as an oracle of chat completions: it hears what our client hears, and would send what it sends."""

from functools import cache
from typing import Any

import msgspec
import openai
import pydantic
import pytest
import trio
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import completion_create_params as params

from engine.models.protocol import ModelInfo
from engine.models.provider import open_provider
from engine.records.message import FinishReason
from engine.records.run import Usage
from tests.doubles.openai_server import ModelServer, Reply, answer, call, piece, refusal, say, stop, used
from tests.engine.models.asking import ask, endpoint, flat
from tests.engine.models.oracle import Whole, conversations, materialized, openai_client, put_together

pytestmark = pytest.mark.slow

INFO = ModelInfo(
    id="m", provider="test", name="M", default_max_tokens=64_000, can_reason=True, supports_attachments=True
)
REASONS = {
    "stop": FinishReason.END_TURN,
    "tool_calls": FinishReason.TOOL_USE,
    "length": FinishReason.MAX_TOKENS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


@cache
def schema() -> Any:
    """What the SDK takes for a request."""
    return pydantic.TypeAdapter(params.CompletionCreateParamsStreaming)


async def heard_by_sdk(server: ModelServer) -> Whole:
    """What the SDK makes of the next reply."""
    return await trio.to_thread.run_sync(read_with_sdk, server)


def read_with_sdk(server: ModelServer) -> Whole:
    """Ask, and put the pieces together."""
    asked: dict[str, Any] = {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream_options": {"include_usage": True},
    }
    state = ChatCompletionStreamState()
    with openai_client(server) as client:
        for chunk in client.chat.completions.create(**asked, stream=True):
            state.handle_chunk(chunk)
    completion = state.current_completion_snapshot
    [choice] = completion.choices
    said = choice.message
    whole = Whole(text=(said.content or "") + (said.refusal or ""), reason=REASONS[choice.finish_reason])
    whole.calls = [
        (each.function.name, msgspec.json.decode(each.function.arguments or "{}")) for each in said.tool_calls or ()
    ]
    if (count := completion.usage) is not None:
        cached = (count.prompt_tokens_details and count.prompt_tokens_details.cached_tokens) or 0
        whole.usage = Usage(count.prompt_tokens - cached, count.completion_tokens, cached)
    return whole


@pytest.mark.parametrize(
    "reply",
    [
        answer(say("Grüße "), say("😀"), stop(), used(7, 3)),
        answer(say("x"), stop("length"), used(100, 20, cached=60)),
        answer(say("x"), stop("content_filter"), used(1, 1)),
        answer(piece({"role": "assistant", "refusal": "I won't."}), stop(), used(1, 1)),
        answer(say("I look."), call(0, id="a", name="look", arguments=""), call(0, arguments='{"p'),
               call(0, arguments='ath":"ü"}'), call(1, id="b", name="wait", arguments="{}"), stop("tool_calls"),
               used(1, 1)),
        answer(call(0, id="a", name="look", arguments=""), call(1, id="b", name="look", arguments='{"y"'),
               call(0, arguments='{"x":1}'), call(1, arguments=":2}"), stop("tool_calls"), used(1, 1)),
    ],
)  # fmt: skip
async def test_the_sdk_hears_what_our_client_hears(reply: Reply, server: ModelServer) -> None:
    server.enqueue(reply, reply)
    async with open_provider(endpoint(server.base_url)) as provider:
        ours = put_together(flat(await ask(provider.model(INFO))))
    assert ours == await heard_by_sdk(server)


@pytest.mark.parametrize(
    "reply",
    [
        refusal(429, {"error": {"code": "rate_limit_exceeded", "message": "slow down", "type": "requests"}}),
        refusal(401, {"error": {"code": "invalid_api_key", "message": "who are you", "type": "auth"}}),
        answer(say("x"), {"error": {"code": "server_error", "message": "broken"}}),
    ],
)
async def test_the_sdk_is_refused_when_our_client_is(reply: Reply, server: ModelServer) -> None:
    server.enqueue(reply)
    with pytest.raises(openai.APIError) as caught:
        await heard_by_sdk(server)
    assert caught.value.code
    assert caught.value.code in str(reply.moves)


def send_with_sdk(server: ModelServer, body: dict[str, Any]) -> None:
    """Have the SDK send what a body of ours says."""
    with openai_client(server) as client:
        client.chat.completions.create(**body).close()


@pytest.mark.parametrize("number", range(4))
async def test_the_sdk_would_send_what_our_client_sends(number: int, server: ModelServer) -> None:
    asked = list(conversations(""))[number]
    server.default = answer(say("x"), stop())
    async with open_provider(endpoint(server.base_url)) as provider:
        await ask(provider.model(INFO), asked)
    ours = server.requests[0]
    assert materialized(schema().validate_python(ours.body)) == ours.body
    await trio.to_thread.run_sync(send_with_sdk, server, ours.body)
    theirs = server.requests[1]
    assert theirs.body == ours.body
    assert theirs.path == ours.path
    for name in ("authorization", "content-type"):
        assert theirs.headers[name] == ours.headers[name]
