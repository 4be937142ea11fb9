"""The points at which a run can be canceled: each place where a task of it gives way, found by watching Trio.

A place is the stack of the engine's own lines at which a task waits; how often the task came there before is the rest
of the point. Nothing here names a place: what the loop and the tools wait for is seen while they do it.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

import engine
from tests.doubles.task_order import ordered_by

ENGINE = f"{Path(engine.__file__ or '').parent}/"
# What a run's tasks are made of, and what they start themselves belongs to them: its acceptance, the run, its agent,
# and the commands of its tools.
ROOTS = {"Workspace.accept", "Runner.conduct", "Answering.run", "Jobs._run"}

Place = tuple[str, ...]  # the engine's lines, the outermost first, as "runs/run.py:178 _perform"
Point = tuple[Place, int]  # the place, and how often a task came there, this time included


class Points(trio.abc.Instrument):
    """Sees each point that is passed, and reports the next that is `wanted`, in the moment in which the task has given
    way; then it looks away until somebody waits for another one."""

    def __init__(self) -> None:
        self.order: list[Point] = []  # all that were seen since `watch`
        self._passed: Counter[Place] = Counter()
        self._wanted: Callable[[Point], bool] | None = None
        self._hit: Point | None = None
        self._found = trio.Event()

    def watch(self, wanted: Callable[[Point], bool]) -> None:
        """Count from now on, and look for points that are wanted."""
        self._passed.clear()
        self.order, self._wanted, self._hit = [], wanted, None
        self._found = trio.Event()

    def look_away(self) -> None:
        """Look for nothing any more; who waits for a point is told."""
        self._wanted = None
        self._found.set()

    async def found(self) -> Point | None:
        """The next point, as soon as it is found; nothing else has run since, with `first_in_line`. None: there is
        none."""
        if self._wanted is not None:
            self._hit, self._found = None, trio.Event()
        await self._found.wait()
        return self._hit

    def report(self, place: Place) -> bool:
        """A task is at this place; whether somebody waited for it. For what the engine's tasks do not show
        themselves."""
        if self._wanted is None or self._hit is not None:
            return False
        self._passed[place] += 1
        point = place, self._passed[place]
        self.order.append(point)
        if self._wanted(point):
            self._hit = point
            self._found.set()
        return self._hit is not None

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Trio's: the task has given way."""
        if self._wanted is not None and is_of_a_run(task) and (place := place_of(task)):
            self.report(place)


def is_of_a_run(task: trio.lowlevel.Task) -> bool:
    """Whether the task works for a run."""
    current: trio.lowlevel.Task | None = task
    while current is not None:
        code = getattr(current.coro, "cr_code", None)
        if code is not None and code.co_filename.startswith(ENGINE) and code.co_qualname in ROOTS:
            return True
        current = current.parent_nursery.parent_task if current.parent_nursery is not None else None
    return False


def place_of(task: trio.lowlevel.Task) -> Place:
    """Where the task waits; nowhere, if it has ended."""
    return tuple(
        f"{frame.f_code.co_filename.removeprefix(ENGINE)}:{line} {frame.f_code.co_name}"
        for frame, line in task.iter_await_frames()
        if frame.f_code.co_filename.startswith(ENGINE)
    )


def shown(point: Point) -> str:
    """The point in words."""
    place, number = point
    return f"{' > '.join(place)}, time {number}"


class Line(random.Random):
    """Puts one task in front of each batch. Trio takes a batch from its end."""

    def __init__(self, first: trio.lowlevel.Task) -> None:
        super().__init__(0)
        self._first = first

    def shuffle(self, batch: MutableSequence[Any]) -> None:
        """Put the batch in order; the others as they come."""
        if self._first in batch:
            batch.remove(self._first)
            batch.append(self._first)


@contextmanager
def first_in_line() -> Iterator[None]:
    """The task that enters this is always the first to run among those that are ready: it acts at the very point that
    it was told of."""
    with ordered_by(Line(trio.lowlevel.current_task())):
        yield
