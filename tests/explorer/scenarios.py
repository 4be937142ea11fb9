"""The scenario of a seed."""

from collections.abc import Sequence

import msgspec

from tests.explorer.draw import Draw
from tests.explorer.operations import KINDS
from tests.explorer.operations.prompts import Accept
from tests.explorer.scenario import Disk, End, Lifetime, Operation, Scenario

# Which change of a server's is the one that fails: rather an early one, for that is when prompts come.
_CHANGES = (1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8, 9, 10, 12, 14, 17, 20)


def scenario_of(seed: int) -> Scenario:
    """The scenario that a seed stands for."""
    draw = Draw(seed)
    kinds = [kind for kind in KINDS if not kind.feature or kind.feature in draw.features]
    lifetimes = [_lifetime(draw, kinds, budget=draw.number(1, 5))]
    while len(lifetimes) < 3 and lifetimes[-1].end.how != "rest":
        lifetimes.append(_lifetime(draw, kinds, budget=draw.choice((0, 0, 1, 2, 3)), chance=30))
    if lifetimes[-1].end.how != "rest":
        lifetimes.append(Lifetime())
    return Scenario(
        lifetimes=tuple(lifetimes),
        sessions=draw.sessions,
        slots=draw.of("few slots", (1, 1, 2)) or 64,
        queue_per_session=draw.of("short queues", (1, 2)) or 100,
        queue_per_workspace=draw.of("short queues", (2, 3, 100)) or 1000,
        is_kept="clients" not in draw.features,
        reader_buffer=draw.of("readers", (512, 3, 6)) or 512,
        before_entry=draw.lags() if "slow entries" in draw.features else (0,),
    )


def _lifetime(draw: Draw, kinds: Sequence[type[Operation]], *, budget: int, chance: int = 100) -> Lifetime:
    actors: list[list[Operation]] = [[] for _ in range(draw.number(1, 3))]
    if "crowds" in draw.features and budget:
        actors = [[_crowding(draw)] for _ in range(draw.number(2, 4))]
    for _ in range(budget):
        operation = draw.one_of(kinds)
        if operation is not None:
            ms, passes = draw.pause()
            draw.choice(actors).append(msgspec.structs.replace(operation, ms=ms, passes=passes))
    disk = _disk(draw, chance)
    return Lifetime(
        actors=tuple(tuple(actor) for actor in actors if actor),
        disk=disk,
        end=_end(draw, chance, dies=disk.dies is not None),
    )


def _crowding(draw: Draw) -> Operation:
    """A prompt that comes at the same moment as others to the same session."""
    return draw.remember(msgspec.structs.replace(Accept.drawn(draw), session=0))


def _disk(draw: Draw, chance: int) -> Disk:
    is_slow = "slow disk" in draw.features
    fails = stalls = dies = None
    if "failing disk" in draw.features and draw.percent(chance):
        fails = (draw.choice(_CHANGES), draw.choice((1, 1, 2, 5)))
    if "stalled disk" in draw.features and draw.percent(chance):
        stalls = (draw.choice(_CHANGES), draw.choice((0.01, 0.2, 3.0, 6.0, 25.0)))
    if "deaths" in draw.features and draw.percent(chance):
        dies = (draw.choice(_CHANGES), draw.percent(50))
    return Disk(
        before_commit=draw.lags() if is_slow else (0,),
        after_commit=draw.lags() if is_slow else (0,),
        before_read=draw.lags() if is_slow else (0,),
        fails=fails,
        stalls=stalls,
        dies=dies,
    )


def _end(draw: Draw, chance: int, *, dies: bool) -> End:
    ms = draw.choice((0, 1, 5, 20, 60, 300))
    if dies:
        return End(how="kill", ms=draw.choice((300, 2000)))
    if "kills" in draw.features and draw.percent(chance):
        return End(how="kill", ms=ms)
    if "drains" in draw.features and draw.percent(chance):
        return End(how="drain", ms=ms, drain_ms=draw.choice((0, 30, 1000)), hurry_ms=draw.choice((None, None, 10)))
    return End()
