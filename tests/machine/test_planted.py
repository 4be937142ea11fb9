"""The machine finds what is wrong: bugs that are planted in the engine, within its first examples."""

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.explorer.planted import BUGS
from tests.machine.machine import ServiceMachine
from tests.machine.play import settings_for

LIMIT = 25  # examples within which each is to be found; the same ones each time


@pytest.mark.parametrize(("name", "rule"), [("two_runs_at_once", "(R14)"), ("ending_before_its_words", "(R19)")])
def test_r34_a_planted_bug_is_found(name: str, rule: str) -> None:
    with BUGS[name].plant():
        assert rule in broken_promise()


def broken_promise() -> str:
    """What the machine finds."""
    with pytest.raises(AssertionError) as found:
        run_state_machine_as_test(ServiceMachine, settings=settings_for(LIMIT, shrinks=False))
    return str(found.value)
