"""`agent`: lets a sub-agent look for something."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from engine.tools.arguments import read_arguments, schema_of
from engine.tools.protocol import ToolContext, ToolOutcome

READ_ONLY = frozenset({"glob", "grep", "ls", "view"})


class AgentArguments(msgspec.Struct, frozen=True, kw_only=True):
    """What the model gives."""

    prompt: Annotated[str, Meta(min_length=1, description="What to find out, and what to report")]


class AgentTool:
    """Implements `Tool`."""

    name = "agent"
    description = (
        "Let a sub-agent find something out. It has view, ls, glob and grep, and changes nothing. It sees nothing of"
        " this conversation: say in the prompt all that it needs, and what its report is to hold. You get its last"
        " words; the person does not see them, so tell them what matters. Use it for a search that may take many steps,"
        " and give several calls at once for searches that do not depend on each other. Where you know the file or the"
        " name, view or grep is faster."
    )
    parameters: Mapping[str, object] = schema_of(AgentArguments)
    is_parallel = True

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> ToolOutcome:
        """Wait for its report. Canceled, it ends with its run."""
        asked = read_arguments(arguments, AgentArguments)
        return await context.delegate(asked.prompt, tools=READ_ONLY)
