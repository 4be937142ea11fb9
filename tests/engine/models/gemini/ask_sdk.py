"""Asks Google's own SDK what it hears and sends. `recording` runs it where that is installed; it has nothing of ours.

Reads cases as JSON from standard input and writes what became of them to standard output.
"""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

from google import genai  # type: ignore[import-not-found]
from google.genai import errors, types  # type: ignore[import-not-found]

KEY = "a-key"
REASONS = {"STOP": "end_turn", "MAX_TOKENS": "max_tokens", "SAFETY": "content_filter"}


class Server(ThreadingHTTPServer):
    """Answers every request with the same reply, and remembers the last one."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.body = body.encode()
        self.seen: dict[str, Any] = {}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server  # type: ignore[mutable-override]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen = {"path": self.path, "headers": headers, "body": json.loads(body)}
        self.send_response(self.server.status)
        self.send_header("Content-Type", "text/event-stream" if self.server.status == 200 else "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what is written is the answer."""


@contextmanager
def serving(status: int, body: str) -> Iterator[tuple[Server, Any]]:
    """A server with this reply, and the SDK's client of it."""
    server = Server(status, body)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        options = types.HttpOptions(base_url=f"http://127.0.0.1:{server.server_port}")
        with genai.Client(api_key=KEY, http_options=options) as client:
            yield server, client
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def hear(stream: str) -> dict[str, Any]:
    """What the SDK makes of a stream, put together."""
    whole: dict[str, Any] = {"text": "", "thinking": "", "signatures": [], "calls": [], "reason": "unknown"}
    with serving(200, stream) as (_, client):
        for chunk in client.models.generate_content_stream(model="m", contents="hi"):
            for part in chunk.candidates[0].content.parts or ():
                hear_part(part, whole)
            if chunk.candidates[0].finish_reason:
                whole["reason"] = REASONS[chunk.candidates[0].finish_reason.name]
            if (used := chunk.usage_metadata) is not None:
                cached = used.cached_content_token_count or 0
                output = (used.candidates_token_count or 0) + (used.thoughts_token_count or 0)
                fresh = used.prompt_token_count - cached
                whole["usage"] = {"input_tokens": fresh, "output_tokens": output, "cache_read_tokens": cached}
    if whole["calls"]:
        whole["reason"] = "tool_use"
    return whole


def hear_part(part: Any, whole: dict[str, Any]) -> None:
    """One part, as the SDK read it."""
    kind = "call"
    if part.function_call:
        whole["calls"].append([part.function_call.name, part.function_call.args or {}])
    elif part.thought:
        kind, whole["thinking"] = "thought", whole["thinking"] + (part.text or "")
    else:
        kind, whole["text"] = f"text{len(part.text or '')}", whole["text"] + (part.text or "")
    if part.thought_signature:
        whole["signatures"].append(f"{kind}:{base64.b64encode(part.thought_signature).decode()}")


def refuse(status: int, body: str) -> dict[str, Any]:
    """How the SDK is refused."""
    with serving(status, body) as (_, client):
        try:
            list(client.models.generate_content_stream(model="m", contents="hi"))
        except errors.APIError as error:
            return {"code": error.code, "message": error.message}
    raise AssertionError("the SDK was not refused")


def send(model: str, body: dict[str, Any], reply: str) -> dict[str, Any]:
    """What the SDK sends when it is told what a body of ours says, in its own types, which know no other fields."""
    said, system = body.get("generationConfig", {}), body.get("systemInstruction")
    config = types.GenerateContentConfig(
        system_instruction=typed(types.Content, system) if system else None,
        tools=[typed(types.Tool, tool) for tool in body.get("tools", ())] or None,
        max_output_tokens=said.get("maxOutputTokens"),
        thinking_config=typed(types.ThinkingConfig, said["thinkingConfig"]),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents = [typed(types.Content, content) for content in body["contents"]]
    with serving(200, reply) as (server, client):
        list(client.models.generate_content_stream(model=model, contents=contents, config=config))
        headers = server.seen["headers"]
        assert headers["x-goog-api-key"] == KEY
        return {"path": server.seen["path"], "content-type": headers["content-type"], "body": server.seen["body"]}


def typed(kind: Any, data: object) -> Any:
    """The data as one of the SDK's types."""
    return kind.model_validate_json(json.dumps(data))


def main() -> None:
    """Every case, with what became of it."""
    cases = json.load(sys.stdin)
    told = {
        "sdk": f"google-genai {version('google-genai')}",
        "heard": [{"stream": stream, "whole": hear(stream)} for stream in cases["heard"]],
        "refused": [{**case, "error": refuse(case["status"], case["body"])} for case in cases["refused"]],
        "sent": [
            {"ours": case, "theirs": send(case["model"], case["body"], cases["heard"][0])} for case in cases["sent"]
        ],
    }
    json.dump(told, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
