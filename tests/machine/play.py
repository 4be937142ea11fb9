"""How the machine is played."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, Phase, seed, settings

from tests.machine.machine import ServiceMachine

STEPS = 30  # of an example, at most


def settings_for(examples: int, *, is_fixed: bool = True, shrinks: bool = True) -> settings:
    """So many examples; the same ones each time if they are fixed."""
    return settings(
        max_examples=examples, stateful_step_count=STEPS, derandomize=is_fixed, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), print_blob=False, report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
    )  # fmt: skip


@contextmanager
def played(machine: type[ServiceMachine], number: int) -> Iterator[type[ServiceMachine]]:
    """The machine, whose examples are drawn from this number. What is there now is not looked at for garbage."""
    gc.collect()
    gc.freeze()
    try:
        yield seed(number)(machine)
    finally:
        gc.unfreeze()
