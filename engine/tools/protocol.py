"""The tool seam: what an agent can do beyond speaking."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from engine.records.ids import RunId, SessionId


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call happens."""

    workspace: Path
    session_id: SessionId
    run_id: RunId
    call_id: str


class ToolOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a call came to: text for the model, and a JSON document for whoever draws it. `ends_turn` stops the turn."""

    content: str
    metadata: str = ""
    data: str = ""
    mime_type: str = ""
    is_error: bool = False
    ends_turn: bool = False


class Tool(Protocol):
    """One tool. `parameters` is the JSON schema of its arguments."""

    @property
    def name(self) -> str:
        """How the model calls it."""
        ...

    @property
    def description(self) -> str:
        """What the model is told of it."""
        ...

    @property
    def parameters(self) -> Mapping[str, object]:
        """The JSON schema of its arguments, an object."""
        ...

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Do it. What the model did wrong is an outcome with `is_error`, never an exception.

        Cancellation at any point leaves no process, no half-written file and no open connection behind (R10).
        """
        ...
