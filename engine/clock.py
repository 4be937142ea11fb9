"""Time. Durations are Trio's clock; moments are that clock laid on the calendar once, when it is opened (R33)."""

import time
from datetime import UTC, datetime

import trio

MICROSECONDS = 1_000_000


class Clock:
    """Tells moments as whole microseconds since the epoch, and never goes backwards.

    The calendar is read once. After that only Trio's clock moves it, so that a test's MockClock decides what time it
    is, and a system clock that jumps cannot reorder what was recorded.
    """

    def __init__(self, start_us: int | None = None) -> None:
        self._start_us = calendar_us() if start_us is None else start_us
        self._start = trio.current_time()

    def now_us(self) -> int:
        """The present moment, in microseconds since the epoch."""
        return self._start_us + round((trio.current_time() - self._start) * MICROSECONDS)


def calendar_us() -> int:
    """What the system's calendar says now, for code outside of Trio."""
    return time.time_ns() // 1000


def seconds(moment_us: int) -> int:
    """The moment in whole Unix seconds, as the Crush shapes want it."""
    return moment_us // MICROSECONDS


def rfc3339(moment_us: int) -> str:
    """The moment as RFC 3339 in UTC with microseconds."""
    whole, micros = divmod(moment_us, MICROSECONDS)
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{micros:06d}Z"
