"""Cancelling at a chosen step: the n-th time that a coroutine gives way."""

import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

import trio


@types.coroutine
def stepped(work: Coroutine[Any, Any, object], before_step: Callable[[int], None]) -> Generator[Any, Any, object]:
    """Do the work, and call `before_step` with 1, 2, … each time that it gives way, just before it does."""
    step = 0
    resume: Callable[[], Any] = partial(work.send, None)
    while True:
        try:
            trap = resume()
        except StopIteration as end:
            return end.value
        step += 1
        before_step(step)
        try:
            given = yield trap
        except BaseException as error:
            resume = partial(work.throw, error)
        else:
            resume = partial(work.send, given)


async def cancel_at(step: int, work: Coroutine[Any, Any, object]) -> bool:
    """Do the work, cancel it at this step, and say whether it came that far."""
    reached = False
    with trio.CancelScope() as scope:

        def look(now: int) -> None:
            nonlocal reached
            if now == step:
                reached = True
                scope.cancel()

        await stepped(work, look)
    return reached
