"""A request in the form that OpenAI's Responses want."""

import base64
from typing import Any

import msgspec
import pytest

from engine.models.call_ids import plain_call_id
from engine.models.protocol import ModelInfo, ModelMessage, ModelRequest, ModelToolResult, ToolSpec
from engine.models.responses.request import LEAST_LIMIT, responses_body
from engine.models.responses.wire import ItemSignature
from engine.records.message import Attachment, Reasoning, ToolCall
from tests.engine.models.asking import assistant, request, user

PLAIN = ModelInfo(id="m", provider="p", name="M")
SEEING = msgspec.structs.replace(PLAIN, supports_attachments=True)
THINKING = msgspec.structs.replace(
    PLAIN, can_reason=True, reasoning_levels=("low", "high"), default_reasoning_effort="high"
)
DOT = Attachment("/a/dot.png", "dot.png", "image/png", base64.b64encode(b"\x89PNG").decode())
DOT_URL = "data:image/png;base64,iVBORw=="
PAGE = Attachment("/a/page.pdf", "page.pdf", "application/pdf", base64.b64encode(b"%PDF").decode())


def body(asked: ModelRequest, info: ModelInfo = PLAIN) -> dict[str, Any]:
    """The decoded body."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(responses_body(asked, info)))
    return decoded


def items(*messages: ModelMessage, info: ModelInfo = PLAIN) -> list[dict[str, Any]]:
    """The input of a request."""
    sent: list[dict[str, Any]] = body(request(*messages), info)["input"]
    return sent


def test_a_plain_request_streams_and_stores_nothing() -> None:
    assert body(request(user("hi"), system="Be kind.")) == {
        "model": "m",
        "instructions": "Be kind.",
        "input": [{"role": "user", "content": "hi"}],
        "stream": True,
        "store": False,
        "prompt_cache_key": "session-1",
    }
    assert "instructions" not in body(request(system=" "))


def test_tools_are_sent_with_their_optional_fields() -> None:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    asked = msgspec.structs.replace(request(), tools=(ToolSpec("look", "Looks.", schema),))
    assert body(asked)["tools"] == [
        {"type": "function", "name": "look", "description": "Looks.", "parameters": schema, "strict": False}
    ]


@pytest.mark.parametrize(("asked", "sent"), [(4000, 4000), (1, LEAST_LIMIT)])
def test_the_limit_is_one_that_the_protocol_takes(asked: int, sent: int) -> None:
    assert body(msgspec.structs.replace(request(), max_tokens=asked))["max_output_tokens"] == sent
    assert "max_output_tokens" not in body(request())


@pytest.mark.parametrize(("asked", "sent"), [(None, "high"), ("low", "low"), ("max", "high")])
def test_a_model_that_thinks_is_told_how_much_and_asked_for_what_it_thought(asked: str | None, sent: str) -> None:
    told = body(msgspec.structs.replace(request(), reasoning_effort=asked), THINKING)
    assert told["reasoning"] == {"effort": sent, "summary": "auto"}
    assert told["include"] == ["reasoning.encrypted_content"]
    unsaid = msgspec.structs.replace(THINKING, default_reasoning_effort="", reasoning_levels=())
    assert body(request(), unsaid)["reasoning"] == {"summary": "auto"}


def test_a_model_that_does_not_think_is_not_asked_to() -> None:
    assert not {"reasoning", "include"} & set(body(msgspec.structs.replace(request(), reasoning_effort="low")))


def test_a_whole_conversation_is_sent_in_order() -> None:
    call = ToolCall("a", "look", '{"x":1}')
    messages = (
        user("do it"),
        assistant(Reasoning("hm", "reasoning:rs_1:c2VjcmV0"), "I look.", Reasoning("", "message7:commentary"), call),
        ModelMessage(role="tool", tool_results=(ModelToolResult("a", "seen"),)),
        assistant(Reasoning("", "reasoning:rs_2:bW9yZQ=="), "Done.", Reasoning("", "message5:final_answer")),
    )
    assert items(*messages) == [
        {"role": "user", "content": "do it"},
        {
            "type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": "c2VjcmV0",
        },
        {"role": "assistant", "content": "I look.", "phase": "commentary"},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"x":1}'},
        {"type": "function_call_output", "call_id": "a", "output": "seen"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "bW9yZQ=="},
        {"role": "assistant", "content": "Done.", "phase": "final_answer"},
    ]  # fmt: skip


def test_what_was_said_in_no_phase_is_not_put_into_one() -> None:
    said = assistant("First.", "\n\nLast.", Reasoning("", "message5:final_answer"))
    assert items(said) == [
        {"role": "assistant", "content": "First.\n\n"},
        {"role": "assistant", "content": "Last.", "phase": "final_answer"},
    ]
    two = assistant(
        "I look.", Reasoning("", "message7:commentary"), "\n\nDone.", Reasoning("", "message5:final_answer")
    )
    assert [(item["content"], item["phase"]) for item in items(two)] == [
        ("I look.", "commentary"), ("Done.", "final_answer"),
    ]  # fmt: skip


def test_a_thought_that_came_to_nothing_is_left_out() -> None:
    assert items(assistant("x", Reasoning("hm", "reasoning:rs_1:eA"))) == [{"role": "assistant", "content": "x"}]
    assert items(assistant(Reasoning("hm", "reasoning:rs_1:eA"))) == []


@pytest.mark.parametrize("signature", ["", "c2lnbmVk", "call:c2lnbmVk", "text12:c2lnbmVk", "redacted:x", "reasoning:"])
def test_what_another_protocol_signed_is_left_out(signature: str) -> None:
    assert items(assistant(Reasoning("hm", signature), "x")) == [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize(
    "signature",
    [
        ItemSignature("reasoning", "gAAAA-_=", id="rs_1"),
        ItemSignature("reasoning", "x"),
        ItemSignature("message", "p", "", 7),
    ],
)
def test_a_signature_is_read_as_it_was_written(signature: ItemSignature) -> None:
    assert ItemSignature.parse(str(signature)) == signature


def test_calls_of_other_providers_have_ids_that_are_taken() -> None:
    strange = "toolu|1 " * 20
    call, result = items(
        assistant(ToolCall(strange, "look", "")),
        ModelMessage(role="tool", tool_results=(ModelToolResult(strange, ""),)),
    )
    assert call["call_id"] == result["call_id"] == plain_call_id(strange)
    assert len(call["call_id"]) <= 64
    assert call["arguments"] == "{}"


def test_images_and_documents_are_shown_to_a_model_that_sees() -> None:
    image = {"type": "input_image", "image_url": DOT_URL, "detail": "auto"}
    assert items(user("look", DOT, PAGE), info=SEEING) == [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                image,
                {"type": "input_file", "filename": "page.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
            ],
        }
    ]
    assert items(user("", DOT), info=SEEING)[0]["content"] == [image]
    assert "cannot be shown" in items(user("look", DOT))[0]["content"]


def test_what_a_tool_shows_is_part_of_its_result() -> None:
    shown = ModelMessage(
        role="tool", tool_results=(ModelToolResult("a", "a dot", mime_type="image/png", data=DOT.content),)
    )
    assert items(shown, info=SEEING)[0]["output"] == [
        {"type": "input_text", "text": "a dot"},
        {"type": "input_image", "image_url": DOT_URL, "detail": "auto"},
    ]
    assert items(shown)[0]["output"] == "a dot\n\n(The image/png data cannot be shown to you.)"
