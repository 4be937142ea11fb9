"""Sub-agents of a scenario: which prompts have them, and what each does.

They have dice of their own: a seed stands for what it did before there were any, but for those that get some.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

from tests.explorer.ledger import Script

T = TypeVar("T")

PERCENT = 9  # of scenarios
PERCENT_OF_PROMPTS = 60  # in those

_NUMBERS = (1, 1, 2, 2, 3)  # of sub-agents side by side
_TALK = ("say", "say:9", "think", "turns:1", "turns:3", "ms:1", "ms:20", "ms:50", "further", "use:7")
_CALLS = ("look", "look", "look:30", "peek", "peek:20", "call", "half", "reject")
_FAILURES = ("fail", "bug", "leave", "garbage")
_STUBBORN = ("stubborn:1000", "swallow:300", "swallow:9000", "fall:9000")
_HANGS = "ms:9000"


class SubAgents:
    """The dice of the sub-agents of one scenario."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"sub-agents of {seed}")
        self.are_there = self._percent(PERCENT)

    def joined(self, script: Script) -> tuple[Script, tuple[Script, ...]]:
        """The script of a prompt with sub-agents in it, if it gets any, and what they do."""
        if not (self.are_there and self._percent(PERCENT_OF_PROMPTS)):
            return script, ()
        scripts = tuple(self._script() for _ in range(self._choice(_NUMBERS)))
        place = self._number(len(script))
        return (*script[:place], f"agents:{len(scripts)}", *script[place:]), scripts

    def _script(self) -> Script:
        words = [self._choice(self._choice((_TALK, _CALLS))) for _ in range(self._number(3))]
        if self._percent(45):
            words.append(_HANGS)
        elif self._percent(20):
            words.append(self._choice(_FAILURES))
        elif self._percent(8):
            words.append(self._choice(_STUBBORN))
        return tuple(words)

    def _choice(self, values: Sequence[T]) -> T:
        return values[int(self._random.random() * len(values))]

    def _number(self, highest: int) -> int:
        """A number from 0 on."""
        return int(self._random.random() * (highest + 1))

    def _percent(self, percent: float) -> bool:
        return self._random.random() * 100 < percent
