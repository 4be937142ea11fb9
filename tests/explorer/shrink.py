"""Shrinking: from a schedule that violates something to one with as little in it as possible that violates the same.

Everything that can be left out of a schedule is tried: servers, actors, operations, words of scripts, troubles of the
disk, pauses, and batches of tasks that run in the order in which they were made instead of the one that was drawn.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from tests.explorer.explore import Schedule, Verdict, play
from tests.explorer.operations.prompts import Accept
from tests.explorer.scenario import Lifetime, Operation, Scenario

MOST_TRIES = 2000  # schedules that are played for one

T = TypeVar("T")
Data = TypeVar("Data", bound=msgspec.Struct)


def shrink(schedule: Schedule, kind: str, *, plays: Callable[[Schedule], Verdict] = play) -> Schedule:
    """The smallest schedule to be found that has a violation of this kind."""
    left = MOST_TRIES

    def violates(candidate: Schedule) -> bool:
        nonlocal left
        left -= 1
        return plays(candidate).kind == kind

    is_smaller = True
    while is_smaller and left > 0:
        is_smaller = False
        for candidate in _smaller(schedule, plays):
            if left <= 0:
                break
            if violates(candidate):
                schedule, is_smaller = candidate, True
                break
    return schedule


def _smaller(schedule: Schedule, plays: Callable[[Schedule], Verdict]) -> Iterator[Schedule]:
    """Schedules with a little less in them, the boldest first."""
    replace = msgspec.structs.replace
    for scenario in _smaller_scenarios(schedule.scenario):
        yield replace(schedule, scenario=scenario)
    drawn = sorted(set(range(plays(schedule).shuffled)) - schedule.straight)
    size = len(drawn)
    while size:
        for start in range(0, len(drawn), size):
            yield replace(schedule, straight=schedule.straight | set(drawn[start : start + size]))
        size //= 2


def _smaller_scenarios(scenario: Scenario) -> Iterator[Scenario]:
    lifetimes = scenario.lifetimes
    for shorter in _without_one(lifetimes):
        if shorter and shorter[-1].end.how == "rest":
            yield msgspec.structs.replace(scenario, lifetimes=shorter)
    for less in _with_one(lifetimes, _smaller_lifetimes):
        if less[-1].end.how == "rest":
            yield msgspec.structs.replace(scenario, lifetimes=less)
    yield from _more_usual(scenario)


def _smaller_lifetimes(lifetime: Lifetime) -> Iterator[Lifetime]:
    replace = msgspec.structs.replace
    for actors in (*_without_one(lifetime.actors), *_with_one(lifetime.actors, _smaller_actors)):
        yield replace(lifetime, actors=actors)
    for disk in _more_usual(lifetime.disk):
        yield replace(lifetime, disk=disk)
    yield from _more_usual(lifetime)


def _smaller_actors(actor: tuple[Operation, ...]) -> Iterator[tuple[Operation, ...]]:
    yield from _without_one(actor)
    yield from _with_one(actor, _smaller_operations)


def _smaller_operations(operation: Operation) -> Iterator[Operation]:
    yield from _more_usual(operation)
    if isinstance(operation, Accept):
        replace = msgspec.structs.replace
        for script in _without_one(operation.script):
            yield replace(operation, script=script)
        for scripts in (*_without_one(operation.sub_agents), *_with_one(operation.sub_agents, _without_one)):
            yield replace(operation, sub_agents=scripts)


def _more_usual(data: Data) -> Iterator[Data]:
    """The data with each of its fields, in turn, as it is by default."""
    for field in msgspec.structs.fields(data):
        if field.default is not msgspec.NODEFAULT and getattr(data, field.name) != field.default:
            yield msgspec.structs.replace(data, **{field.name: field.default})


def _without_one(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """The items without each of them in turn, the last first."""
    for number in reversed(range(len(items))):
        yield items[:number] + items[number + 1 :]


def _with_one(items: tuple[T, ...], smaller: Callable[[T], Iterator[T]]) -> Iterator[tuple[T, ...]]:
    """The items with each of them made smaller in turn."""
    for number, item in enumerate(items):
        for less in smaller(item):
            yield (*items[:number], less, *items[number + 1 :])
