"""Two things that race: one first, the other first, and both at once.

Both at once is repeated: Trio turns the order of what is ready at the same moment around, or not, by the toss of a
coin; and the one or the other gets a head start of some turns of the scheduler, so that they meet in every place.
"""

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.doubles.waiting import pause

ROUNDS = 20
Act = Callable[[], Awaitable[object]]

orders = pytest.mark.parametrize("order", ["first", "second", "together"])


def rounds(order: str) -> range:
    """How often the race is run."""
    return range(ROUNDS if order == "together" else 1)


async def race(order: str, number: int, first: Act, second: Act) -> None:
    """Let them race once. `number` is that of the round."""
    if order == "first":
        await first()
        await second()
        return
    if order == "second":
        await second()
        await first()
        return
    head_start = number % 7 - 3

    async def late(turns: int, act: Act) -> None:
        await pause(turns)
        await act()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(late, max(head_start, 0), first)
        nursery.start_soon(late, max(-head_start, 0), second)
