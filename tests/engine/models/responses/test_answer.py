"""The events of a Responses stream become chunks."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ModelError
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
from engine.models.provider_errors import Blame
from engine.models.responses.answer import ResponsesAnswer
from engine.models.sse_lines import EventPayloads
from engine.records.message import FinishReason
from engine.records.run import Usage
from tests.doubles.model_server import split
from tests.doubles.responses_server import (
    Event,
    call,
    called,
    error,
    failed,
    item_of,
    message,
    named,
    refuse,
    response,
    start,
    stop,
    text,
    think,
    thought,
    used,
)

BLAME = Blame(provider="Test", model="m", base_url="http://test", key_hint="the key")


def hear(*events: Event) -> list[Chunk]:
    """The chunks of a stream of these events."""
    answer = ResponsesAnswer(BLAME)
    return answer.read([msgspec.json.encode(event) for event in events]) + answer.end()


def read(*events: Event) -> list[Chunk]:
    """The same, the usage left out."""
    return [chunk for chunk in hear(*events) if not isinstance(chunk, UsageReport)]


def failure(*events: Event) -> ModelError:
    """How reading such a stream fails."""
    with pytest.raises(ModelError) as caught:
        read(*events)
    return caught.value


def test_an_answer_with_everything_in_it() -> None:
    events = (
        *start(), *think(0, "hm", "so", encrypted="c2VjcmV0"), *text(1, "I ", "look.", phase="commentary"),
        *call(2, "call_1", "look", '{"a"', ":1}"), *call(3, "call_2", "wait"), stop(),
    )  # fmt: skip
    assert read(*events) == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningDelta("\n\n"),
        ReasoningDelta("s"),
        ReasoningDelta("o"),
        ReasoningDelta("", "reasoning:rs_0:c2VjcmV0"),
        TextDelta("I "),
        TextDelta("look."),
        ReasoningDelta("", "message7:commentary"),
        ToolCallStart("call_1", "look"),
        ToolCallDelta("call_1", '{"a"'),
        ToolCallDelta("call_1", ":1}"),
        ToolCallEnd("call_1"),
        ToolCallStart("call_2", "wait"),
        ToolCallEnd("call_2"),
        StreamFinish(FinishReason.TOOL_USE),
    ]


def test_a_thought_that_is_not_shown_leaves_what_was_encrypted() -> None:
    assert read(*think(0), *text(1, "x"), stop())[:2] == [
        ReasoningDelta("", "reasoning:rs_0:c2VjcmV0"), TextDelta("x"),
    ]  # fmt: skip


def test_a_thought_of_an_open_model_is_told_and_leaves_nothing() -> None:
    told = {"type": "response.reasoning_text.delta", "content_index": 0, "delta": "hm"}
    assert read(*item_of(0, thought(0), told), *text(1, "x"), stop())[:2] == [ReasoningDelta("hm"), TextDelta("x")]


def test_two_messages_of_an_answer_are_kept_apart() -> None:
    events = (*text(0, "I look.", phase="commentary"), *text(1, "Do", "ne.", phase="final_answer"), stop())
    assert read(*events)[:-1] == [
        TextDelta("I look."),
        ReasoningDelta("", "message7:commentary"),
        TextDelta("\n\n"),
        TextDelta("Do"),
        TextDelta("ne."),
        ReasoningDelta("", "message5:final_answer"),
    ]


def test_calls_may_be_interleaved() -> None:
    [begun, piece, *_, ended] = call(0, "a", "look", '{"x":1}')
    [other_begun, other_piece, *_, other_ended] = call(1, "b", "wait", '{"y":2}')
    events = (begun, other_begun, other_piece, piece, other_ended, ended, stop())
    assert read(*events)[:-1] == [
        ToolCallStart("a", "look"),
        ToolCallStart("b", "wait"),
        ToolCallDelta("b", '{"y":2}'),
        ToolCallDelta("a", '{"x":1}'),
        ToolCallEnd("b"),
        ToolCallEnd("a"),
    ]


def test_what_is_not_streamed_is_taken_from_the_items() -> None:
    said = message(1, {"type": "output_text", "text": "Hello"})
    events = (
        *item_of(0, thought(0, "hm", "so", encrypted="eA")), *item_of(1, said),
        *item_of(2, called(2, "a", "look", "{}")),
        stop(),
    )  # fmt: skip
    wanted = [
        ReasoningDelta("hm\n\nso"),
        ReasoningDelta("", "reasoning:rs_0:eA"),
        TextDelta("Hello"),
        ToolCallStart("a", "look"),
        ToolCallDelta("a", "{}"),
        ToolCallEnd("a"),
        StreamFinish(FinishReason.TOOL_USE),
    ]
    assert read(*events) == wanted
    items = (thought(0, "hm", "so", encrypted="eA"), said, called(2, "a", "look", "{}"))
    assert read(stop(*items)) == wanted
    assert read(response("completed", *items)) == wanted, "of a server that does not stream"


def test_what_was_streamed_is_not_said_again_at_the_end() -> None:
    said = message(0, {"type": "output_text", "text": "Hello"})
    assert read(*text(0, "Hello"), stop(said)) == [TextDelta("Hello"), StreamFinish(FinishReason.END_TURN)]
    begun = text(0, "Hello")[:-1]  # the item is never called done
    assert read(*begun, stop(said)) == [TextDelta("Hello"), StreamFinish(FinishReason.END_TURN)]


def test_calls_without_an_id_or_with_the_same_one_get_ids_of_their_own() -> None:
    calls = (*call(0, "a", "x"), *call(1, "a", "y"), *call(2, "", "z"))
    ids = [chunk.id for chunk in read(*calls, stop()) if isinstance(chunk, ToolCallStart)]
    assert ids[0] == "a"
    assert len(set(ids)) == 3


def test_a_call_without_a_name_makes_no_sense() -> None:
    assert failure(*call(0, "a", ""), stop()).kind == "protocol"


def test_a_call_that_is_never_called_done_ends_with_the_answer() -> None:
    begun = call(0, "a", "look", "{}")[:2]
    assert read(*begun, stop())[-2:] == [ToolCallEnd("a"), StreamFinish(FinishReason.TOOL_USE)]
    assert read(*begun, *call(0, "b", "look"), stop()).count(ToolCallEnd("a")) == 1


@pytest.mark.parametrize(
    ("why", "wanted"),
    [
        ("max_output_tokens", FinishReason.MAX_TOKENS),
        ("content_filter", FinishReason.CONTENT_FILTER),
        ("moonlight", FinishReason.UNKNOWN),
    ],
)
def test_an_answer_that_is_not_whole_says_why(why: str, wanted: FinishReason) -> None:
    assert read(*text(0, "x"), stop(why=why))[-1] == StreamFinish(wanted)
    assert read(*call(0, "a", "look"), stop(why=why))[-1] == StreamFinish(wanted)


def test_a_refusal_is_said_and_told() -> None:
    wanted = [TextDelta("I "), TextDelta("won't."), StreamFinish(FinishReason.CONTENT_FILTER)]
    assert read(*refuse(0, "I ", "won't."), stop()) == wanted
    whole = message(0, {"type": "refusal", "refusal": "I won't."})
    assert read(stop(whole)) == [TextDelta("I won't."), StreamFinish(FinishReason.CONTENT_FILTER)]


def test_the_usage_keeps_cached_tokens_apart_and_counts_thoughts_as_output() -> None:
    end = stop(usage=used(100, 30, cached=60, written=15, reasoning=20))
    [reported] = [chunk.usage for chunk in hear(*text(0, "x"), end) if isinstance(chunk, UsageReport)]
    assert reported == Usage(25, 30, 60, 15)
    told = used(10, 1) | {"cost": 0.25}
    [reported] = [chunk.usage for chunk in hear(*text(0, "x"), stop(usage=told)) if isinstance(chunk, UsageReport)]
    assert reported.cost == 0.25


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (failed("server_error", "The server had an error."), "server"),
        (failed("rate_limit_exceeded", "Rate limit reached. Please try again in 1.5s."), "rate_limit"),
        (failed("server_is_overloaded", "Busy."), "overloaded"),
        (failed("insufficient_quota", "You exceeded your current quota."), "authentication"),
        (failed("context_length_exceeded", "Your input exceeds the context window of this model."), "context_length"),
        (failed("invalid_prompt", "Invalid prompt: violates our usage policy."), "bad_request"),
        (failed("image_too_large", "Too large."), "bad_request"),
        (failed("image_content_policy_violation", "No."), "content_filter"),
        (failed("moonlight", "?"), "server"),
        (error("rate_limit_exceeded", "slow"), "rate_limit"),
        (error(None, "An error occurred."), "server"),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}}, "bad_request"),
        ({"error": {"message": "from a proxy", "code": 429}}, "rate_limit"),
        ({"type": "response.failed", "response": response("failed")}, "server"),
        ({"type": "response.cancelled", "response": response("cancelled")}, "server"),
        ({"type": "response.completed", "response": response("failed", error={"code": "server_error"})}, "server"),
    ],
)
def test_r20_errors_in_the_stream_have_their_kinds(event: Event, kind: str) -> None:
    assert failure(*start(), *text(0, "x"), event).kind == kind


def test_r20_the_wait_that_an_error_asks_for_is_read() -> None:
    assert failure(failed("rate_limit_exceeded", "Please try again in 1.5s. Visit …")).retry_after == 1.5


def test_an_early_end_is_a_dropped_connection() -> None:
    assert failure(*start(), *text(0, "x")).kind == "connection"
    assert "base URL" in failure().details


def test_what_follows_the_end_is_not_heard_and_a_mark_is_no_event() -> None:
    answer = ResponsesAnswer(BLAME)
    payloads = [b"[DONE]", msgspec.json.encode(stop()), b"[DONE]", b"{broken"]
    assert answer.read(payloads)[-1] == StreamFinish(FinishReason.END_TURN)
    assert answer.is_over
    assert answer.has_reason


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b'{"type":1}', b'{"type":"response.output_text.delta","delta":1}', b'"\xff"']
)
def test_what_cannot_be_read_is_told(payload: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        ResponsesAnswer(BLAME).read([payload])
    assert caught.value.kind == "protocol"


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_chunks(data: st.DataObject) -> None:
    events = (*start(), *think(0, "ü"), *text(1, "Grüße", "😀"), *call(2, "a", "look", '{"ö":1}'), stop())
    stream = b"".join(map(named, events))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    payloads, answer = EventPayloads(), ResponsesAnswer(BLAME)
    chunks: list[Chunk] = []
    for piece in split(stream, cuts):
        chunks += answer.read(payloads.feed(piece))
    assert chunks == hear(*events)
