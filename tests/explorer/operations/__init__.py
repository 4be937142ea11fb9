"""What actors do. Every subclass of `Operation` that a file in here defines is drawn."""

from tests.explorer.operations import cancels, clients, prompts, requests, servers
from tests.explorer.scenario import Operation

__all__ = ["KINDS", "cancels", "clients", "prompts", "requests", "servers"]

KINDS: tuple[type[Operation], ...] = tuple(Operation.__subclasses__())
