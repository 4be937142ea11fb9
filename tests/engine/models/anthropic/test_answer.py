"""The events of an Anthropic stream become chunks."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ModelError
from engine.models.anthropic.answer import AnthropicAnswer
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
from engine.models.sse_lines import EventPayloads
from engine.records.message import FinishReason
from engine.records.run import Usage
from tests.doubles.anthropic_server import Event, block, error, named, redacted, start, stop, text, thinking, tool_use
from tests.doubles.model_server import split

BLAME = Blame(provider="Test", model="m", base_url="http://test", key_hint="the key")


def read(*events: Event) -> list[Chunk]:
    """The chunks of a stream of these events; the usage left out."""
    answer = AnthropicAnswer(BLAME)
    chunks = answer.read([msgspec.json.encode(event) for event in events])
    return [c for c in chunks + ([] if answer.is_over else answer.end()) if not isinstance(c, UsageReport)]


def failure(*events: Event) -> ModelError:
    """How reading such a stream fails."""
    with pytest.raises(ModelError) as caught:
        read(*events)
    return caught.value


def usages(*events: Event) -> list[Usage]:
    """Every report of a stream."""
    chunks = AnthropicAnswer(BLAME).read([msgspec.json.encode(event) for event in events])
    return [chunk.usage for chunk in chunks if isinstance(chunk, UsageReport)]


def test_an_answer_with_everything_in_it() -> None:
    events: tuple[Event, ...] = (
        start(), {"type": "ping"}, *thinking(0, "h", "m", signature="sig"), *redacted(1, "ZGF0YQ=="),
        *text(2, "Hel", "lo"), *tool_use(3, "toolu_1", "look", "", '{"a"', ":1}"), *tool_use(4, "toolu_2", "wait"),
        *stop("tool_use"),
    )  # fmt: skip
    assert read(*events) == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningDelta("", "sig"),
        ReasoningDelta("", "redacted:ZGF0YQ=="),
        TextDelta("Hel"),
        TextDelta("lo"),
        ToolCallStart("toolu_1", "look"),
        ToolCallDelta("toolu_1", '{"a"'),
        ToolCallDelta("toolu_1", ":1}"),
        ToolCallEnd("toolu_1"),
        ToolCallStart("toolu_2", "wait"),
        ToolCallEnd("toolu_2"),
        StreamFinish(FinishReason.TOOL_USE),
    ]


def test_thinking_that_is_not_shown_leaves_its_signature() -> None:
    assert read(start(), *thinking(0, signature="sig"), *text(1, "x"), *stop())[:2] == [
        ReasoningDelta("", "sig"), TextDelta("x"),
    ]  # fmt: skip


def test_the_last_signature_of_a_thought_counts() -> None:
    deltas = ({"type": "signature_delta", "signature": signature} for signature in ("a", "b"))
    events = block(0, {"type": "thinking", "thinking": "hm", "signature": "first"}, *deltas)
    assert read(start(), *events, *stop())[:2] == [ReasoningDelta("hm"), ReasoningDelta("", "b")]
    events = block(0, {"type": "thinking", "thinking": "hm", "signature": "first"})
    assert read(start(), *events, *stop())[:2] == [ReasoningDelta("hm"), ReasoningDelta("", "first")]


def test_input_that_comes_at_once_is_passed_on_and_input_in_pieces_wins() -> None:
    whole = block(0, {"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}})
    assert ToolCallDelta("a", '{"x":1}') in read(start(), *whole, *stop("tool_use"))
    piece = {"type": "input_json_delta", "partial_json": "{}"}
    both = block(0, {"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}}, piece)
    assert [c for c in read(start(), *both, *stop()) if isinstance(c, ToolCallDelta)] == [ToolCallDelta("a", "{}")]


def test_calls_without_an_id_or_with_the_same_one_get_ids_of_their_own() -> None:
    calls = (*tool_use(0, "a", "x"), *tool_use(1, "a", "y"), *tool_use(2, "", "z"))
    ids = [chunk.id for chunk in read(start(), *calls, *stop()) if isinstance(chunk, ToolCallStart)]
    assert ids[0] == "a"
    assert len(set(ids)) == 3


def test_a_call_without_a_name_makes_no_sense() -> None:
    assert failure(start(), *tool_use(0, "a", ""), *stop()).kind == "protocol"


@pytest.mark.parametrize(
    ("reason", "wanted"),
    [
        ("end_turn", FinishReason.END_TURN),
        ("stop_sequence", FinishReason.END_TURN),
        ("max_tokens", FinishReason.MAX_TOKENS),
        ("model_context_window_exceeded", FinishReason.MAX_TOKENS),
        ("tool_use", FinishReason.TOOL_USE),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("pause_turn", FinishReason.UNKNOWN),
    ],
)
def test_reasons_are_mapped(reason: str, wanted: FinishReason) -> None:
    assert read(start(), *text(0, "x"), *stop(reason))[-1] == StreamFinish(wanted)


def test_a_call_makes_it_tool_use_unless_the_answer_was_cut_off() -> None:
    assert read(start(), *tool_use(0, "a", "x"), *stop("end_turn"))[-1] == StreamFinish(FinishReason.TOOL_USE)
    assert read(start(), *tool_use(0, "a", "x"), *stop("max_tokens"))[-1] == StreamFinish(FinishReason.MAX_TOKENS)


def test_the_usage_grows_from_report_to_report() -> None:
    events = (
        start(input_tokens=10, cache_creation_input_tokens=3, cache_read_input_tokens=7, output_tokens=1),
        *text(0, "x"),
        *stop(output_tokens=42),
    )
    assert usages(*events) == [Usage(10, 1, 7, 3), Usage(10, 42, 7, 3)]
    assert usages(start(), *stop(output_tokens=1)) == [Usage(12, 1)]
    late = stop(input_tokens=20, cache_read_input_tokens=2, output_tokens=6)
    assert usages(start(input_tokens=0), *late)[-1] == Usage(20, 6, 2)


def test_an_end_without_message_stop_is_an_end() -> None:
    begun = stop()[0]
    assert read(start(), *text(0, "x"), begun)[-1] == StreamFinish(FinishReason.END_TURN)
    open_call = tool_use(0, "a", "look", "{}")[:-1]
    assert read(start(), *open_call, stop("tool_use")[0])[-2:] == [
        ToolCallEnd("a"), StreamFinish(FinishReason.TOOL_USE),
    ]  # fmt: skip


def test_what_follows_the_end_is_not_heard() -> None:
    assert read(start(), *stop(), *text(0, "late")) == [StreamFinish(FinishReason.END_TURN)]


def test_blocks_and_deltas_that_nobody_knows_are_passed_over() -> None:
    events = (
        start(),
        *block(0, {"type": "server_tool_use", "id": "s", "name": "web_search"}, {"type": "input_json_delta"}),
        *block(1, {"type": "text", "text": "say "}, {"type": "citations_delta", "citation": {}}, {"type": "moon"}),
        *block(2, {"type": "moonlight"}, {"type": "input_json_delta", "partial_json": "{}"}),
        {"type": "content_block_delta", "index": 9, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        *stop(),
    )
    assert read(*events) == [TextDelta("say "), StreamFinish(FinishReason.END_TURN)]


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (error("overloaded_error", "Overloaded"), "overloaded"),
        (error("api_error", "Internal server error"), "server"),
        (error("rate_limit_error", "slow"), "rate_limit"),
        (error("timeout_error", "late"), "server"),
        (error("authentication_error", "who"), "authentication"),
        (error("permission_error", "no"), "authentication"),
        (error("billing_error", "pay"), "authentication"),
        (error("not_found_error", "model: m"), "not_found"),
        (error("invalid_request_error", "messages.1: bad"), "bad_request"),
        (error("invalid_request_error", "prompt is too long: 2 tokens > 1 maximum"), "context_length"),
        (error("invalid_request_error", "input length and `max_tokens` exceed context limit: 9"), "context_length"),
        (error("moonlight_error", "?"), "server"),
        ({"error": {"message": "from a proxy", "code": 429}}, "rate_limit"),
        ({"type": "error", "message": "bare"}, "server"),
    ],
)
def test_r20_errors_in_the_stream_have_their_kinds(event: Event, kind: str) -> None:
    assert failure(start(), *text(0, "x"), event).kind == kind


def test_an_early_end_is_a_dropped_connection() -> None:
    assert failure(start(), *text(0, "x")).kind == "connection"
    assert "base URL" in failure().details


@pytest.mark.parametrize(
    "payload", [b"{", b"[]", b'{"type":1}', b'{"type":"content_block_delta","delta":{"text":1}}', b'"\xff"']
)
def test_what_cannot_be_read_is_told(payload: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        AnthropicAnswer(BLAME).read([payload])
    assert caught.value.kind == "protocol"


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_chunks(data: st.DataObject) -> None:
    events = (start(), *thinking(0, "ü"), *text(1, "Grüße", "😀"), *tool_use(2, "a", "look", '{"ö":1}'), *stop())
    stream = b"".join(map(named, events))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=20))
    payloads, answer = EventPayloads(), AnthropicAnswer(BLAME)
    chunks: list[Chunk] = []
    for piece in split(stream, cuts):
        chunks += answer.read(payloads.feed(piece))
    assert [chunk for chunk in chunks if not isinstance(chunk, UsageReport)] == read(*events)
