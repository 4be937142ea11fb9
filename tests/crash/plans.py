"""Where the servers of a case die, one after another."""

import random

from tests.crash.points import POINTS, When

RANDOM = "at-random"  # killed from outside, at any moment under load
ANY_MOMENT = {RANDOM: 0.3, "starting-at-random": 0.5, "leaving-at-random": 1.0}  # and within how many seconds
DEATHS = 16  # in a case: each server takes up what the one before it left


def plan(seed: int) -> list[str]:
    """A server dies as it begins, then one of whatever, in the order of the seed: each point as often as any other, in
    as many cases as it takes to go once around."""
    first, others = first_and_others()
    random.Random(1).shuffle(others)
    at = seed * (DEATHS - 2)
    return [first[seed % len(first)], RANDOM, *(others[(at + step) % len(others)] for step in range(DEATHS - 2))]


def first_and_others() -> tuple[list[str], list[str]]:
    """The points of a server that starts over nothing, and all others."""
    first = [name for name, point in POINTS.items() if point.when is When.FIRST]
    return first, [name for name in (*POINTS, *ANY_MOMENT) if name not in first]


def is_starting(death: str) -> bool:
    """Whether it comes before there is any load of its own."""
    return death == "starting-at-random" or (death in POINTS and POINTS[death].when in {When.FIRST, When.STARTING})


def is_leaving(death: str) -> bool:
    """Whether the server is told to leave before."""
    return death == "leaving-at-random" or (death in POINTS and POINTS[death].when is When.LEAVING)
