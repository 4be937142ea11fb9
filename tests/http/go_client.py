"""Crush's client, as a server sees it: requests as Go's `net/http` writes them, answers as its decoders read them.

It keeps connections in a pool, as Go does: a request takes an idle one, or makes one. A body is decoded by declared
types: unknown keys are ignored, missing ones are zero, `null` does nothing, keys match in any case; a wrong type is an
error, and so are a message without `parts` and a part of an unknown type.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote

import trio

from tests.doubles.live_server import Answer, Connection

SAFE_IN_SEGMENT = "$&+=:@-_.~"  # what Go leaves alone in a path


class Go(Enum):
    """Go's basic types."""

    STRING = str
    INT = int
    FLOAT = (int, float)
    BOOL = bool
    ANY = object


@dataclass(frozen=True)
class ListOf:
    """A slice."""

    kind: Any


@dataclass(frozen=True)
class MapOf:
    """A map with strings for keys."""

    kind: Any


class Undecodable(Exception):
    """What Go's decoder would have refused."""


def decode(kind: Any, value: Any, where: str = "$") -> Any:
    """The value as Go would hold it: everything declared is there."""
    if value is None:
        return zero(kind)
    if isinstance(kind, Go):
        if kind is not Go.ANY and (
            not isinstance(value, kind.value) or isinstance(value, bool) is not (kind is Go.BOOL)
        ):
            raise Undecodable(f"{where}: {value!r} is no {kind.name}")
        return value
    if isinstance(kind, ListOf):
        if not isinstance(value, list):
            raise Undecodable(f"{where}: {value!r} is no list")
        return [decode(kind.kind, each, f"{where}[{at}]") for at, each in enumerate(value)]
    if not isinstance(value, dict):
        raise Undecodable(f"{where}: {value!r} is no object")
    if isinstance(kind, MapOf):
        return {key: decode(kind.kind, each, f"{where}.{key}") for key, each in value.items()}
    if kind is MESSAGE:
        return _message(value, where)
    return _struct(kind, value, where)


def _struct(kind: Mapping[str, Any], value: Mapping[str, Any], where: str) -> dict[str, Any]:
    found = {name: zero(each) for name, each in kind.items()}
    names = {name.lower(): name for name in kind}
    for key, each in value.items():
        if key.lower() in names:
            name = names[key.lower()]
            found[name] = decode(kind[name], each, f"{where}.{key}")
    return found


