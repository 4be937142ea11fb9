"""What the cancels at every point rely on in Trio: its instruments, its view of waiting tasks, its order of tasks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from tests.story.points import first_in_line


class Teller(trio.abc.Instrument):
    """Sets an event as soon as a task of this name has given way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.given_way = trio.Event()
        self.frames: list[str] = []

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio's."""
        if task.name == self.name:
            self.frames += [frame.f_code.co_name for frame, _ in task.iter_await_frames()]
            self.given_way.set()


async def test_who_is_first_in_line_acts_before_the_task_that_it_was_told_of_goes_on() -> None:
    for _ in range(20):  # Trio would toss a coin each time
        steps: list[str] = []

        async def work(steps: list[str] = steps) -> None:
            await trio.lowlevel.checkpoint()
            steps.append("the task went on")

        teller = Teller("work")
        trio.lowlevel.add_instrument(teller)
        with first_in_line():
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(trio.lowlevel.checkpoint, name=f"another {number}")
                nursery.start_soon(work, name="work")
                await teller.given_way.wait()
                steps.append("told")
        trio.lowlevel.remove_instrument(teller)
        assert steps == ["told", "the task went on"]


async def test_a_waiting_task_is_seen_through_context_managers_and_generators() -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[None]:
        await trio.sleep_forever()
        yield

    async def work() -> None:
        async with opened():
            pass

    teller = Teller("work")
    trio.lowlevel.add_instrument(teller)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, name="work")
        await teller.given_way.wait()
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(teller)
    assert "opened" in teller.frames
