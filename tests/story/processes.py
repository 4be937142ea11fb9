"""What is alive: the processes of a story, however far they have gone from who started them."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import msgspec

MARK = "STORY_MARK"  # in the environment of every command
ENVIRON_MAX = 1 << 18


class Found(msgspec.Struct, frozen=True):
    """A process."""

    pid: int
    session: int
    command: str
    ignores_sigterm: bool


def children() -> frozenset[int]:
    """The processes that this process has started and not buried."""
    own, found = os.getpid(), set[int]()
    for name in os.listdir("/proc"):
        with suppress(OSError):  # it goes away while it is looked at
            if name.isdigit() and is_child(name, own):
                found.add(int(name))
    return frozenset(found)


def alive(mark: str, *, strangers: frozenset[int]) -> list[Found]:
    """The processes with this mark, and those that this process has started and not buried, but for the strangers."""
    wanted, own = f"\0{MARK}={mark}\0".encode(), os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own or int(name) in strangers:
            continue
        with suppress(OSError):  # it goes away while it is looked at
            if is_child(name, own) or wanted in b"\0" + read(name, "environ"):
                found.append(look_at(name))
    return found


def is_child(name: str, own: int) -> bool:
    """Whether the process was started by this one."""
    return int(fields(name)[1]) == own


def fields(name: str) -> list[bytes]:
    """What the system tells of a process, after its name, which may hold anything: state, parent, group, session, …"""
    return read(name, "stat").rpartition(b")")[2].split()


def read(name: str, what: str) -> bytes:
    """A file of /proc. There are hundreds to read: by the shortest way."""
    descriptor = os.open(f"/proc/{name}/{what}", os.O_RDONLY)
    try:
        return os.read(descriptor, ENVIRON_MAX)
    finally:
        os.close(descriptor)


def look_at(name: str) -> Found:
    """What there is to know of it. Raises OSError if it has gone."""
    status = Path(f"/proc/{name}/status").read_text().splitlines()
    ignored = int(next(line for line in status if line.startswith("SigIgn:")).split()[1], 16)
    command = read(name, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return Found(int(name), int(fields(name)[3]), command, bool(ignored >> (signal.SIGTERM - 1) & 1))
