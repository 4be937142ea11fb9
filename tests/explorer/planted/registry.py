"""Planted bugs: what the explorer is tested with. Each puts something wrong into the engine, for as long as its context
lasts; an explorer that plays on without noticing is worth nothing (R34)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import msgspec

put = patch.object  # puts another attribute in the place of the usual one


class Bug(msgspec.Struct, frozen=True):
    """One bug. The suite looks for it from the seed `first` on, so as not to play hundreds of schedules each time;
    `make explore ARGS=--planted` looks from 0."""

    plant: Callable[[], AbstractContextManager[None]]
    first: int


BUGS: dict[str, Bug] = {}


def bug(*, first: int = 0) -> Callable[[Callable[[], Iterator[None]]], Callable[[], Iterator[None]]]:
    """A planted bug. Its docstring says what is wrong."""

    def declare(function: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
        BUGS[function.__name__] = Bug(contextmanager(function), first)
        return function

    return declare
