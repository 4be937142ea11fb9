"""The OpenAI-compatible client against a server that speaks the protocol, well and badly, over real sockets."""

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from engine.errors import ConfigInvalid, ModelError
from engine.models.openai import Endpoint, OpenAIModel, OpenAIProvider, open_openai
from engine.models.protocol import (
    Chunk,
    ModelInfo,
    ReasoningDelta,
    StreamFinish,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageReport,
)
from engine.models.retry import with_retries
from engine.models.settings import Secret
from engine.models.statistics import RequestStatistics
from engine.records.message import FinishReason
from engine.records.run import Usage
from tests.doubles.openai_server import (
    CUT,
    DONE,
    HANG,
    RESET,
    OpenAIServer,
    Reply,
    answer,
    call,
    event,
    open_openai_server,
    refusal,
    say,
    split,
    stop,
    think,
    used,
)
from tests.engine.models.asking import ask, flat, request, text_of, user

pytestmark = pytest.mark.slow

KEY = "sk-hidden-1234567890"
INFO = ModelInfo(id="gpt-x", provider="test", name="GPT X")


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    with trio.fail_after(20):
        async with open_openai_server() as running:
            yield running


def endpoint(base_url: str, *, key: str | None = KEY, read_timeout_s: float = 10.0) -> Endpoint:
    return Endpoint(
        provider="test", name="Test", base_url=base_url, api_key=Secret(key) if key else None,
        connect_timeout_s=5.0, read_timeout_s=read_timeout_s,
    )  # fmt: skip


@pytest.fixture
async def provider(server: OpenAIServer) -> AsyncIterator[OpenAIProvider]:
    async with open_openai(endpoint(server.base_url)) as opened:
        yield opened


@pytest.fixture
def model(provider: OpenAIProvider) -> OpenAIModel:
    return provider.model(INFO)


async def fails(model: OpenAIModel) -> ModelError:
    """How asking fails."""
    with pytest.raises(ModelError) as caught:
        await ask(model)
    assert KEY not in f"{caught.value}{caught.value!r}"
    return caught.value


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_a_whole_answer_comes_through(server: OpenAIServer, provider: OpenAIProvider, model: OpenAIModel) -> None:
    server.enqueue(
        answer(
            think("hm"), say("Grüße "), say("😀"), call(id="a", name="look", arguments='{"x"'), call(arguments=":1}"),
            stop("tool_calls"), used(10, 4, cached=6),
        )
    )  # fmt: skip
    assert flat(await ask(model, request(user("hi")))) == [
        ReasoningDelta("hm"),
        TextDelta("Grüße "),
        TextDelta("😀"),
        ToolCallStart("a", "look"),
        ToolCallDelta("a", '{"x"'),
        ToolCallDelta("a", ":1}"),
        UsageReport(Usage(4, 4, 6)),
        ToolCallEnd("a"),
        StreamFinish(FinishReason.TOOL_USE),
    ]
    [seen] = server.requests
    assert seen.path == "/v1/chat/completions"
    assert seen.body["model"] == "gpt-x"
    assert seen.body["messages"][-1] == {"role": "user", "content": "hi"}
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-type"] == "application/json"
    assert provider.statistics() == RequestStatistics(opened=1, closed=1)


async def test_what_arrives_together_comes_as_one_batch(server: OpenAIServer, model: OpenAIModel) -> None:
    together = event(say("a")) + event(say("b")) + event(say("c"))
    server.enqueue(answer(together, stop()))
    assert (await ask(model))[0] == (TextDelta("a"), TextDelta("b"), TextDelta("c"))


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_reads_may_cut_the_stream_anywhere(size: int, server: OpenAIServer, model: OpenAIModel) -> None:
    stream = event(say("Grüße 😀"), newline=b"\r\n") + b": keep-alive\n\n" + event(stop()) + DONE
    server.enqueue(Reply(tuple(split(stream, range(size, len(stream), size)))))
    assert text_of(await ask(model)) == "Grüße 😀"


async def test_a_first_word_is_heard_before_the_second_is_said(server: OpenAIServer, model: OpenAIModel) -> None:
    gate = trio.Event()
    server.enqueue(answer(say("first"), gate, say("second"), stop()))
    async with model.open_stream(request()) as stream:
        assert await anext(stream) == (TextDelta("first"),)
        gate.set()
        assert await anext(stream) == (TextDelta("second"),)


async def test_a_server_without_a_key_gets_none(server: OpenAIServer) -> None:
    server.enqueue(answer(say("x"), stop()))
    async with open_openai(endpoint(server.base_url, key=None)) as provider:
        await ask(provider.model(INFO))
    assert "authorization" not in server.requests[0].headers


async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    server.enqueue(answer(say("x"), stop()))
    async with open_openai(endpoint(server.base_url)) as provider:
        assert text_of(await ask(provider.model(INFO))) == "x"


