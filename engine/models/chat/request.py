"""From a `ModelRequest` to the body of a chat-completions request."""

from collections.abc import Iterable

from engine.models.attachments import IMAGES, result_and_media, words_and_media
from engine.models.chat.wire import Details
from engine.models.protocol import ModelInfo, ModelMessage, ModelRequest
from engine.models.settings import ReasoningField
from engine.records.message import Attachment, Reasoning


def chat_body(
    request: ModelRequest, info: ModelInfo, *, max_tokens_field: str = "max_tokens",
    reasoning_field: ReasoningField = "",
) -> dict[str, object]:  # fmt: skip
    """The body: streaming, with the usage at its end. What the model thought goes back in `reasoning_field`, if there
    is one: some providers refuse a call whose thought is not there, others refuse the field."""
    body: dict[str, object] = {
        "model": info.id,
        "messages": list(_messages(request, info, reasoning_field)),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
            for t in request.tools
        ]
    if request.max_tokens is not None:
        body[max_tokens_field] = request.max_tokens
    if effort := info.effort_for(request.reasoning_effort):
        body["reasoning_effort"] = effort
    return body


def _messages(request: ModelRequest, info: ModelInfo, reasoning_field: ReasoningField) -> Iterable[dict[str, object]]:
    if request.system:
        yield {"role": "system", "content": request.system}
    for message in request.messages:
        match message.role:
            case "user":
                words, images = words_and_media(message, info, IMAGES)
                yield {"role": "user", "content": _content(words, images)}
            case "assistant":
                if message.text or message.tool_calls:  # an empty one is refused by some providers
                    yield _assistant(message) | _thought(message, reasoning_field)
            case "tool":
                yield from _results(message, info)


def _assistant(message: ModelMessage) -> dict[str, object]:
    wire: dict[str, object] = {"role": "assistant", "content": message.text or None}
    if message.tool_calls:
        wire["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.input or "{}"}}
            for call in message.tool_calls
        ]
    return wire


def _thought(message: ModelMessage, field: ReasoningField) -> dict[str, object]:
    told: object = message.reasoning
    if field == "reasoning_details":
        told = Details.parse(part.signature for part in message.parts if isinstance(part, Reasoning))
    return {field: told} if field and told else {}


def _results(message: ModelMessage, info: ModelInfo) -> Iterable[dict[str, object]]:
    """The results of calls. They hold words only; what they show follows them, as if the user had sent it."""
    images: list[Attachment] = []
    for result in message.tool_results:
        words, image = result_and_media(result, info, IMAGES)
        images += [image] if image else []
        yield {"role": "tool", "tool_call_id": result.tool_call_id, "content": words}
    if images:
        yield {"role": "user", "content": _content("This is what the tools have shown:", images)}


def _content(words: str, images: Iterable[Attachment]) -> str | list[dict[str, object]]:
    urls = [f"data:{image.mime_type};base64,{image.content}" for image in images]
    if not urls:
        return words
    parts: list[dict[str, object]] = [{"type": "text", "text": words}] if words else []
    return parts + [{"type": "image_url", "image_url": {"url": url}} for url in urls]
