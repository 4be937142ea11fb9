"""From a `ModelRequest` to the body of a Responses request."""

from collections.abc import Iterable

from engine.models.attachments import IMAGES, PDF, result_and_media, words_and_media
from engine.models.call_ids import plain_call_id
from engine.models.protocol import ModelInfo, ModelMessage, ModelRequest, ModelToolResult
from engine.models.responses.wire import ItemSignature
from engine.records.message import Attachment, Reasoning, Text, ToolCall

LEAST_LIMIT = 16  # tokens; the protocol takes no less
SHOWN = IMAGES | {PDF}

_Item = dict[str, object]


def responses_body(request: ModelRequest, info: ModelInfo) -> dict[str, object]:
    """The body: streaming, and with nothing left at the provider: a session has one home, and thoughts are sent back,
    encrypted as they came."""
    body: dict[str, object] = {
        "model": info.id,
        "input": [item for message in request.messages for item in _items(message, info)],
        "stream": True,
        "store": False,
    }
    if request.system.strip():
        body["instructions"] = request.system
    if request.session_id:
        body["prompt_cache_key"] = request.session_id  # requests of a session find the cache of the one before
    if request.tools:
        body["tools"] = [
            # Strict schemas know no optional fields, and are what an unsaid `strict` would mean.
            {"type": "function", "name": t.name, "description": t.description, "parameters": t.parameters,
             "strict": False}
            for t in request.tools
        ]  # fmt: skip
    if request.max_tokens is not None:
        body["max_output_tokens"] = max(request.max_tokens, LEAST_LIMIT)
    if info.can_reason:
        effort = info.effort_for(request.reasoning_effort)
        body["reasoning"] = {"summary": "auto"} | ({"effort": effort} if effort else {})
        body["include"] = ["reasoning.encrypted_content"]
    return body


def _items(message: ModelMessage, info: ModelInfo) -> Iterable[_Item]:
    match message.role:
        case "user":
            words, media = words_and_media(message, info, SHOWN)
            yield {"role": "user", "content": _content(words, media)}
        case "assistant":
            items = list(_answered(message))
            while items and items[-1].get("type") == "reasoning":  # cut off before it came to anything
                items.pop()
            yield from items
        case "tool":
            for result in message.tool_results:
                yield _result(result, info)


def _answered(message: ModelMessage) -> Iterable[_Item]:
    words = ""
    for part in message.parts:
        match part:
            case Text(text):
                words += text
            case ToolCall():
                yield from _said(words)
                yield {
                    "type": "function_call", "call_id": plain_call_id(part.id), "name": part.name,
                    "arguments": part.input or "{}",
                }  # fmt: skip
                words = ""
            case Reasoning(thinking=thinking, signature=kept):
                signature = ItemSignature.parse(kept)
                if signature is None:  # a thought that is not encrypted is not wanted back
                    continue
                if signature.kind == "message":
                    cut = max(len(words) - signature.characters, 0)
                    yield from _said(words[:cut])
                    yield from _said(words[cut:], phase=signature.value)
                else:
                    yield from _said(words)
                    yield _thought(thinking, signature)
                words = ""
    yield from _said(words)


def _said(words: str, *, phase: str = "") -> Iterable[_Item]:
    if words.strip():
        item: _Item = {"role": "assistant", "content": words}
        yield item | ({"phase": phase} if phase else {})


def _thought(thinking: str, signature: ItemSignature) -> _Item:
    return {
        "type": "reasoning",
        "id": signature.id,
        "summary": [{"type": "summary_text", "text": thinking}] if thinking else [],
        "encrypted_content": signature.value,
    }


def _result(result: ModelToolResult, info: ModelInfo) -> _Item:
    words, shown = result_and_media(result, info, SHOWN)
    output = _content(words, (shown,) if shown is not None else ())
    return {"type": "function_call_output", "call_id": plain_call_id(result.tool_call_id), "output": output}


def _content(words: str, media: tuple[Attachment, ...]) -> str | list[dict[str, object]]:
    if not media:
        return words
    parts: list[dict[str, object]] = [{"type": "input_text", "text": words}] if words else []
    return parts + [_media(each) for each in media]


def _media(attachment: Attachment) -> dict[str, object]:
    url = f"data:{attachment.mime_type};base64,{attachment.content}"
    if attachment.mime_type == PDF:
        return {"type": "input_file", "filename": attachment.file_name or "file.pdf", "file_data": url}
    return {"type": "input_image", "image_url": url, "detail": "auto"}
