"""OpenAI's own SDK as an oracle of Responses: it hears what our client hears, and would send what our client sends."""

from functools import cache
from typing import Any

import msgspec
import openai
import pydantic
import pytest
import trio
from openai.types.responses import response_create_params as params

from engine.models.protocol import ModelInfo
from engine.models.provider import open_provider
from engine.models.responses.wire import ItemSignature
from engine.records.message import FinishReason
from engine.records.run import Usage
from tests.doubles.model_server import ModelServer, Reply, refusal
from tests.doubles.responses_server import Event, answer, call, error, failed, refuse, stop, text, think, used
from tests.engine.models.asking import ask, endpoint, flat
from tests.engine.models.oracle import Whole, conversations, materialized, openai_client, put_together

pytestmark = pytest.mark.slow

INFO = ModelInfo(
    id="m", provider="test", name="M", default_max_tokens=64_000, can_reason=True, supports_attachments=True
)
INCOMPLETE = {"max_output_tokens": FinishReason.MAX_TOKENS, "content_filter": FinishReason.CONTENT_FILTER}


@cache
def schema() -> Any:
    """What the SDK takes for a request."""
    return pydantic.TypeAdapter(params.ResponseCreateParamsStreaming)


async def heard_by_sdk(server: ModelServer) -> Whole:
    """What the SDK makes of the next reply."""
    whole = Whole()
    for heard in await trio.to_thread.run_sync(read_with_sdk, server):
        if heard.type == "response.output_item.done":
            hear_item(heard.item, whole)
        if heard.type in ("response.completed", "response.incomplete"):
            hear_end(heard.response, whole)
    return whole


def read_with_sdk(server: ModelServer) -> list[Any]:
    """The events of the next reply."""
    with openai_client(server) as client:
        return list(client.responses.create(model="m", input="hi", stream=True))


def send_with_sdk(server: ModelServer, body: dict[str, Any]) -> None:
    """Have the SDK send what a body of ours says."""
    with openai_client(server) as client:
        client.responses.create(**body).close()


def hear_item(item: Any, whole: Whole) -> None:
    """One item, as the SDK read it."""
    match item.type:
        case "message":
            whole.text += "".join(part.text if part.type == "output_text" else part.refusal for part in item.content)
            if any(part.type == "refusal" for part in item.content):
                whole.reason = FinishReason.CONTENT_FILTER
            if item.phase:
                kept = ItemSignature("message", item.phase, characters=len(item.content[0].text))
                whole.signatures.append(str(kept))
        case "reasoning":
            whole.thinking += "\n\n".join(part.text for part in item.summary)
            whole.signatures.append(f"reasoning:{item.id}:{item.encrypted_content}")
        case "function_call":
            whole.calls.append((item.name, msgspec.json.decode(item.arguments)))
            whole.reason = FinishReason.TOOL_USE


def hear_end(response: Any, whole: Whole) -> None:
    """The end, as the SDK read it."""
    if response.status == "incomplete":
        whole.reason = INCOMPLETE[response.incomplete_details.reason]
    elif whole.reason is FinishReason.UNKNOWN:
        whole.reason = FinishReason.END_TURN
    count, details = response.usage, response.usage.input_tokens_details
    fresh = count.input_tokens - details.cached_tokens - details.cache_write_tokens
    whole.usage = Usage(fresh, count.output_tokens, details.cached_tokens, details.cache_write_tokens)


@pytest.mark.parametrize(
    "reply",
    [
        answer(*text(0, "Grüße ", "😀"), stop()),
        answer(*think(0, "hm", "so"), *think(1, encrypted="bW9yZQ=="), *text(2, "So.", phase="final_answer"),
               stop(why="max_output_tokens")),
        answer(*text(0, "x"), stop(why="content_filter")),
        answer(*refuse(0, "I ", "won't."), stop()),
        answer(*think(0), *text(1, "I look.", phase="commentary"), *call(2, "a", "look", '{"p', 'ath":"ü"}'),
               *call(3, "b", "wait", "{}"), stop()),
        answer(*text(0, "x"), stop(usage=used(100, 50, cached=60, written=15, reasoning=30))),
    ],
)  # fmt: skip
async def test_the_sdk_hears_what_our_client_hears(reply: Reply, server: ModelServer) -> None:
    server.enqueue(reply, reply)
    async with open_provider(msgspec.structs.replace(endpoint(server.base_url), type="openai")) as provider:
        ours = put_together(flat(await ask(provider.model(INFO))))
    assert ours == await heard_by_sdk(server)


@pytest.mark.parametrize(
    "reply",
    [
        refusal(429, {"error": {"code": "rate_limit_exceeded", "message": "slow down", "type": "requests"}}),
        refusal(401, {"error": {"code": "invalid_api_key", "message": "who are you", "type": "auth"}}),
        answer(*text(0, "x"), {"type": "error", "error": {"code": "server_error", "message": "broken"}}),
    ],
)
async def test_the_sdk_is_refused_when_our_client_is(reply: Reply, server: ModelServer) -> None:
    server.enqueue(reply)
    with pytest.raises(openai.APIError) as caught:
        await heard_by_sdk(server)
    assert caught.value.code
    assert caught.value.code in str(reply.moves)


@pytest.mark.parametrize("event", [failed("rate_limit_exceeded", "slow"), error("rate_limit_exceeded", "slow")])
async def test_the_sdk_knows_the_errors_that_our_client_is_told_of(event: Event, server: ModelServer) -> None:
    server.enqueue(answer(*text(0, "x"), event))
    *_, last = await trio.to_thread.run_sync(read_with_sdk, server)
    told = last if last.type == "error" else last.response.error
    assert (last.type, told.code, told.message) == (event["type"], "rate_limit_exceeded", "slow")


@pytest.mark.parametrize("number", range(4))
async def test_the_sdk_would_send_what_our_client_sends(number: int, server: ModelServer) -> None:
    asked = list(conversations(str(ItemSignature("reasoning", "c2VjcmV0", id="rs_1"))))[number]
    server.default = answer(*text(0, "x"), stop())
    async with open_provider(msgspec.structs.replace(endpoint(server.base_url), type="openai")) as provider:
        await ask(provider.model(INFO), asked)
    ours = server.requests[0]
    assert materialized(schema().validate_python(ours.body)) == ours.body
    await trio.to_thread.run_sync(send_with_sdk, server, ours.body)
    theirs = server.requests[1]
    assert theirs.body == ours.body
    assert theirs.path == ours.path
    for name in ("authorization", "content-type"):
        assert theirs.headers[name] == ours.headers[name]
