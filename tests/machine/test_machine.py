"""A fixed number of examples in which no promise is broken. `make machine` plays as many as you like."""

from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import ServiceMachine
from tests.machine.play import settings_for

EXAMPLES = 40


def test_no_promise_is_broken_in_a_fixed_number_of_examples() -> None:
    run_state_machine_as_test(ServiceMachine, settings=settings_for(EXAMPLES))
