"""The order in which Trio runs the tasks that are ready."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import trio._core._run as trio_run


@contextmanager
def ordered_by(order: random.Random) -> Iterator[None]:
    """Each batch is sorted by when its tasks were made, and then shuffled by this. Under a switch of Trio's own; a
    private interface, which `tests/stack` holds."""
    usual = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING = order, True  # type: ignore[misc]
    try:
        yield
    finally:
        trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING = usual  # type: ignore[misc]
