"""The bugs that are planted. Every one that a file in here defines is looked for."""

from tests.explorer.planted import asking, delegating, lanes, recovering, telling, writing
from tests.explorer.planted.registry import BUGS

__all__ = ["BUGS", "asking", "delegating", "lanes", "recovering", "telling", "writing"]
