"""Commands of the shell as Crush's client sends them, and what they come to."""

from typing import Annotated

import msgspec
from msgspec import Meta

COMMAND_MAX = 30_000  # characters: the system takes 128 KiB for one argument
WIDTH_MAX = 10_000


class RunCommand(msgspec.Struct, frozen=True, kw_only=True):
    """The body: a command of one or more lines, and how wide the terminal is that will show what it writes."""

    command: Annotated[str, Meta(min_length=1, max_length=COMMAND_MAX, pattern=r"^[^\x00]*$")]
    term_width: Annotated[int, Meta(ge=0, le=WIDTH_MAX)] = 0


class CommandResult(msgspec.Struct, frozen=True):
    """What was written, and the exit code; 137 for a command that was killed."""

    output: str
    exit_code: int
