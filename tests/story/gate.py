"""The gate of the repository's `check.sh`: the test sees that the command is up, and what it has started beside it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio


class CommandGate:
    """Two named pipes: the command writes into `up` when it has come to the gate, and waits for a line from `go`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("up", "go"):
            os.mkfifo(directory / name)
        # For reading and writing both, so that neither side ever waits for the other to open its end.
        self._up, self._go = (os.open(directory / name, os.O_RDWR | os.O_NONBLOCK) for name in ("up", "go"))

    async def reached(self) -> None:
        """Return once a command stands at the gate."""
        await trio.lowlevel.wait_readable(self._up)
        drain(self._up)

    def open(self) -> None:
        """Let the command go on."""
        os.write(self._go, b"\n")

    def reset(self) -> None:
        """Forget a command that is dead."""
        drain(self._up)
        drain(self._go)

    def close(self) -> None:
        """Close the pipes."""
        os.close(self._up)
        os.close(self._go)


def drain(descriptor: int) -> None:
    """Take what is there."""
    with suppress(BlockingIOError):
        while os.read(descriptor, 1024):
            pass


@contextmanager
def open_gate(directory: Path) -> Iterator[CommandGate]:
    """A gate in a directory of its own."""
    directory.mkdir()
    gate = CommandGate(directory)
    try:
        yield gate
    finally:
        gate.close()