async def test_a_finished_answer_leaves_its_connection_to_the_next(server: OpenAIServer, model: OpenAIModel) -> None:
    for _ in range(3):
        server.enqueue(answer(say("x"), stop()))
        await ask(model)
    assert server.connections == 1


async def test_an_answer_without_done_or_in_one_document_is_complete(server: OpenAIServer, model: OpenAIModel) -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "all"}, "finish_reason": "stop"}]}
    server.enqueue(answer(say("x"), stop(), done=False), answer(say("y"), stop(), CUT), refusal(200, whole))
    assert [text_of(await ask(model)) for _ in range(3)] == ["x", "y", "all"]


async def test_more_streams_than_a_pool_holds_run_at_once(server: OpenAIServer, model: OpenAIModel) -> None:
    gate = trio.Event()
    server.default = answer(say("x"), gate, stop())
    many = 150
    async with trio.open_nursery() as nursery:
        for _ in range(many):
            nursery.start_soon(ask, model)
        await server.wait_request(many)
        gate.set()


# -- R10: whoever stops listening closes the connection ----------------------------------------------------------------


async def between_batches(model: OpenAIModel) -> None:
    async with model.open_stream(request()) as stream:
        await anext(stream)
        await trio.sleep_forever()


async def within_a_batch(model: OpenAIModel) -> None:
    await ask(model)


@pytest.mark.parametrize("listen", [between_batches, within_a_batch])
@pytest.mark.parametrize("moves", [(say("x"), HANG), (HANG,)], ids=["in the middle", "before the first word"])
async def test_r10_cancelling_closes_the_connection_at_once(
    listen: Callable[[OpenAIModel], Awaitable[None]],
    moves: tuple[Any, ...],
    server: OpenAIServer,
    provider: OpenAIProvider,
) -> None:
    server.enqueue(answer(*moves))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, provider.model(INFO))
        seen = await server.wait_request()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not seen.gone.is_set()
        assert provider.statistics().open == 1
        nursery.cancel_scope.cancel()
    assert provider.statistics().open == 0
    await seen.gone.wait()
    assert not seen.answered.is_set()
    gc.collect()  # nothing is left half-way for Trio to complain of


async def test_r10_cancelling_before_the_answer_begins_closes_the_connection() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    with trio.fail_after(20):
        async with (
            listener,
            open_openai(endpoint(f"http://127.0.0.1:{port}/v1")) as silent,
            trio.open_nursery() as nursery,
        ):
            canceled = trio.CancelScope()

            async def ask_in_vain() -> None:
                with canceled:
                    await ask(silent.model(INFO))

            nursery.start_soon(ask_in_vain)
            async with await listener.accept() as connection:
                assert await connection.receive_some()
                canceled.cancel()
                assert await connection.receive_some() == b""
    assert silent.statistics() == RequestStatistics(opened=1, closed=1)


async def test_r10_leaving_early_closes_the_connection(server: OpenAIServer, model: OpenAIModel) -> None:
    server.enqueue(answer(say("x"), HANG))
    async with model.open_stream(request()) as stream:
        await anext(stream)
    await (await server.wait_request()).gone.wait()
    gc.collect()


async def test_r10_a_listener_that_fails_closes_the_connection_and_is_told_of_its_own_error(
    server: OpenAIServer, model: OpenAIModel
) -> None:
    async def listen() -> None:
        async with model.open_stream(request()) as stream:
            await anext(stream)
            raise KeyError("mine")

    server.enqueue(answer(say("x"), HANG))
    with pytest.raises(KeyError, match="mine"):
        await listen()
    await (await server.wait_request()).gone.wait()


async def test_a_canceled_stream_harms_no_other(server: OpenAIServer, model: OpenAIModel) -> None:
    gate = trio.Event()
    server.enqueue(answer(say("x"), HANG), answer(say("y"), gate, say("z"), stop()))
    said: list[str] = []

    async def listen() -> None:
        said.append(text_of(await ask(model)))

    async with trio.open_nursery() as outer:
        async with trio.open_nursery() as inner:
            inner.start_soon(ask, model)
            await server.wait_request(1)
            outer.start_soon(listen)
            await server.wait_request(2)
            inner.cancel_scope.cancel()
        gate.set()
    assert said == ["yz"]


# -- R20: failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [CUT, RESET])
@pytest.mark.parametrize("before", [(), (say("par"),)])
async def test_r20_a_dropped_connection_is_told_after_what_was_said(
    end: Any, before: tuple[Any, ...], server: OpenAIServer, provider: OpenAIProvider
) -> None:
    server.enqueue(answer(*before, 0.01, end))
    said: list[Chunk] = []

    async def listen() -> None:
        async with provider.model(INFO).open_stream(request()) as stream:
            async for batch in stream:
                said.extend(batch)

    with pytest.raises(ModelError) as caught:
        await listen()
    assert caught.value.kind == "connection"
    assert len(said) == len(before)
    assert provider.statistics().open == 0
    gc.collect()


