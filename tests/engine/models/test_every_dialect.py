"""What holds of every protocol, over real sockets: cut, slow, broken, dropped and canceled streams; retries; keys."""

import gc
import logging
import traceback
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from engine.errors import ConfigInvalid, ModelError
from engine.models.dialects import DIALECTS
from engine.models.endpoint import Endpoint
from engine.models.protocol import Chunk, TextDelta, ToolCallDelta, ToolCallEnd, ToolCallStart
from engine.models.provider import Provider, RemoteModel, open_provider
from engine.models.retry import with_retries
from engine.models.settings import Secret
from engine.models.statistics import RequestStatistics
from engine.records.message import FinishReason
from tests.doubles.model_server import CUT, HANG, RESET, ModelServer, Reply, event, refusal, split
from tests.engine.models.asking import INFO, KEY, ask, endpoint, flat, reason_of, request, text_of
from tests.engine.models.voices import VOICES, Voice

pytestmark = pytest.mark.slow

OTHER_KEY = "other-hidden-key"


@pytest.fixture(params=VOICES, ids=lambda voice: voice.type)
def voice(request: pytest.FixtureRequest) -> Voice:
    """Each protocol in turn."""
    spoken: Voice = request.param
    return spoken


@pytest.fixture
def target(voice: Voice, server: ModelServer) -> Endpoint:
    """The server as a provider of this protocol."""
    return msgspec.structs.replace(endpoint(server.root + voice.bases[0]), type=voice.type)


@pytest.fixture
async def provider(target: Endpoint) -> AsyncIterator[Provider]:
    """Our client of it."""
    async with open_provider(target) as opened:
        yield opened


@pytest.fixture
def model(provider: Provider) -> RemoteModel:
    """One of its models."""
    return provider.model(INFO)


async def fails(model: RemoteModel) -> ModelError:
    """How asking fails."""
    with pytest.raises(ModelError) as caught:
        await ask(model)
    assert KEY not in f"{caught.value}{caught.value!r}{caught.value.args}"
    return caught.value


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_words_come_through(voice: Voice, server: ModelServer, model: RemoteModel) -> None:
    server.enqueue(Reply((*voice.say("Grüße ", "😀"), *voice.end())))
    batches = await ask(model)
    assert text_of(batches) == "Grüße 😀"
    assert reason_of(batches) is FinishReason.END_TURN
    [seen] = server.requests
    assert seen.path == voice.path
    assert seen.headers[voice.key_header] == voice.key_prefix + KEY
    assert seen.headers["content-type"] == "application/json"


async def test_a_call_comes_in_pieces(voice: Voice, server: ModelServer, model: RemoteModel) -> None:
    server.enqueue(Reply(tuple(voice.call("call_1", "look", '{"pa', 'th":"ü"}'))))
    batches = await ask(model)
    chunks = [c for c in flat(batches) if isinstance(c, ToolCallStart | ToolCallDelta | ToolCallEnd)]
    [begun, *deltas, ended] = chunks
    assert begun == ToolCallStart("call_1", "look")
    assert ended == ToolCallEnd("call_1")
    assert msgspec.json.decode("".join(d.input for d in deltas if isinstance(d, ToolCallDelta))) == {"path": "ü"}
    assert reason_of(batches) is FinishReason.TOOL_USE


@pytest.mark.parametrize("size", [1, 11])
async def test_reads_may_cut_the_stream_anywhere_in_a_character_too(
    size: int, voice: Voice, server: ModelServer, model: RemoteModel
) -> None:
    stream = b": hello\n\n" + b"".join((*voice.say("Grüße 😀"), *voice.end()))
    server.enqueue(Reply(tuple(split(stream, range(size, len(stream), size)))))
    assert text_of(await ask(model)) == "Grüße 😀"


async def test_a_first_word_is_heard_before_the_second_is_said(
    voice: Voice, server: ModelServer, model: RemoteModel
) -> None:
    gate = trio.Event()
    *before, second = voice.say("first", "second")
    server.enqueue(Reply((*before, gate, second, *voice.end())))
    said: list[str] = []
    async with model.open_stream(request()) as stream:
        async for batch in stream:
            said += [chunk.text for chunk in batch if isinstance(chunk, TextDelta)]
            if said:
                gate.set()
    assert said == ["first", "second"]


