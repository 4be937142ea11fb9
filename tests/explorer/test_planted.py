"""The explorer finds what is wrong: bugs that are planted, and the little that each of them needs."""

import pytest

from tests.explorer.explore import Schedule, Verdict, first_violation, play, schedule_of
from tests.explorer.operations.cancels import CancelSession
from tests.explorer.planted import BUGS
from tests.explorer.scenario import Lifetime, Operation, Scenario
from tests.explorer.shrink import shrink

LIMIT = 10_000  # schedules within which each is to be found


@pytest.mark.parametrize("name", BUGS)
def test_r34_a_planted_bug_is_found(name: str) -> None:
    bug = BUGS[name]
    with bug.plant():
        found, _ = first_violation(range(bug.first, bug.first + LIMIT))
    assert found is not None
    schedule, verdict = found
    assert not any("Traceback" in violation for violation in verdict.violations), "a rule finds it, and not an accident"
    assert not play(schedule).violations, "it is not the bug that was found, but something that was there before"


def test_r34_a_violation_is_shrunk_to_what_it_needs() -> None:
    needs_batch = 3

    def plays(schedule: Schedule) -> Verdict:
        """Violates if a session is canceled somewhere, and one batch of tasks is not in order."""
        operations = operations_of(schedule)
        is_canceled = any(isinstance(operation, CancelSession) for operation in operations)
        violates = is_canceled and needs_batch not in schedule.straight
        return Verdict(["violated"] if violates else [], shuffled=8)

    large = next(schedule for schedule in map(schedule_of, range(1000)) if is_large(schedule) and plays(schedule).kind)
    small = shrink(large, plays(large).kind, plays=plays)
    [operation] = operations_of(small)
    assert isinstance(operation, CancelSession)
    assert operation == CancelSession(session=operation.session)
    assert small.scenario == Scenario(lifetimes=(Lifetime(actors=small.scenario.lifetimes[-1].actors),))
    assert small.straight == set(range(8)) - {needs_batch}


def is_large(schedule: Schedule) -> bool:
    """Whether there is much to leave out."""
    scenario = schedule.scenario
    return len(scenario.lifetimes) > 1 and len(operations_of(schedule)) > 5 and scenario.slots < 64


def operations_of(schedule: Schedule) -> list[Operation]:
    """What its actors do."""
    actors = [actor for lifetime in schedule.scenario.lifetimes for actor in lifetime.actors]
    return [operation for actor in actors for operation in actor]
