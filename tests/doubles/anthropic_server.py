"""A provider that speaks Anthropic's Messages: what its answers are made of. They are sent by a `ModelServer`.

server.enqueue(answer(*text(0, "Hello"), *stop()))
"""

from collections.abc import Mapping

from tests.doubles.model_server import Move, Reply, event

USAGE = {"input_tokens": 12, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
Event = dict[str, object]


def start(**usage: int) -> Event:
    """The beginning of every message."""
    message: dict[str, object] = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "scripted", "content": [],
        "stop_reason": None, "stop_sequence": None, "usage": USAGE | usage,
    }  # fmt: skip
    return {"type": "message_start", "message": message}


def block(index: int, content: Mapping[str, object], *deltas: Mapping[str, object]) -> list[Event]:
    """A content block from its start to its end."""
    return [
        {"type": "content_block_start", "index": index, "content_block": dict(content)},
        *({"type": "content_block_delta", "index": index, "delta": dict(delta)} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[Event]:
    """Words."""
    deltas = ({"type": "text_delta", "text": piece} for piece in pieces)
    return block(index, {"type": "text", "text": ""}, *deltas)


def thinking(index: int, *pieces: str, signature: str = "c2lnbmVk") -> list[Event]:
    """Thinking, signed; without pieces, only the signature comes."""
    deltas: list[dict[str, object]] = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    deltas += [{"type": "signature_delta", "signature": signature}] if signature else []
    return block(index, {"type": "thinking", "thinking": "", "signature": ""}, *deltas)


def redacted(index: int, data: str) -> list[Event]:
    """Thinking that nobody may read."""
    return block(index, {"type": "redacted_thinking", "data": data})


def tool_use(index: int, call_id: str, name: str, *pieces: str) -> list[Event]:
    """A call, its input in pieces."""
    deltas = ({"type": "input_json_delta", "partial_json": piece} for piece in pieces)
    return block(index, {"type": "tool_use", "id": call_id, "name": name, "input": {}}, *deltas)


def stop(reason: str = "end_turn", **usage: int) -> list[Event]:
    """The end of every message."""
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5} | usage},
        {"type": "message_stop"},
    ]


def error(kind: str, message: str) -> Event:
    """An error, in the stream or as a body."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


def named(data: Mapping[str, object]) -> bytes:
    """One event with its name before it, as Anthropic sends it."""
    return b"event: " + str(data["type"]).encode() + b"\n" + event(data)


def answer(*events: Move | Mapping[str, object], begin: bool = True) -> Reply:
    """A reply that streams these events, each in a piece of its own; moves in between are kept."""
    first: list[Move] = [named(start()), named({"type": "ping"})] if begin else []
    return Reply((*first, *(named(each) if isinstance(each, Mapping) else each for each in events)))
