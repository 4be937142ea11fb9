"""Waiting for what a test cannot be told of, without any time passing."""

from collections.abc import Callable

import trio

MOST = 1000  # turns of the scheduler


async def until(condition: Callable[[], object]) -> None:
    """Let others run until something is true."""
    for _ in range(MOST):
        if condition():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it never came to that")


async def pause(turns: int) -> None:
    """Let others run so many turns of the scheduler."""
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
