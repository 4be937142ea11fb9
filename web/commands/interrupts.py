"""Ctrl-C in a command that has something to put in order first: the first one asks, the second one insists."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Interrupts:
    """Who was interrupted how often. SIGTERM counts as Ctrl-C does."""

    def __init__(self) -> None:
        self.count = 0
        self.insisted = trio.CancelScope()  # for the caller to enter; the second one cancels it
        self._asked: list[trio.CancelScope] = []

    @contextmanager
    def asked(self) -> Iterator[None]:
        """The first interrupt, even one that came before, ends what is in here. Whether it did, `count` tells."""
        with trio.CancelScope() as scope:
            self._asked.append(scope)
            if self.count:
                scope.cancel()
            try:
                yield
            finally:
                self._asked.remove(scope)

    def arrive(self) -> None:
        """An interrupt has come."""
        self.count += 1
        if self.count > 1:
            self.insisted.cancel()
        for scope in self._asked:
            scope.cancel()


@contextmanager
def catch_interrupts() -> Iterator[Interrupts]:
    """Take SIGINT and SIGTERM over for a while. In the main thread, inside `trio.run`."""
    interrupts = Interrupts()
    token = trio.lowlevel.current_trio_token()

    def arrive(number: int, frame: object) -> None:
        token.run_sync_soon(interrupts.arrive)

    before = {number: signal.signal(number, arrive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
