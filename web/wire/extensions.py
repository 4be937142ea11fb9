"""Language servers, MCP servers and skills as Crush's client reads them. There are none yet, but it asks."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(min_length=1, max_length=1000)]


class LspClient(msgspec.Struct, frozen=True, kw_only=True):
    """A language server."""

    name: str
    state: int


class McpClient(msgspec.Struct, frozen=True, kw_only=True):
    """An MCP server."""

    name: str
    state: str


class McpPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt of an MCP server."""

    id: str
    prompt_id: str
    client_id: str


class PendingAuth(msgspec.Struct, frozen=True, kw_only=True):
    """An MCP server that waits for somebody to sign in."""

    name: str
    url: str


class SkillInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A skill."""

    id: str
    name: str
    description: str


class LspPath(msgspec.Struct, frozen=True, kw_only=True):
    """The file that a language server could be for."""

    path: str = ""


class McpQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which MCP server is asked for."""

    name: Name


class McpName(msgspec.Struct, frozen=True, kw_only=True):
    """Which MCP server is meant."""

    name: Name


class McpResource(msgspec.Struct, frozen=True, kw_only=True):
    """Which resource of which MCP server."""

    name: Name
    uri: str = ""


class McpPromptCall(msgspec.Struct, frozen=True, kw_only=True):
    """Which prompt of which MCP server, here called `client_id`."""

    client_id: Name
    prompt_id: str = ""
    args: dict[str, Any] = {}


class SkillName(msgspec.Struct, frozen=True, kw_only=True):
    """Which skill."""

    skill_id: Name
