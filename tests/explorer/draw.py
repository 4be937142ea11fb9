"""Drawing: the dice of one scenario.

Each scenario gets a few features and leaves the others out ("swarm testing"): small scenarios of few kinds meet in more
ways than large ones of everything.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

from engine.records.run import IfBusy
from tests.explorer.scenario import Operation
from tests.explorer.sub_agents import SubAgents

T = TypeVar("T")
Kind = TypeVar("Kind", bound=Operation)

# How likely each feature is, in percent.
FEATURES = {
    "crowds": 15,
    "at once": 25,
    "cancels": 70,
    "clears": 20,
    "steers": 35,
    "interrupts": 25,
    "rejects": 12,
    "deadlines": 20,
    "retries": 30,
    "keys": 12,
    "repeats": 15,
    "hanging up": 10,
    "tools": 30,
    "requests": 25,
    "failing agents": 20,
    "stubborn agents": 10,
    "slow disk": 45,
    "slow entries": 35,
    "few slots": 20,
    "short queues": 10,
    "clients": 15,
    "readers": 45,
    "session deletes": 15,
    "closes": 12,
    "kills": 6,
    "deaths": 8,
    "drains": 6,
    "failing disk": 15,
    "stalled disk": 8,
    "bugs": 3,
}

_PAUSES_MS = (0, 0, 0, 0, 0, 0, 1, 20, 50, 300)
_LAGS = (0, 0, 0, 0, 1, 1, 3)
_TALK = ("say", "say:9", "say", "think", "think:1", "turns:1", "turns:3", "ms:1", "ms:20", "ms:50", "further", "use:7")
_TOOLS = ("call", "call:30", "call", "reject", "half", "job")
_REQUESTS = ("change", "change:20", "change", "change", "question")
_FAILURES = ("fail", "bug", "fail", "bug", "leave", "garbage")
_STUBBORN = ("stubborn:1000", "stubborn:5000", "swallow:300", "swallow:9000", "fall:9000")


class Draw:
    """The dice of one scenario, and what they gave so far."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.features = frozenset(name for name, percent in FEATURES.items() if self._random.random() * 100 < percent)
        self.sessions = self.choice((1, 1, 1, 2, 2, 3))
        self.sub_agents = SubAgents(seed)
        self._names = 0
        self._operations: list[Operation] = []

    def choice(self, values: Sequence[T]) -> T:
        """One of these."""
        return values[int(self._random.random() * len(values))]

    def percent(self, percent: float) -> bool:
        """So often true."""
        return self._random.random() * 100 < percent

    def number(self, lowest: int, highest: int) -> int:
        """A number of this range, both ends included."""
        return lowest + int(self._random.random() * (highest - lowest + 1))

    def remember(self, operation: Kind) -> Kind:
        """The operation, which may be referred to by later ones."""
        self._operations.append(operation)
        return operation

    def of(self, feature: str, values: Sequence[T]) -> T | None:
        """One of these, or None if the scenario does not have the feature."""
        return self.choice(values) if feature in self.features else None

    def session(self) -> int:
        """A session."""
        return self.number(0, self.sessions - 1)

    def new_name(self) -> str:
        """A name for another prompt."""
        self._names += 1
        return f"r{self._names}"

    def earlier(self, kind: type[Kind]) -> Kind | None:
        """An operation of this kind that was drawn before, rather a late one."""
        found = [operation for operation in self._operations if isinstance(operation, kind)]
        return self.choice(found[-3:]) if found else None

    def one_of(self, kinds: Sequence[type[Operation]]) -> Operation | None:
        """An operation of one of these kinds, by their weights."""
        (kind,) = self._random.choices(kinds, [kind.weight for kind in kinds])
        operation = kind.drawn(self)
        return self.remember(operation) if operation is not None else None

    def pause(self) -> tuple[int, int]:
        """Milliseconds, and turns of the scheduler. Where all comes at once, there are nearly none."""
        if "at once" in self.features:
            return 0, self.choice((0, 0, 1))
        return self.choice(_PAUSES_MS), self.number(0, 3)

    def lags(self) -> tuple[int, ...]:
        """Some numbers of turns of the scheduler."""
        return tuple(self.choice(_LAGS) for _ in range(self.number(1, 4)))

    def if_busy(self) -> IfBusy:
        """What happens to a prompt behind another."""
        choices = [IfBusy.ENQUEUE] * 3
        choices += [IfBusy.STEER] * (4 if "steers" in self.features else 0)
        choices += [IfBusy.INTERRUPT] * (2 if "interrupts" in self.features else 0)
        choices += [IfBusy.REJECT] * (2 if "rejects" in self.features else 0)
        return self.choice(choices)

    def script(self) -> tuple[str, ...]:
        """What an agent does."""
        words: tuple[str, ...] = _TALK
        if "tools" in self.features:
            words += _TOOLS
        if "requests" in self.features:
            words += _REQUESTS
        if "steers" in self.features:
            words += ("steered", "steered", "further")
        script = [self.choice(words) for _ in range(self.number(1, 5))]
        if "stubborn agents" in self.features and self.percent(40):
            script.append(self.choice(_STUBBORN))
        elif "failing agents" in self.features and self.percent(40):
            script.append(self.choice(_FAILURES))
        elif self.percent(25):
            script.append("ms:9000")
        return tuple(script)
