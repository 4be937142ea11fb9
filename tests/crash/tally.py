"""What came of many kills, for the table."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

LOADED = 50  # runs in flight, for a kill to count as one under load


@dataclass
class Tally:
    """What came of a case, or of several."""

    kills: Counter[str] = field(default_factory=Counter)  # by point
    in_flight: Counter[str] = field(default_factory=Counter)  # accepted, and not yet ended as the clients know it
    unfinished: Counter[str] = field(default_factory=Counter)  # runs that the crashes found unfinished, by point
    least: dict[str, int] = field(default_factory=dict)  # in flight at any of these kills
    loaded: int = 0  # kills with as many in flight as there are to be
    acknowledged: int = 0  # prompts answered with 202
    resent: int = 0  # prompts that were not answered, and were sent again
    named: int = 0  # runs that the answer of a cancel named
    completed: int = 0
    failed: int = 0
    canceled: int = 0
    interrupted: int = 0
    retried: int = 0
    events: int = 0
    asked: int = 0  # of a person, by a tool
    answered: int = 0  # and decided, as the answer was told
    withdrawn: int = 0
    files: int = 0
    violations: int = 0

    def count_kill(self, death: str, in_flight: int) -> None:
        """A server died there, with so many in flight."""
        self.kills[death] += 1
        self.in_flight[death] += in_flight
        self.least[death] = min(in_flight, self.least.get(death, in_flight))
        self.loaded += in_flight >= LOADED

    def add(self, other: "Tally") -> None:
        """Count another one in."""
        for name, value in vars(other).items():
            if name != "least":
                setattr(self, name, getattr(self, name) + value)
        for death, least in other.least.items():
            self.least[death] = min(least, self.least.get(death, least))

    def __str__(self) -> str:
        lines = [f"{'killed':26}{'times':>8}{'in flight':>12}{'at least':>12}{'left':>12}"]
        for point, count in sorted(self.kills.items()):
            means = f"{self.in_flight[point] / count:>12.1f}{self.least[point]:>12}"
            lines.append(f"{point:26}{count:>8}{means}{self.unfinished[point] / count:>12.1f}")
        total = max(self.kills.total(), 1)
        means = f"{self.in_flight.total() / total:>12.1f}{min(self.least.values(), default=0):>12}"
        lines.append(f"{'all':26}{self.kills.total():>8}{means}{self.unfinished.total() / total:>12.1f}")
        numbers: Mapping[str, int] = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        return "\n".join((*lines, "", *(f"{name:26}{number:>8}" for name, number in numbers.items())))
