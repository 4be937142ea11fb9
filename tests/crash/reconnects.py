"""Readers of event streams that lose their connection again and again, under load and over restarts of the server:
`python -m tests.crash.reconnects`. No durable event may be missing or come twice, and no word of a message."""

import argparse
import random
import shutil
import signal
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from operator import contains
from pathlib import Path

import trio

from engine.records.event import RunChanged, RunCompleted
from engine.records.ids import WorkspaceId
from engine.records.message import Message
from engine.store.sqlite import open_sqlite_store
from tests.crash.forks import Forked, Forks, open_forks, start_fork_server
from tests.crash.ledger import Ledger, Sent, Violation, leaves
from tests.crash.life import Life
from tests.crash.load import Load
from tests.crash.proxy import open_proxy
from tests.crash.stream_readers import Audience, LibraryReader, RawReader, follow_run
from tests.doubles.invariants import check_record
from web.client import open_client

ENGINE = {"drain_s": 0.2, "max_active_runs": 24, "max_attempts": 3}
STALLED_S = 120.0  # without a reconnect
END_S = 300.0  # how long the last server may take to end everything, and the readers to read it


class Reconnects:
    """A workspace in which a few runs speak all the time, and its readers."""

    def __init__(self, seed: int, forks: Forks, directory: Path, options: argparse.Namespace) -> None:
        self.restarts = {"SIGTERM": 0, "SIGKILL": 0}
        self.ledger = Ledger()
        self.audience: Audience | None = None
        self.events = 0
        self.words = 0
        self._seed = seed
        self._forks = forks
        self._directory = directory
        self._options = options
        self._draw = random.Random(seed)
        self._load = Load(self.ledger, self._draw, in_flight=0)
        self._numbers = count(1)
        self._readers: list[RawReader | LibraryReader] = []
        self._followed: set[str] = set()  # runs that have their readers

    async def run(self) -> None:
        """Read and restart until there were enough reconnects; then judge. Raises Violation."""
        async with open_proxy(self._draw) as proxy, open_client(f"tcp://127.0.0.1:{proxy.port}") as client:
            audience = self.audience = Audience(self.ledger, proxy, client, self._draw)
            async with trio.open_nursery() as nursery:
                while audience.reconnects < self._options.count:
                    await self._one_server(nursery, audience)
                async with self._open_server(audience) as server:
                    self._follow(nursery, audience)
                    await self._wait_read(server)
                nursery.cancel_scope.cancel()
        await self._judge(audience)

    async def _one_server(self, nursery: trio.Nursery, audience: Audience) -> None:
        """A server, until it is time for the next."""
        async with self._open_server(audience) as server, trio.open_nursery() as talking:
            if not self._readers:
                self._seat(nursery, audience)
            self._follow(nursery, audience)
            for session_id in self._load.sessions:
                talking.start_soon(self._talk, server, session_id, nursery)
            await self._wait_reconnects(audience)
            name = self._draw.choice(list(self.restarts))
            self.restarts[name] += 1
            server.send_signal(signal.Signals[name])
            await server.wait()
            talking.cancel_scope.cancel()
        # One comes too late at each server, beside those whose answer it took with it: the next is sent it again.
        self._new_prompt(self._draw.choice(self._load.sessions))
        print(f"{audience.reconnects} of {self._options.count} reconnects", flush=True)

    @asynccontextmanager
    async def _open_server(self, audience: Audience) -> AsyncIterator[Forked]:
        """The next server, behind the proxy, with every prompt that was not answered sent again."""
        life = Life(data_dir=str(self._directory / "data"), engine=ENGINE, seed=self._draw.getrandbits(32))
        async with self._forks.fork(life, self._directory / "log") as server:
            if not await server.wait_listening():
                raise Violation(f"the server did not start: {server.log[-2000:]}")
            await self._load.begin(server, str(self._directory), sessions=self._options.sessions)
            audience.proxy.server_port = server.port
            await self._load.resend(server)
            yield server
            audience.proxy.server_port = 0

    def _seat(self, nursery: trio.Nursery, audience: Audience) -> None:
        """The readers of the workspace, there to the end."""
        audience.workspace_id = self._load.w.rpartition("/")[2]
        for number in range(self._options.readers):
            kind = (RawReader, LibraryReader)[number % 2]
            reader = kind(audience, deltas=number % 4 < 2)
            self._readers.append(reader)
            nursery.start_soon(reader.read)

    def _follow(self, nursery: trio.Nursery, audience: Audience) -> None:
        """Two readers for each run that has none yet, whichever time it was sent its prompt was answered."""
        for run_id in self.ledger.acknowledged:
            if run_id not in self._followed:
                self._followed.add(run_id)
                raw = RawReader(audience, deltas=self._draw.random() < 0.5, run_id=run_id)
                nursery.start_soon(raw.read)
                nursery.start_soon(follow_run, audience, run_id)

    async def _talk(self, server: Forked, session_id: str, nursery: trio.Nursery) -> None:
        """One run after another, each with its readers."""
        assert self.audience is not None
        try:
            async with server.connect() as connection:
                while True:
                    sent = self._new_prompt(session_id)
                    await self._load.send(connection, sent)
                    if not sent.run_id:
                        return
                    self._follow(nursery, self.audience)
                    await self.ledger.wait_until(partial(contains, self.ledger.ended, sent.run_id))
        except (trio.EndOfChannel, trio.BrokenResourceError, OSError):
            await trio.lowlevel.checkpoint()

    def _new_prompt(self, session_id: str) -> Sent:
        """A prompt for words that are all different, and come one by one."""
        number, every = next(self._numbers), self._draw.uniform(0.02, 0.08)
        words = ", ".join(
            f'{{"text": "{number}-{word} "}}, {{"wait": {every:.3f}}}' for word in range(self._draw.randint(10, 60))
        )
        policy = self._draw.choice(["interrupt", "retry"])
        body = {
            "session_id": session_id, "prompt": f"```script\n[[{words}]]\n```", "model": "offline/script",
            "run_id": f"run-{number}", "on_crash": policy,
        }  # fmt: skip
        sent = self.ledger.sent[f"{number}"] = Sent(body["prompt"], session_id, body, {})
        return sent

    async def _wait_reconnects(self, audience: Audience) -> None:
        """Until the next server is due."""
        due = min(audience.reconnects + self._options.each, self._options.count)
        before, since = audience.reconnects, trio.current_time()
        while audience.reconnects < due:
            await trio.sleep(0.02)
            if audience.reconnects > before:
                before, since = audience.reconnects, trio.current_time()
            elif trio.current_time() - since > STALLED_S:
                raise Violation(f"nobody has come back for {STALLED_S:.0f} s")

    async def _wait_read(self, server: Forked) -> None:
        """Everything has ended, and everybody has read it."""
        with trio.move_on_after(END_S):
            await self.ledger.wait_until(lambda: not self.ledger.in_flight and self._is_read())
            return
        lasts = [reader.last for reader in self._readers]
        left = f"the readers of the workspace are at {lasts}, and of these runs some are left: {self._unread()}"
        raise Violation(f"not read to the end: {left} (R28); {server.log[-500:]}")

    def _is_read(self) -> bool:
        return not self._unread() and {reader.last for reader in self._readers} == {max(self.ledger.events)}

    def _unread(self) -> list[str]:
        """Runs that not both of their readers have read."""
        assert self.audience is not None
        of_runs = self.audience.of_runs
        return [run_id for run_id in self.ledger.acknowledged if len(of_runs.get(run_id, ())) != 2]

    async def _judge(self, audience: Audience) -> None:
        """What was read against what is stored."""
        async with open_sqlite_store(self._directory / "data", inline=True) as store:
            workspace_id = WorkspaceId(audience.workspace_id)
            await check_record(store, workspace_id)
            events = await store.events_after(workspace_id, 0, limit=10**7)
            by_run = defaultdict[str | None, list[int]](list)
            for event in events:
                by_run[event.run_id].append(event.seq or 0)
            stored: dict[str, Message] = {}
            for session_id in self._load.sessions:
                stored |= {message.id: message for message in await store.messages(workspace_id, session_id)}  # type: ignore[arg-type]
        if sorted(self.ledger.events) != [event.seq for event in events]:
            raise Violation("the readers together have not read every event (R28)")
        for run_id, readings in audience.of_runs.items():
            for numbers in readings:
                if numbers != by_run[run_id]:
                    raise Violation(f"run {run_id} has the events {by_run[run_id]}, and was read as {numbers} (R28)")
        for texts, run_id in audience.texts:
            texts.check(stored, all_of_run=run_id)
        self.events, self.words = len(events), sum(len(message.text.split()) for message in stored.values())
        assert any(isinstance(event.body, RunChanged | RunCompleted) for event in events)

    def __str__(self) -> str:
        assert self.audience is not None
        rows = {
            "reconnects": self.audience.reconnects,
            "readers": self.audience.readers,
            "runs followed by the library": self.audience.followed,
            "prompts sent again": self._load.resent,
            "durable events": self.events,
            "words": self.words,
            **{f"restarts by {name}": times for name, times in self.restarts.items()},
        }
        return "\n".join(f"{name:32}{value:>8}" for name, value in rows.items())


def parser() -> argparse.ArgumentParser:
    """The options."""
    options = argparse.ArgumentParser(prog="python -m tests.crash.reconnects", description=__doc__)
    options.add_argument("--count", type=int, default=10_000, help="reconnects, at least")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--readers", type=int, default=16, help="of the workspace")
    options.add_argument("--sessions", type=int, default=3, help="each with a run that speaks")
    options.add_argument("--each", type=int, default=500, help="reconnects to each server")
    return options


async def run(options: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    directory = Path(tempfile.mkdtemp(prefix="reconnects-"))
    violations: list[str] = []
    with start_fork_server() as process:
        async with open_forks(process) as forks:
            reconnects = Reconnects(options.seed, forks, directory, options)
            try:
                await reconnects.run()
            except* AssertionError as group:
                violations = [str(error) for error in leaves(group)]
    print(reconnects)
    if violations:
        print(f"VIOLATION; the data is kept in {directory}", *violations, sep="\n  ")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(trio.run(run, parser().parse_args()))
