"""The points at which a server kills itself: seams of the harness, not of the product.

A point counts how often it is passed once it is armed, and dies when the number is up. To add one: a function that puts
`countdown.count` in its place among the seams, and a line in `POINTS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial

import trio

from engine.records.change import (
    AcceptRun,
    Change,
    OpenRequest,
    QueueRun,
    RequestCancel,
    ResolveRequest,
    SettleRun,
    StartRun,
    Write,
)
from engine.tools import file_writing
from tests.crash.seams import Countdown, DyingStore, Seams, limit_files, trace_calls, trace_processes, trace_statements

Install = Callable[[Countdown, Seams], None]


class When(Enum):
    """When a point is armed."""

    LOADED = auto()  # the server has its load
    STARTING = auto()  # it starts over what a dead one left
    FIRST = auto()  # it starts over nothing
    LEAVING = auto()  # it was told to leave


@dataclass(frozen=True)
class Point:
    """Where to die: the how-manieth time is drawn between one and `within`."""

    name: str
    when: When
    within: int
    install: Install


def anything(_: Change) -> bool:
    """Every change."""
    return True


def writes(*kinds: type[Write]) -> Callable[[Change], bool]:
    """Changes with such a write."""
    return lambda change: any(isinstance(write, kinds) for write in change.writes)


def before_commit(countdown: Countdown, seams: Seams, picks: Callable[[Change], bool] = anything) -> None:
    """Changes are taken from the queue, and nothing of them is written."""
    seams.wrap_store = lambda store: DyingStore(store, picks, before=countdown.count)


def after_commit(countdown: Countdown, seams: Seams, picks: Callable[[Change], bool] = anything) -> None:
    """Changes are written, and neither published nor answered."""
    seams.wrap_store = lambda store: DyingStore(store, picks, after=countdown.count)


def after_publish(countdown: Countdown, seams: Seams) -> None:
    """Changes are published, and some of those who were waiting for them have been woken."""
    seams.wrap_store = lambda store: DyingStore(store, anything, after=seams.soon(countdown.count))


def in_transaction(countdown: Countdown, seams: Seams) -> None:
    """Some statements of a transaction are done."""
    trace_statements(lambda statement: None if statement.startswith("SELECT") else countdown.count())


def at_commit(countdown: Countdown, seams: Seams) -> None:
    """Everything of a transaction is done but its COMMIT."""
    trace_statements(lambda statement: countdown.count() if statement == "COMMIT" else None)


def in_opening(countdown: Countdown, seams: Seams) -> None:
    """The database is being opened, made or migrated, and then used."""
    trace_statements(lambda statement: countdown.count())


def in_write(countdown: Countdown, seams: Seams) -> None:
    """A page is written in part: the operating system ends the process that writes more than it may."""
    limit_files(countdown, seams, unit_bytes=617)


def before_entry(countdown: Countdown, seams: Seams) -> None:
    """A run is durable, and has not entered its lane."""
    seams.before_entry = countdown.pass_by


def between_reads(countdown: Countdown, seams: Seams) -> None:
    """The runs that were left are being read, or what they had written, to be taken up."""
    seams.wrap_store = lambda store: DyingStore(store, anything, reading=countdown.count)


def before_command(countdown: Countdown, seams: Seams) -> None:
    """A command is about to be started: what is to be known of it is on record."""
    trace_processes(countdown.count)


def in_command(countdown: Countdown, seams: Seams) -> None:
    """A command is being started, on a thread of its own; what is to watch over it may have begun, and may not."""
    trace_processes(lambda: trio.from_thread.run_sync(seams.soon(countdown.count)))


def in_file(countdown: Countdown, seams: Seams) -> None:
    """A tool is writing a file: between any two calls to the operating system."""
    trace_calls(file_writing, countdown.count)


KINDS: dict[str, type[Write]] = {
    "accept": AcceptRun,
    "queue": QueueRun,
    "start": StartRun,
    "cancel": RequestCancel,
    "settle": SettleRun,
    "ask": OpenRequest,
    "answer": ResolveRequest,
}

POINTS = {
    point.name: point
    for point in (
        Point("before-commit", When.LOADED, 60, before_commit),
        Point("after-commit", When.LOADED, 60, after_commit),
        Point("after-publish", When.LOADED, 60, after_publish),
        Point("in-transaction", When.LOADED, 400, in_transaction),
        Point("at-commit", When.LOADED, 60, at_commit),
        Point("in-write", When.LOADED, 200, in_write),
        Point("before-entry", When.LOADED, 10, before_entry),
        *(
            Point(f"{place.__name__.split('_')[0]}-{kind}", When.LOADED, 5, partial(place, picks=writes(write)))
            for kind, write in KINDS.items()
            for place in (before_commit, after_commit)
        ),
        Point("before-command", When.LOADED, 2, before_command),
        Point("in-command", When.LOADED, 2, in_command),
        Point("in-file", When.LOADED, 60, in_file),
        Point("first-opening", When.FIRST, 60, in_opening),
        Point("recovery-opening", When.STARTING, 40, in_opening),
        Point("recovery-read", When.STARTING, 3, between_reads),
        Point("recovery-before-commit", When.STARTING, 30, before_commit),
        Point("recovery-after-commit", When.STARTING, 30, after_commit),
        Point("recovery-in-transaction", When.STARTING, 200, in_transaction),
        Point("recovery-entry", When.STARTING, 30, before_entry),
        Point("leaving-before-commit", When.LEAVING, 30, before_commit),
        Point("leaving-after-commit", When.LEAVING, 30, after_commit),
    )
}