async def test_a_finished_answer_leaves_its_connection_to_the_next(
    voice: Voice, server: ModelServer, model: RemoteModel
) -> None:
    for _ in range(2):
        server.enqueue(Reply((*voice.say("x"), *voice.end())))
        assert text_of(await ask(model)) == "x"
    assert server.connections == 1


async def test_events_that_nobody_knows_are_passed_over(voice: Voice, server: ModelServer, model: RemoteModel) -> None:
    new = event({"type": "moonrise", "choices": [], "candidates": [], "moon": {"phase": 0.5}})
    server.enqueue(Reply((new, *voice.say("x"), new, *voice.end())))
    assert text_of(await ask(model)) == "x"


# -- R10: whoever stops listening closes the connection ----------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("x",)], ids=["before the first word", "in the middle"])
async def test_r10_cancelling_closes_the_connection_at_once(
    words: tuple[str, ...], voice: Voice, server: ModelServer, provider: Provider
) -> None:
    server.enqueue(Reply((*(voice.say(*words) if words else ()), HANG)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, provider.model(INFO))
        seen = await server.wait_request()
        await wait_all_tasks_blocked(0.01)
        assert not seen.gone.is_set()
        nursery.cancel_scope.cancel()
    assert provider.statistics() == RequestStatistics(opened=1, closed=1)
    await seen.gone.wait()
    gc.collect()  # nothing is left half-way for Trio to complain of


# -- R20: failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [CUT, RESET])
async def test_r20_a_dropped_connection_is_told_after_what_was_said(
    end: Any, voice: Voice, server: ModelServer, provider: Provider
) -> None:
    server.enqueue(Reply((*voice.say("par"), 0.01, end)))
    said: list[Chunk] = []

    async def listen() -> None:
        async with provider.model(INFO).open_stream(request()) as stream:
            async for batch in stream:
                said.extend(batch)

    with pytest.raises(ModelError) as caught:
        await listen()
    assert caught.value.kind == "connection"
    assert TextDelta("par") in said
    assert provider.statistics().open == 0
    gc.collect()


async def test_r20_a_stream_that_ends_without_an_end_is_a_dropped_connection(
    voice: Voice, server: ModelServer, model: RemoteModel
) -> None:
    server.enqueue(Reply(tuple(voice.say("x"))), Reply(()))
    for _ in range(2):
        assert (await fails(model)).kind == "connection"


async def test_r20_an_error_in_the_stream_is_retried_like_one_in_front_of_it(
    voice: Voice, server: ModelServer, model: RemoteModel
) -> None:
    in_stream = Reply((*voice.say("lost"), event(voice.overloaded)))
    in_front = refusal(529, voice.overloaded, {"Retry-After": "0.01"})
    server.enqueue(in_front, Reply((*voice.say("found"), *voice.end())))
    assert text_of(await with_retries(lambda: ask(model))) == "found"
    server.enqueue(in_stream)
    error = await fails(model)
    assert (error.kind, error.is_transient) == ("overloaded", True)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retry_after"),
    [
        (400, {}, "bad_request", None),
        (401, {}, "authentication", None),
        (403, {}, "authentication", None),
        (404, {}, "not_found", None),
        (429, {"Retry-After": "3"}, "rate_limit", 3),
        (429, {"Retry-After-Ms": "1500"}, "rate_limit", 1.5),
        (
            429,
            {"Retry-After": "Wed, 21 Oct 2026 07:28:30 GMT", "Date": "Wed, 21 Oct 2026 07:28:00 GMT"},
            "rate_limit",
            30,
        ),
        (500, {}, "server", None),
        (503, {}, "overloaded", None),
        (529, {}, "overloaded", None),
    ],
)
async def test_r20_refusals_have_their_kinds(
    status: int, headers: dict[str, str], kind: str, retry_after: float | None, voice: Voice, server: ModelServer,
    model: RemoteModel,
) -> None:  # fmt: skip
    server.enqueue(refusal(status, {"error": {"message": f"you sent {KEY}"}}, headers))
    error = await fails(model)
    assert (error.kind, error.retry_after) == (kind, retry_after)
    assert error.is_transient == (status == 429 or status >= 500)


