"""A request in the form that chat completions want."""

import base64
from typing import Any

import msgspec
import pytest

from engine.models.chat.request import chat_body
from engine.models.protocol import ModelInfo, ModelMessage, ModelRequest, ModelToolResult, ToolSpec
from engine.models.settings import ReasoningField
from engine.records.message import Attachment, Reasoning, ToolCall
from tests.engine.models.asking import assistant, request, user

PLAIN = ModelInfo(id="m", provider="p", name="M")
SEEING = ModelInfo(id="m", provider="p", name="M", supports_attachments=True)


def body(asked: ModelRequest, info: ModelInfo = PLAIN) -> dict[str, Any]:
    """The decoded body."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(chat_body(asked, info)))
    return decoded


def attachment(name: str, mime_type: str, content: bytes) -> Attachment:
    return Attachment(f"/a/{name}", name, mime_type, base64.b64encode(content).decode())


def test_a_plain_request_streams_and_wants_usage() -> None:
    assert body(request(user("hi"), system="Be kind.")) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_no_system_prompt_is_no_message() -> None:
    assert [message["role"] for message in body(request(system=""))["messages"]] == ["user"]


def test_tools_and_the_limit_are_sent() -> None:
    spec = ToolSpec("look", "Looks.", {"type": "object", "properties": {}})
    asked = msgspec.structs.replace(request(), tools=(spec,), max_tokens=40)
    sent = body(asked)
    assert sent["max_tokens"] == 40
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}},
        }
    ]
    renamed = chat_body(asked, PLAIN, max_tokens_field="max_completion_tokens")
    assert renamed["max_completion_tokens"] == 40
    assert "max_tokens" not in renamed


def test_a_whole_conversation_is_sent_in_order() -> None:
    messages = (
        user("do it"),
        assistant(Reasoning("hm"), ToolCall("a", "look", '{"x":1}'), ToolCall("b", "touch", "")),
        ModelMessage(
            role="tool", tool_results=(ModelToolResult("a", "seen"), ModelToolResult("b", "no", is_error=True))
        ),
        assistant("Done."),
        assistant(Reasoning("only thought")),
    )
    assert body(request(*messages, system=""))["messages"] == [
        {"role": "user", "content": "do it"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x":1}'}},
                {"id": "b", "type": "function", "function": {"name": "touch", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "seen"},
        {"role": "tool", "tool_call_id": "b", "content": "no"},
        {"role": "assistant", "content": "Done."},
    ]


def content(*attachments: Attachment, info: ModelInfo = PLAIN, text: str = "look") -> Any:
    """What the user's message holds."""
    return body(request(user(text, *attachments), system=""), info)["messages"][0]["content"]


def test_text_attachments_are_folded_into_the_text() -> None:
    notes = attachment("notes.md", "text/markdown", "Grüße\n".encode())
    assert content(notes) == "look\n\nAttached file notes.md:\n```\nGrüße\n```"
    assert content(notes, text="") == "Attached file notes.md:\n```\nGrüße\n```"


def test_the_fence_is_longer_than_any_in_the_file() -> None:
    fenced = attachment("a.md", "text/markdown", b"````\ncode\n````")
    assert content(fenced).endswith("`````\n````\ncode\n````\n`````")


@pytest.mark.parametrize("data", ["not base64!", "/w=="])
def test_text_that_cannot_be_decoded_is_sent_as_well_as_it_can_be(data: str) -> None:
    sent = content(Attachment("/a", "a.txt", "text/plain", data))
    assert "a.txt" in sent
    assert data in sent or "\N{REPLACEMENT CHARACTER}" in sent


def test_images_go_to_a_model_that_sees() -> None:
    image = attachment("a.png", "image/png", b"\x89PNG")
    url = "data:image/png;base64,iVBORw=="
    assert content(image, info=SEEING) == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    assert content(image, info=SEEING, text="") == [{"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize(
    ("name", "mime_type", "info"), [("a.png", "image/png", PLAIN), ("a.pdf", "application/pdf", SEEING)]
)
def test_a_model_is_told_of_a_file_that_it_cannot_see(name: str, mime_type: str, info: ModelInfo) -> None:
    sent = content(attachment(name, mime_type, b"data"), info=info)
    assert sent == f"look\n\n(The attached {mime_type} file {name!r} cannot be shown to you.)"


# -- thoughts that are sent back ---------------------------------------------------------------------------------------

DETAILS = 'details:[{"type":"reasoning.encrypted","data":"eA","index":0}]'


def thinking(field: ReasoningField, *messages: ModelMessage) -> list[dict[str, Any]]:
    """The messages of a request to a provider that wants thoughts back in this field."""
    sent: Any = chat_body(request(*messages, system=""), PLAIN, reasoning_field=field)["messages"]
    return list(sent)


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_a_thought_goes_back_in_the_field_that_the_provider_wants_it_in(field: ReasoningField) -> None:
    thought = assistant(Reasoning("h"), Reasoning("m"), "I look.", ToolCall("a", "look"))
    [message] = thinking(field, thought)
    assert message[field] == "hm"
    assert set(message) == {"role", "content", "tool_calls", field}


def test_details_go_back_as_they_came_and_what_others_signed_does_not() -> None:
    thought = assistant(Reasoning("hm", DETAILS), "x", Reasoning("", "c2lnbmVk"), Reasoning("", DETAILS))
    entry = {"type": "reasoning.encrypted", "data": "eA", "index": 0}
    assert thinking("reasoning_details", thought)[0]["reasoning_details"] == [entry, entry]
    assert "reasoning_details" not in thinking("reasoning_details", assistant(Reasoning("hm"), "x"))[0]


def test_no_thought_goes_back_to_who_does_not_want_it() -> None:
    for message in (assistant(Reasoning("hm", DETAILS), "x"), assistant("x")):
        assert thinking("", message) == [{"role": "assistant", "content": "x"}]
    assert thinking("reasoning", assistant("x")) == [{"role": "assistant", "content": "x"}]
