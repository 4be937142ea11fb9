"""The tool seam: what an agent can do beyond speaking. This file is the specification."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from engine.errors import ToolProblem
from engine.records.ids import MessageId, RunId, SessionId


class Permit(Protocol):
    """Asks for permission, for one call (R31)."""

    async def __call__(
        self, *, action: str, path: Path, description: str = "", params: Mapping[str, object] | None = None
    ) -> None:
        """Return when the call may go on. Raises PermissionDenied; canceled with its run, it leaves nothing open.

        `path` is the directory it happens in, and what a grant for the session covers; `params` are for whoever draws
        the question.
        """
        ...


class Delegate(Protocol):
    """Gives a piece of work to a sub-agent, for one call."""

    async def __call__(self, prompt: str, *, tools: Collection[str]) -> "ToolOutcome":
        """What came of it: its last words. It works in a session of its own, with those tools of this turn that are
        named. What goes wrong with it is an outcome with `is_error`; canceled with its run, it leaves nothing open."""
        ...


async def delegate_to_nobody(prompt: str, *, tools: Collection[str]) -> "ToolOutcome":
    """For calls outside of a turn."""
    await trio.lowlevel.checkpoint()
    raise ToolProblem("there is no sub-agent here")


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call happens. `message_id` is the assistant message that makes it."""

    workspace: Path
    session_id: SessionId
    run_id: RunId
    message_id: MessageId
    call_id: str
    permit: Permit
    delegate: Delegate = delegate_to_nobody


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

    @property
    def is_parallel(self) -> bool:
        """Whether calls of it may run beside other calls of the same step."""
        ...

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Do it. What the model did wrong is an outcome with `is_error`, or a ToolProblem that becomes one.

        Cancellation at any point leaves no process, no half-written file and no open connection behind (R10).
        """
        ...