async def test_r20_a_conversation_that_is_too_long_is_told_apart(
    voice: Voice, server: ModelServer, model: RemoteModel
) -> None:
    server.enqueue(refusal(400, voice.too_long), Reply((event(voice.too_long),)))
    for _ in range(2):
        error = await fails(model)
        assert (error.kind, error.is_transient) == ("context_length", False)


async def test_r20_a_piece_that_cannot_be_read_is_told(voice: Voice, server: ModelServer, model: RemoteModel) -> None:
    server.enqueue(Reply((*voice.say("x"), b"data: {broken\n\n")))
    assert (await fails(model)).kind == "protocol"


# -- settings of an endpoint -------------------------------------------------------------------------------------------


async def test_no_key_is_no_header(voice: Voice, server: ModelServer, target: Endpoint) -> None:
    server.enqueue(Reply((*voice.say("x"), *voice.end())))
    async with open_provider(msgspec.structs.replace(target, api_key=None)) as provider:
        await ask(provider.model(INFO))
    assert voice.key_header not in server.requests[0].headers


async def test_headers_and_body_of_ones_own_are_sent(voice: Voice, server: ModelServer, target: Endpoint) -> None:
    server.enqueue(Reply((*voice.say("x"), *voice.end())))
    own = msgspec.structs.replace(
        target,
        headers={"X-Team": Secret("blue"), "user-AGENT": Secret("mine")},
        body={"speed": "fast", "model": "mine"},
    )
    async with open_provider(own) as provider:
        await ask(provider.model(INFO))
    [seen] = server.requests
    assert (seen.headers["x-team"], seen.headers["user-agent"]) == ("blue", "mine")
    assert (seen.body["speed"], seen.body["model"]) == ("fast", "mine")


@pytest.mark.parametrize("headers", [{"X Y": Secret("a")}, {"": Secret("a")}, {"X": Secret("a\nb")}])
def test_a_header_that_cannot_be_sent_is_refused(headers: dict[str, Secret]) -> None:
    with pytest.raises(ConfigInvalid, match="is no header that can be sent") as caught:
        msgspec.structs.replace(endpoint("http://host"), headers=headers).check("providers.test")
    assert "a\nb" not in str(caught.value)


async def test_the_address_may_be_given_in_full_or_not(voice: Voice, server: ModelServer, target: Endpoint) -> None:
    for number, base in enumerate(voice.bases, 1):
        server.enqueue(Reply((*voice.say("x"), *voice.end())))
        async with open_provider(msgspec.structs.replace(target, base_url=server.root + base)) as provider:
            await ask(provider.model(INFO))
        assert (await server.wait_request(number)).path == voice.path


def test_an_address_with_a_version_of_its_own_is_left_alone(voice: Voice) -> None:
    given = msgspec.structs.replace(endpoint("http://host/api/v3"), type=voice.type)
    assert DIALECTS[voice.type].url(given, INFO).startswith("http://host/api/v3/")
    assert "/v1" not in DIALECTS[voice.type].url(given, INFO)


@pytest.mark.parametrize("fault", ["refused", "reset", "in the stream", "silent"])
async def test_no_secret_is_in_any_log_error_or_traceback(
    fault: str, voice: Voice, server: ModelServer, target: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told = {"error": {"message": f"bad key {KEY} or {OTHER_KEY}", "code": 429}}
    server.enqueue(
        {
            "refused": refusal(401, told),
            "reset": Reply((*voice.say("x"), 0.01, RESET)),
            "in the stream": Reply((*voice.say("x"), event(told))),
            "silent": Reply((*voice.say("x"), HANG)),
        }[fault]
    )
    secretive = msgspec.structs.replace(target, headers={"X-Key": Secret(OTHER_KEY)}, read_timeout_s=0.05)
    async with open_provider(secretive) as provider:
        error = await fails(provider.model(INFO))
    # A key that the provider itself says in its answer is among the locals of whoever reads the answer.
    has_locals = fault != "in the stream"
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=has_locals).format())
    assert "engine/models/" in shown
    assert any(record.name.startswith("httpcore2") for record in caplog.records), "nothing was logged"
    for secret in (KEY, OTHER_KEY):
        assert set(server.requests[0].headers.values()) & {secret, f"Bearer {secret}"}
        assert secret not in f"{shown}{error.details}{caplog.text}{caplog.records!r}{secretive!r}{provider!r}"