def _message(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    if "parts" not in value:
        raise Undecodable(f"{where}: a message without parts")
    message = _struct(MESSAGE, value, where)
    for at, part in enumerate(message["parts"]):
        if part["type"] not in PARTS:
            raise Undecodable(f"{where}.parts[{at}]: unknown type {part['type']!r}")
        part["data"] = decode(PARTS[part["type"]], part["data"], f"{where}.parts[{at}].data")
    return message


def zero(kind: Any) -> Any:
    """Go's zero value."""
    if isinstance(kind, Go):
        return {Go.STRING: "", Go.INT: 0, Go.FLOAT: 0.0, Go.BOOL: False, Go.ANY: None}[kind]
    return None if isinstance(kind, ListOf | MapOf) else {name: zero(each) for name, each in kind.items()}


def strings(*names: str) -> dict[str, Any]:
    """Fields that are strings."""
    return dict.fromkeys(names, Go.STRING)


# -- what the client decodes -------------------------------------------------------------------------------------------

VERSION = strings("version", "commit", "build_id", "go_version", "platform")
ERROR = strings("message")
SELECTED = {
    **strings("model", "provider", "reasoning_effort"), "think": Go.BOOL, "max_tokens": Go.INT, "top_k": Go.INT,
    **dict.fromkeys(("temperature", "top_p", "frequency_penalty", "presence_penalty"), Go.FLOAT),
    "provider_options": MapOf(Go.ANY),
}  # fmt: skip
MODEL = {
    **strings("id", "name", "default_reasoning_effort"), "reasoning_levels": ListOf(Go.STRING),
    **dict.fromkeys(("cost_per_1m_in", "cost_per_1m_out", "cost_per_1m_in_cached", "cost_per_1m_out_cached"), Go.FLOAT),
    "context_window": Go.INT, "default_max_tokens": Go.INT, "can_reason": Go.BOOL, "supports_attachments": Go.BOOL,
    "options": {"temperature": Go.FLOAT, "top_p": Go.FLOAT, "top_k": Go.INT, "provider_options": MapOf(Go.ANY)},
}  # fmt: skip
PROVIDER = {
    **strings("id", "name", "base_url", "type", "api_key", "system_prompt_prefix"), "disable": Go.BOOL,
    "extra_headers": MapOf(Go.STRING), "models": ListOf(MODEL),
}  # fmt: skip
OPTIONS = {
    "tui": {"compact_mode": Go.BOOL, "diff_mode": Go.STRING, "transparent": Go.BOOL, "scrollbar": Go.STRING},
    **dict.fromkeys(("context_paths", "skills_paths", "disabled_tools", "disabled_skills"), ListOf(Go.STRING)),
    **strings("data_directory", "initialize_as", "notifications"),
    **dict.fromkeys(("debug", "debug_lsp", "disable_auto_summarize", "disable_metrics", "progress"), Go.BOOL),
}
CONFIG = {
    "models": MapOf(SELECTED), "recent_models": MapOf(ListOf(SELECTED)), "providers": MapOf(PROVIDER),
    "options": OPTIONS, "permissions": {"allowed_tools": ListOf(Go.STRING)}, "mcp": MapOf(Go.ANY), "lsp": MapOf(Go.ANY),
}  # fmt: skip
WORKSPACE = {
    **strings("id", "path", "data_dir", "version", "client_id"), "yolo": Go.BOOL, "debug": Go.BOOL, "config": CONFIG,
    "env": ListOf(Go.STRING), "channels": ListOf(Go.STRING),
    "skills": ListOf({**strings("name", "path", "error"), "state": Go.INT}),
}  # fmt: skip
AGENT_INFO = {"is_busy": Go.BOOL, "is_ready": Go.BOOL, "model": MODEL, "model_cfg": SELECTED}
SESSION = {
    **strings("id", "parent_session_id", "title", "summary_message_id"), "cost": Go.FLOAT, "is_busy": Go.BOOL,
    **dict.fromkeys(("message_count", "prompt_tokens", "completion_tokens", "created_at", "updated_at"), Go.INT),
    "attached_clients": Go.INT, "todos": ListOf(strings("content", "status", "active_form")),
}  # fmt: skip
MESSAGE = {
    **strings("id", "role", "session_id", "model", "provider"), "created_at": Go.INT, "updated_at": Go.INT,
    "is_summary_message": Go.BOOL, "parts": ListOf({"type": Go.STRING, "data": Go.ANY}),
}  # fmt: skip
PARTS: dict[str, Any] = {
    "text": strings("text"),
    "reasoning": {**strings("thinking", "signature"), "started_at": Go.INT, "finished_at": Go.INT},
    "image_url": strings("url", "detail"),
    "binary": strings("Path", "MIMEType", "Data"),
    "tool_call": {**strings("id", "name", "input", "type"), "finished": Go.BOOL},
    "tool_result": {
        **strings("tool_call_id", "name", "content", "data", "mime_type", "metadata"), "is_error": Go.BOOL
    },
    "finish": {**strings("reason", "message", "details"), "time": Go.INT},
    "shell_command": {**strings("command", "output"), "exit_code": Go.INT},
}  # fmt: skip
RUN_COMPLETE = {**strings("session_id", "run_id", "message_id", "text", "error"), "cancelled": Go.BOOL}
AGENT_EVENT = {
    **strings("type", "error", "run_id", "session_id", "session_title", "progress"), "done": Go.BOOL, "message": Go.ANY
}  # fmt: skip
PAYLOADS: dict[str, Any] = {
    "message": MESSAGE,
    "session": SESSION,
    "run_complete": RUN_COMPLETE,
    "agent_event": AGENT_EVENT,
    "config_changed": strings("workspace_id"),
}
ENVELOPE = {"type": Go.STRING, "payload": {"type": Go.STRING, "payload": Go.ANY}}


# -- the client --------------------------------------------------------------------------------------------------------


class EventLines:
    """The event stream, read as the client reads it: a line is blank, or it is `data:` with a whole document."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.warnings: list[bytes] = []  # what the client would fill its log with
        self.blank_lines = 0
        self._rest = b""
        self._lines: list[bytes] = []

    async def next_event(self) -> tuple[str, str, dict[str, Any]] | None:
        """Type, kind and payload of the next event; None at the end of the stream."""
        while (line := await self._line()) is not None:
            if not line.strip():
                self.blank_lines += 1
            elif not line.startswith(b"data:"):
                self.warnings.append(line)
            else:
                envelope = decode(ENVELOPE, json.loads(line[5:]))
                inner = envelope["payload"]
                if envelope["type"] not in PAYLOADS:
                    self.warnings.append(line)
                    continue
                if envelope["type"] == "agent_event" and "message" in inner["payload"]:
                    decode(MESSAGE, inner["payload"]["message"])
                return envelope["type"], inner["type"], decode(PAYLOADS[envelope["type"]], inner["payload"])
        return None

    async def _line(self) -> bytes | None:
        while not self._lines:
            data = await self.answer.receive()
            if not data:
                return None
            *self._lines, self._rest = (self._rest + data).split(b"\n")
        return self._lines.pop(0)


class GoClient:
    """One client process."""

    def __init__(self, address: str) -> None:
        scheme, _, self._place = address.partition("://")
        self._is_unix = scheme == "unix"
        self._idle: list[Connection] = []
        self.connections: list[Connection] = []

    async def probe(self) -> None:
        """Connect to the socket and close it without a word."""
        await (await self._connect()).stream.aclose()

    async def call(
        self, method: str, path: str, body: Any = None, *, kind: Any = None, content_type: str = "application/json"
    ) -> tuple[int, Any]:
        """The status, and the body as the client decodes it: `kind` of a success, else the error."""
        async with self.open(method, path, body, content_type=content_type) as answer:
            await answer.read()
        assert answer.has_ended_properly
        if answer.status not in (200, 202):
            return answer.status, decode(ERROR, json.loads(answer.body))["message"]
        return answer.status, None if kind is None else decode(kind, json.loads(answer.body))

    @asynccontextmanager
    async def events(self, path: str) -> AsyncIterator[EventLines]:
        """The event stream, from the moment of its 200."""
        more = {"Accept": "text/event-stream", "Cache-Control": "no-cache", "Connection": "keep-alive"}
        async with self.open("GET", path, headers=more) as answer:
            assert answer.status == 200
            yield EventLines(answer)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Answer]:
        """A request, until its answer's head is there. The connection is used again if the body was read to its end."""
        connection = self._idle.pop() if self._idle else await self._connect()
        content = b"" if body is None else json.dumps(body, separators=(",", ":")).encode() + b"\n"
        sent = {"User-Agent": "Go-http-client/1.1"}
        if content or method in ("POST", "PUT"):
            sent["Content-Length"] = str(len(content))
        if content:
            sent["Content-Type"] = content_type
        sent |= headers or {}
        if not self._is_unix:
            sent["Accept-Encoding"] = "gzip"
        await connection.send(method, path, content or None, headers=sent)
        answer = await connection.answer()
        assert "content-encoding" not in answer.headers
        try:
            yield answer
        finally:
            if answer.has_ended_properly:
                self._idle.append(connection)
            else:
                connection.stream.socket.close()

    async def aclose(self) -> None:
        """The process ends."""
        for connection in self.connections:
            connection.stream.socket.close()
        await trio.lowlevel.checkpoint()

    async def _connect(self) -> Connection:
        if self._is_unix:
            stream = await trio.open_unix_socket(self._place)
        else:
            host, _, port = self._place.partition(":")
            stream = await trio.open_tcp_stream(host, int(port))
        connection = Connection(stream, {"Host": "api.crush.localhost" if self._is_unix else self._place})
        self.connections.append(connection)
        return connection


@asynccontextmanager
async def open_go_client(address: str) -> AsyncIterator[GoClient]:
    """A client of the server at `http://host:port` or `unix:///path`."""
    client = GoClient(address)
    try:
        yield client
    finally:
        with trio.move_on_after(1, shield=True):
            await client.aclose()


def segment(text: str) -> str:
    """One segment of a path, escaped as Go does."""
    return quote(text, safe=SAFE_IN_SEGMENT)
