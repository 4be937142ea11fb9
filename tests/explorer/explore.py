"""Exploring: one schedule after another, each from its seed, all in one `trio.run`."""

import gc
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, takewhile

import msgspec
import trio

from engine.store import rows
from engine.store.open import Database
from tests.doubles.record import Record
from tests.explorer.disk import Memory, furnish
from tests.explorer.rules import violations
from tests.explorer.scenario import Scenario
from tests.explorer.scenarios import scenario_of
from tests.explorer.schedule import TaskOrder, begin, decided, quickened, quietly_collect, schedule_clock
from tests.explorer.world import World

COLLECT_EVERY = 200  # schedules between two collections of garbage; in between there are none


class Schedule(msgspec.Struct, frozen=True):
    """A scenario with an order of its tasks."""

    scenario: Scenario
    seed: int  # of the order
    straight: frozenset[int] = frozenset()


class Verdict(msgspec.Struct):
    """What came of a schedule."""

    violations: list[str]
    shuffled: int = 0
    passes: int = 0
    runs: int = 0
    story: Sequence[str] = ()

    @property
    def kind(self) -> str:
        """The first violation without what is particular to this schedule."""
        return re.sub(r"\br\d+\b|\bs\d\b|\d+", "#", self.violations[0])[:160] if self.violations else ""


def schedule_of(seed: int) -> Schedule:
    """The schedule that a seed stands for."""
    return Schedule(scenario_of(seed), seed)


class Explorer:
    """Plays schedules, and hands each to `found` with what came of it. `tells` keeps the story of each."""

    def __init__(self, found: Callable[[Schedule, Verdict], None], *, tells: bool = False) -> None:
        self._found = found
        self._tells = tells
        self._memory = Memory()
        self._world: World | None = None

    def explore(self, schedules: Iterable[Schedule]) -> None:
        """Play them all. Nothing else may run in this process meanwhile."""
        left = iter(schedules)
        with decided():
            while (schedule := next(left, None)) is not None:
                self._explore_from(schedule, left)
        self._memory.forget()

    def _explore_from(self, schedule: Schedule, left: Iterator[Schedule]) -> None:
        """Play schedules in one `trio.run`, until there are no more, or one never ends."""
        playing = [schedule]

        async def play_all() -> None:
            with quickened():
                for count, one in enumerate(chain(playing, left)):
                    playing[0] = one
                    self._found(one, await self._play(one))
                    if count % COLLECT_EVERY == COLLECT_EVERY - 1:
                        gc.collect()

        what = ""
        gc.freeze()  # what is there now stays: it need not be looked at each time
        gc.disable()
        try:
            trio.run(play_all, clock=schedule_clock())
        except trio.TrioInternalError as error:
            what = f"it never ends: {error.__cause__!r} (R22)"
        finally:
            gc.enable()
            gc.unfreeze()
        story = self._world.ledger.story if self._world is not None else ()
        self._world = None
        if what:
            quietly_collect()
            self._memory.forget()
            self._found(playing[0], Verdict([what], story=story))

    async def _play(self, schedule: Schedule) -> Verdict:
        scenario = schedule.scenario
        database = self._memory.emptied()
        furnish(database, scenario.sessions, is_kept=scenario.is_kept)
        order = TaskOrder(schedule.seed, schedule.straight)
        self._world = world = World(scenario, database, tells=self._tells)
        begin(order)
        try:
            await world.play()
        except* Exception as group:
            world.ledger.violate("".join(traceback.format_exception(group)))
        found = list(violations(scenario, world.ledger, record_of(database)))
        if found:
            self._memory.forget()
        runs = len({asked.run.id for asked in world.ledger.asked if asked.run is not None})
        return Verdict(found, order.shuffled, order.passes, runs, world.ledger.story)


def play(schedule: Schedule, *, tells: bool = False) -> Verdict:
    """Play one schedule."""
    verdicts: list[Verdict] = []
    Explorer(lambda _, verdict: verdicts.append(verdict), tells=tells).explore([schedule])
    return verdicts[0]


def first_violation(seeds: Iterable[int]) -> tuple[tuple[Schedule, Verdict] | None, int]:
    """Play these until one violates something; that one with its verdict, and how many were played."""
    first: list[tuple[Schedule, Verdict]] = []
    played = 0

    def found(schedule: Schedule, verdict: Verdict) -> None:
        nonlocal played
        played += 1
        if verdict.violations:
            first.append((schedule, verdict))

    Explorer(found).explore(schedule_of(seed) for seed in takewhile(lambda _: not first, seeds))
    return (first[0] if first else None), played


def explore_chunk(seeds: range) -> tuple[int, list[tuple[int, Verdict]]]:
    """What one process does."""
    verdicts: list[tuple[int, Verdict]] = []

    def found(schedule: Schedule, verdict: Verdict) -> None:
        verdicts.append((schedule.seed, verdict))

    Explorer(found).explore(map(schedule_of, seeds))
    return len(seeds), verdicts


def record_of(database: Database) -> Record:
    """Everything that is stored of the one workspace."""
    db = database.reader
    return Record(
        events=[rows.event_from_row(row) for row in db.execute("SELECT * FROM events ORDER BY seq")],
        runs=[rows.run_from_row(row) for row in db.execute("SELECT * FROM runs ORDER BY seq")],
        messages=[rows.message_from_row(row) for row in db.execute("SELECT * FROM messages ORDER BY turn, position")],
    )
