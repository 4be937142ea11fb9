"""A provider that speaks OpenAI's Responses: what its answers are made of. They are sent by a `ModelServer`.

server.enqueue(answer(*text(0, "Hello"), stop()))
"""

from collections.abc import Mapping

from tests.doubles.model_server import Move, Reply, event

Event = dict[str, object]
Item = dict[str, object]


def response(status: str = "in_progress", *output: Item, **more: object) -> dict[str, object]:
    """The whole answer, as it stands at some time."""
    return {
        "id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": "scripted", "status": status,
        "output": list(output), "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None,
        "incomplete_details": None, "usage": None, **more,
    }  # fmt: skip


def start() -> list[Event]:
    """The beginning of every answer."""
    return [{"type": f"response.{name}", "response": response()} for name in ("created", "in_progress")]


def item_of(index: int, item: Item, *between: Event) -> list[Event]:
    """An item from when it is added until it is done. What comes in between is told of which it is."""
    empty = {key: [] if isinstance(value, list) else value for key, value in item.items()}
    empty |= {"arguments": ""} if "arguments" in item else {}
    told = [{"item_id": item["id"], "output_index": index, **each} for each in between]
    added = {"type": "response.output_item.added", "output_index": index, "item": {**empty, "status": "in_progress"}}
    done = {"type": "response.output_item.done", "output_index": index, "item": {**item, "status": "completed"}}
    return [added, *told, done]


def message(index: int, *parts: Item, phase: str = "") -> Item:
    """A message as an item."""
    item: Item = {"id": f"msg_{index}", "type": "message", "role": "assistant", "content": list(parts)}
    return item | ({"phase": phase} if phase else {})


def text(index: int, *pieces: str, phase: str = "") -> list[Event]:
    """Words."""
    return _part(index, {"type": "output_text", "text": "".join(pieces), "annotations": []}, pieces, phase=phase)


def refuse(index: int, *pieces: str) -> list[Event]:
    """Words that say no."""
    return _part(index, {"type": "refusal", "refusal": "".join(pieces)}, pieces)


def _part(index: int, part: Item, pieces: tuple[str, ...], *, phase: str = "") -> list[Event]:
    kind = "text" if part["type"] == "output_text" else "refusal"
    name = "output_text" if kind == "text" else "refusal"
    logprobs: dict[str, object] = {"logprobs": []} if kind == "text" else {}
    begun = {**part, kind: ""}
    between: list[Event] = [
        {"type": "response.content_part.added", "content_index": 0, "part": begun},
        *({"type": f"response.{name}.delta", "content_index": 0, "delta": piece, **logprobs} for piece in pieces),
        {"type": f"response.{name}.done", "content_index": 0, kind: part[kind], **logprobs},
        {"type": "response.content_part.done", "content_index": 0, "part": part},
    ]
    return item_of(index, message(index, part, phase=phase), *between)


def thought(index: int, *summary: str, encrypted: str = "") -> Item:
    """A thought as an item."""
    parts = [{"type": "summary_text", "text": part} for part in summary]
    item: Item = {"id": f"rs_{index}", "type": "reasoning", "summary": parts}
    return item | ({"encrypted_content": encrypted} if encrypted else {})


def think(index: int, *summary: str, encrypted: str = "c2VjcmV0") -> list[Event]:
    """A thought: the parts of its summary, each in two pieces, and itself, which nobody may read."""
    between: list[Event] = []
    for number, words in enumerate(summary):
        at = {"summary_index": number}
        part = {"type": "summary_text", "text": words}
        between += [
            {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}},
            {"type": "response.reasoning_summary_text.delta", **at, "delta": words[:1]},
            {"type": "response.reasoning_summary_text.delta", **at, "delta": words[1:]},
            {"type": "response.reasoning_summary_text.done", **at, "text": words},
            {"type": "response.reasoning_summary_part.done", **at, "part": part},
        ]
    return item_of(index, thought(index, *summary, encrypted=encrypted), *between)


def called(index: int, call_id: str, name: str, arguments: str = "{}") -> Item:
    """A call as an item."""
    return {"id": f"fc_{index}", "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def call(index: int, call_id: str, name: str, *pieces: str) -> list[Event]:
    """A call, its arguments in pieces."""
    whole = "".join(pieces)
    deltas: list[Event] = [{"type": "response.function_call_arguments.delta", "delta": piece} for piece in pieces]
    done: Event = {"type": "response.function_call_arguments.done", "arguments": whole, "name": name}
    return item_of(index, called(index, call_id, name, whole), *deltas, done)


def used(prompt: int, output: int, *, cached: int = 0, written: int = 0, reasoning: int = 0) -> dict[str, object]:
    """What it cost."""
    return {
        "input_tokens": prompt, "output_tokens": output, "total_tokens": prompt + output,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens_details": {"reasoning_tokens": reasoning},
    }  # fmt: skip


def stop(*output: Item, why: str = "", usage: Mapping[str, object] | None = None) -> Event:
    """The end: complete, or not and why not."""
    status = "incomplete" if why else "completed"
    details = {"incomplete_details": {"reason": why}} if why else {}
    whole = response(status, *output, usage=dict(usage) if usage else used(12, 5), **details)
    return {"type": f"response.{status}", "response": whole}


def failed(code: str, words: str) -> Event:
    """An end with an error."""
    return {"type": "response.failed", "response": response("failed", error={"code": code, "message": words})}


def error(code: str | None, words: str) -> Event:
    """An error in the stream."""
    return {"type": "error", "code": code, "message": words, "param": None, "sequence_number": 7}


def named(data: Mapping[str, object], number: int = 0) -> bytes:
    """One event with its name before it and its number in it, as OpenAI sends it."""
    return b"event: " + str(data["type"]).encode() + b"\n" + event({"sequence_number": number, **data})


def answer(*events: Move | Mapping[str, object], begin: bool = True) -> Reply:
    """A reply that streams these events, each in a piece of its own; moves in between are kept."""
    moves = [*(start() if begin else ()), *events]
    return Reply(tuple(named(m, n) if isinstance(m, Mapping) else m for n, m in enumerate(moves)))
