"""A gate in the way of a task: the test sees when the task has arrived, and decides when it goes on."""

import trio


class Gate:
    """`await gate.pass_through()` stops there until `open()`; `await gate.reached()` waits for the first arrival."""

    def __init__(self, *, is_open: bool = False) -> None:
        self._arrived = trio.Event()
        self._opened = trio.Event()
        self.arrivals = 0
        if is_open:
            self._opened.set()

    async def pass_through(self, *_: object) -> None:
        """Stop here until the gate is open."""
        self.arrivals += 1
        self._arrived.set()
        await self._opened.wait()

    async def reached(self) -> None:
        """Return once a task stands at the gate, or has passed it."""
        await self._arrived.wait()

    def open(self) -> None:
        """Let through whoever stands here, and whoever comes."""
        self._opened.set()
