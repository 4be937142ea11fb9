"""Cancels at every point of the story: `python -m tests.story.cancels`.

A point is a place where a task of the run gives way, and how often one came there before. The story is told once
without a cancel, to see them; then once more for each, in a session of its own, canceled there, and asked for again
until it is done.
"""

import argparse
import logging
import sys
import tempfile
import traceback
from collections import deque
from pathlib import Path

import structlog
import trio

from tests.doubles.invariants import check_database, check_invariants
from tests.story.aftermath import Aftermath
from tests.story.attempt import attempt
from tests.story.everywhere import check_command, check_done
from tests.story.office import Office, open_office
from tests.story.points import Point, shown
from tests.story.telling import NOTES_TASK, TASK

OFFICE_POINTS = 20  # that share an engine


class Campaign:
    """Goes through the points; counts what became of them."""

    def __init__(self, task: str, *, has_threads: bool) -> None:
        self._task = task
        self.canceled = 0
        self.passed_by = 0  # not met again: how often the network delivers is not the same each time
        self.uncovered = 0  # the run was not registered yet, or had ended
        self.violations = 0
        self.point: Point = ((), 0)  # where it is canceled now
        self._has_threads = has_threads

    async def find(self) -> list[Point]:
        """Every point of a story that nobody cancels."""
        with tempfile.TemporaryDirectory(prefix="countermand-cancels-") as directory:
            async with open_office(Path(directory), task=self._task, has_threads=self._has_threads) as office:
                made = await attempt(office, lambda point: False)
                points = list(office.points.order)
                await check_done(office, Aftermath(office), made)
                await office.end_notes()
        return points

    async def cancel_at(self, points: deque[Point]) -> None:
        """Cancel at the next of these points, with one engine, and take them away. Raises what does not hold."""
        with tempfile.TemporaryDirectory(prefix="countermand-cancels-") as directory:
            async with open_office(Path(directory), task=self._task, has_threads=self._has_threads) as office:
                aftermath = Aftermath(office)
                for _ in range(min(len(points), OFFICE_POINTS)):
                    self.point = points.popleft()
                    await self._cancel_at(office, aftermath, self.point)
                await office.end_notes()
                await check_invariants(office.backend, office.workspace)

    async def _cancel_at(self, office: Office, aftermath: Aftermath, point: Point) -> None:
        await office.begin_work()
        made = await attempt(office, lambda passed: passed == point)
        await aftermath.check(made)
        check_database(office.backend.store)
        if made.covered:
            self.canceled += 1
            check_command(office, made)
            again = await attempt(office, lambda passed: False)
            await check_done(office, aftermath, again)
        elif made.points:
            self.uncovered += 1
        else:
            self.passed_by += 1

    def __str__(self) -> str:
        return (
            f"{self.canceled} points canceled, {self.uncovered} with nothing to cancel, {self.passed_by} not met again,"
            f" {self.violations} violations"
        )


async def run(options: argparse.Namespace) -> int:
    """Find the points, and cancel at them."""
    campaign = Campaign(NOTES_TASK if options.notes else TASK, has_threads=options.threads)
    points = await campaign.find()
    print(f"{len(points)} points at {len({place for place, _ in points})} places")
    left = deque(points[options.first - 1 :: options.every])
    while left:
        try:
            await campaign.cancel_at(left)
        except* (AssertionError, trio.TooSlowError) as group:
            campaign.violations += 1
            print(f"VIOLATION, canceled at {shown(campaign.point)} (--first {points.index(campaign.point) + 1})")
            print("".join(traceback.format_exception(group)))
        print(f"{campaign}; {len(left)} left", flush=True)
    return 1 if campaign.violations else 0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.story.cancels", description=__doc__)
    parser.add_argument("--threads", action="store_true", help="the store on the disk, and files in threads")
    parser.add_argument("--notes", action="store_true", help="the work of the other session")
    parser.add_argument("--every", type=int, default=1, help="take each n-th point")
    parser.add_argument("--first", type=int, default=1, help="begin with the point of this number")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    return trio.run(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
