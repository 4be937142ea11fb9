"""Servers that are forked on request: the harness's side of `fork_server`."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

import msgspec
import trio

from tests.crash.fork_server import Birth, News
from tests.crash.life import Life
from tests.doubles.live_server import LiveServer, clean_environ

ROOT = Path(__file__).resolve().parents[2]
GONE_S = 30.0  # how long a process that was killed may take to be gone, on a machine with much else to do

ForkServer = subprocess.Popen[bytes]

_numbers = count(1)
_news = msgspec.json.Decoder(News)


class Forked(LiveServer):
    """A server of the harness. It may die at any time, also before it listens."""

    def __init__(self, log: Path) -> None:
        super().__init__(self, "", log)  # type: ignore[arg-type]  # it is its own process: it has all that is asked of one
        self.pid = 0
        self.exit_code: int | None = None
        self._born = trio.Event()
        self._told = trio.Event()  # where it listens, or that it has ended
        self._ended = trio.Event()

    async def wait_listening(self) -> bool:
        """Return when it can be called; whether it can, or has died before."""
        await self._told.wait()
        return bool(self.address)

    async def wait(self) -> int:
        """Return when it has ended; how: its exit code, or the negative number of a signal."""
        await self._ended.wait()
        assert self.exit_code is not None
        return self.exit_code

    @property
    def has_ended(self) -> bool:
        """Whether it is gone."""
        return self._ended.is_set()

    def send_signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.pid and not self.has_ended:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    async def wait_born(self) -> None:
        """Return when it has a process."""
        await self._born.wait()

    def hear(self, news: News) -> None:
        """For the fork server."""
        if news.pid:
            self.pid = news.pid
            self._born.set()
        elif news.address:
            self.address = news.address
            self._told.set()
        else:
            self.exit_code = news.exit_code
            self._told.set()
            self._ended.set()


class Forks:
    """Where servers come from. Made by `open_forks`."""

    def __init__(self, births: trio.lowlevel.FdStream) -> None:
        self._births = births
        self._children: dict[int, Forked] = {}

    @asynccontextmanager
    async def fork(self, life: Life, log: Path) -> AsyncIterator[Forked]:
        """A server; leaving kills it, if it is still there."""
        number = next(_numbers)
        child = self._children[number] = Forked(log)
        await self._births.send_all(msgspec.json.encode(Birth(number, life, str(log))) + b"\n")
        await child.wait_born()
        try:
            yield child
        finally:
            child.kill()
            with trio.move_on_after(GONE_S, shield=True):
                await child.wait()
            del self._children[number]

    async def listen(self, news: trio.lowlevel.FdStream) -> None:
        """Hand on what the fork server tells."""
        rest = b""
        async for data in news:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                told = _news.decode(line)
                if told.number in self._children:  # else it is of one that somebody else gave up
                    self._children[told.number].hear(told)


@contextmanager
def start_fork_server() -> Iterator[ForkServer]:
    """The process that forks servers, for as many as will use it, one after another."""
    command = [sys.executable, "-m", "tests.crash.fork_server"]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean_environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        yield process
        process.stdin.close()


@asynccontextmanager
async def open_forks(process: ForkServer) -> AsyncIterator[Forks]:
    """The servers that it forks. One at a time: what it tells is read here."""
    assert process.stdin is not None
    assert process.stdout is not None
    births, news = (trio.lowlevel.FdStream(os.dup(pipe.fileno())) for pipe in (process.stdin, process.stdout))
    async with births, news, trio.open_nursery() as nursery:
        forks = Forks(births)
        nursery.start_soon(forks.listen, news)
        yield forks
        nursery.cancel_scope.cancel()
