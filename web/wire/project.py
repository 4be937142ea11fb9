"""What a project says of itself, as Crush's client reads it."""

import msgspec


class NeedsInit(msgspec.Struct, frozen=True):
    """Whether a person should be asked to have the project described."""

    needs_init: bool


class InitPrompt(msgspec.Struct, frozen=True):
    """What to send to the agent for that."""

    prompt: str
