"""How many requests a provider has open."""

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec


class RequestStatistics(msgspec.Struct, frozen=True):
    """A snapshot: requests that were begun, and those of them whose connection is closed or given back."""

    opened: int = 0
    closed: int = 0

    @property
    def open(self) -> int:
        """Requests in flight."""
        return self.opened - self.closed


class RequestCount:
    """Counts the requests of one provider."""

    def __init__(self) -> None:
        self._opened = 0
        self._closed = 0

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request, from before it is made until its context is left."""
        self._opened += 1
        try:
            yield
        finally:
            self._closed += 1

    def statistics(self) -> RequestStatistics:
        """The counts as they stand."""
        return RequestStatistics(self._opened, self._closed)