@pytest.mark.parametrize(
    ("reply", "kind", "retry_after"),
    [
        (refusal(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), "authentication", None),
        (refusal(404, {"error": {"message": "no such model", "code": "model_not_found"}}), "not_found", None),
        (refusal(429, {"error": {"message": "slow down"}}, {"Retry-After": "3"}), "rate_limit", 3),
        (refusal(429, {"error": {"message": "slow down"}}, {"Retry-After-Ms": "1500"}), "rate_limit", 1.5),
        (refusal(400, {"error": {"message": "x", "code": "context_length_exceeded"}}), "context_length", None),
        (refusal(500, "<h1>Oops</h1>", {"Content-Type": "text/html"}), "server", None),
        (refusal(503, ""), "overloaded", None),
        (refusal(500, "x" * 1_000_000), "server", None),
        (Reply((b"{", CUT), status=500), "server", None),
        (refusal(200, {"error": {"message": "x", "code": 529}}), "overloaded", None),
        (answer(say("x"), {"error": {"message": "x", "code": 429}}), "rate_limit", None),
        (answer(say("x"), b"data: {broken\n\n"), "protocol", None),
        (answer(say("x"), b"data: " + b"x" * 9_000_000), "protocol", None),
        (answer(say("x"), done=False), "connection", None),
        (answer(done=False), "connection", None),
    ],
)
async def test_r20_refusals_and_broken_answers_have_their_kinds(
    reply: Reply, kind: str, retry_after: float | None, server: OpenAIServer, provider: OpenAIProvider
) -> None:
    server.enqueue(reply)
    error = await fails(provider.model(INFO))
    assert error.kind == kind
    assert error.retry_after == retry_after
    assert provider.statistics() == RequestStatistics(opened=1, closed=1)
    gc.collect()


async def test_r20_a_provider_that_is_not_there_cannot_be_reached() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    await listeners[0].aclose()
    async with open_openai(endpoint(f"http://127.0.0.1:{port}/v1")) as provider:
        error = await fails(provider.model(INFO))
    assert error.kind == "connection"
    assert str(port) in error.details


async def test_r20_a_provider_that_falls_silent_is_given_up(server: OpenAIServer) -> None:
    server.enqueue(answer(say("x"), HANG))
    async with open_openai(endpoint(server.base_url, read_timeout_s=0.05)) as provider:
        error = await fails(provider.model(INFO))
    assert error.kind == "connection"
    assert "read_timeout_s" in error.details


async def test_r20_retries_reach_the_answer(server: OpenAIServer, model: OpenAIModel) -> None:
    headers = {"Retry-After": "0.01"}
    server.enqueue(
        refusal(429, {"error": "slow"}, headers), refusal(503, {"error": "busy"}, headers), answer(say("x"), stop())
    )
    assert text_of(await with_retries(lambda: ask(model))) == "x"
    assert len(server.requests) == 3


# -- endpoints ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_url", ["", "api.openai.com/v1", "ftp://host/v1", "http:///v1", "http://host:port/v1", "http://[::1/v1", "/v1"]
)
async def test_an_address_that_cannot_be_used_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"providers\.test: the base URL must look like") as caught:
        endpoint(base_url).check("providers.test")
    assert KEY not in str(caught.value)


async def test_a_password_in_the_address_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigInvalid, match="must not hold a password") as caught:
        endpoint("https://me:secret@host/v1").check("x")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-é", "sk\x00"])
async def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigInvalid, match="the key has characters") as caught:
        async with open_openai(endpoint("http://host/v1", key=key)):
            raise AssertionError
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://host/v1", "http://host/v1/chat/completions"),
        ("http://host/v1/", "http://host/v1/chat/completions"),
        ("http://host/v1/chat/completions", "http://host/v1/chat/completions"),
    ],
)
async def test_the_address_is_that_of_the_api_or_of_the_call(base_url: str, url: str) -> None:
    assert endpoint(base_url).url == url


async def test_only_openai_is_told_the_limit_under_its_new_name() -> None:
    assert endpoint("https://api.openai.com/v1").max_tokens_field == "max_completion_tokens"
    assert endpoint("http://localhost/v1").max_tokens_field == "max_tokens"


async def test_the_key_is_in_no_repr() -> None:
    async with open_openai(endpoint("http://host/v1")) as provider:
        shown = [endpoint("http://host"), provider, provider.model(INFO), vars(provider), vars(provider.model(INFO))]
        assert KEY not in f"{shown!r}{shown}"
