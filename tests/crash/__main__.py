"""Kill servers under load, start them again, and check what their clients were told: `python -m tests.crash`."""

import argparse
import shutil
import sys
import tempfile
import traceback
from itertools import count
from pathlib import Path

import trio

from tests.crash.case import Case, Size
from tests.crash.forks import Forks, open_forks, start_fork_server
from tests.crash.ledger import Violation, leaves
from tests.crash.plans import plan
from tests.crash.tally import Tally


class Campaign:
    """Cases, until there were enough kills."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._size = Size(in_flight=options.in_flight, sessions=options.sessions)
        self._kills = options.kills
        self._is_impatient = options.first
        self._seeds = count(options.seed)
        self.tally = Tally()

    async def work(self, forks: Forks) -> None:
        """One case after another."""
        await trio.lowlevel.checkpoint()
        while self.tally.loaded < self._kills and not (self._is_impatient and self.tally.violations):
            await self._case(next(self._seeds), forks)

    async def _case(self, seed: int, forks: Forks) -> None:
        directory = Path(tempfile.mkdtemp(prefix=f"crash-{seed}-"))
        case = Case(seed, forks, directory, self._size)
        deaths = plan(seed)
        try:
            await case.run(deaths)
        except* (AssertionError, trio.TooSlowError) as group:
            case.tally.violations += 1
            print(f"seed {seed}: VIOLATION; its data is kept in {directory}")
            print(f"  again: python -m tests.crash --kills 1 --seed {seed}")
            for error in leaves(group):
                is_known = isinstance(error, Violation)
                print("  " + (str(error) if is_known else "".join(traceback.format_exception(error))))
        else:
            shutil.rmtree(directory)
        self.tally.add(case.tally)
        print(f"seed {seed}: {' '.join(deaths)}; {self.tally.loaded} of {self._kills} kills", flush=True)


async def run(options: argparse.Namespace) -> int:
    """Run them, and print the table; of the cases that were finished, if it is broken off."""
    campaign = Campaign(options)
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(options.jobs):
                nursery.start_soon(work, campaign)
    finally:
        print(campaign.tally, flush=True)
    return 1 if campaign.tally.violations else 0


async def work(campaign: Campaign) -> None:
    """One of those who run cases, with a fork server of its own."""
    with start_fork_server() as process:
        async with open_forks(process) as forks:
            await campaign.work(forks)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=500, help="with 50 runs in flight or more, at least")
    parser.add_argument("--seed", type=int, default=1, help="of the first case; each has the next")
    parser.add_argument(
        "--in-flight", type=int, default=60, help="runs to be accepted and unfinished before a server dies"
    )
    parser.add_argument("--sessions", type=int, default=30)
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    return trio.run(run, parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
