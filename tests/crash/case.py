"""One case: a data directory, and the servers that live and die over it."""

import os
import random
import signal
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from engine.records.ids import WorkspaceId
from engine.records.run import RunState
from engine.store.sqlite import open_sqlite_store
from tests.crash.autopsy import Found, check_failures, check_prompts, check_taken_up, check_told, examine, look
from tests.crash.forks import Forked, Forks
from tests.crash.ledger import Ledger, Violation
from tests.crash.life import Life
from tests.crash.load import Load
from tests.crash.plans import ANY_MOMENT, RANDOM, is_leaving, is_starting
from tests.crash.points import POINTS, Point, When
from tests.crash.processes import LIFE, check_gone, wait_gone
from tests.crash.readers import Reader
from tests.crash.scripts import FILES, GATE
from tests.crash.tally import Tally
from tests.crash.traces import check_files, check_requests, read_requests
from tests.doubles.invariants import check_record

CLIENTS = 8
LIFE_S = 120.0  # how long a server may live; one that did not come to its point is killed then
KILLED = {-signal.SIGKILL, -signal.SIGXFSZ}  # the second by a write that was too long
END_S = 300.0  # how long the last server may take to end everything that was accepted
MAX_ATTEMPTS = 3
ENGINE = {"max_active_runs": 24, "drain_s": 0.3, "max_attempts": MAX_ATTEMPTS}
ALLOWED = frozenset({"bash"})  # who writes a file, has to ask


@dataclass(frozen=True)
class Size:
    """How much load there is at each kill."""

    in_flight: int = 60
    sessions: int = 30


class Case:
    """A case is drawn from its seed as a whole; how its servers and clients interleave is the machine's."""

    def __init__(self, seed: int, forks: Forks, directory: Path, size: Size) -> None:
        self.seed = seed
        self.tally = Tally()
        self.size = size
        self._forks = forks
        self._directory = directory
        self._data_dir = directory / "data"
        self._workspace = directory / "work"
        self._random = random.Random(seed)
        self._mark = f"{directory.name}-"  # of every process that a tool starts
        self._ledger = Ledger(on_end=partial(check_gone, self._mark))
        self._load = Load(self._ledger, self._random, in_flight=size.in_flight)
        self._readers = [Reader(self._ledger), Reader(self._ledger, deltas=True)]
        self._corpse: Found | None = None  # what the last one that died left

    async def run(self, deaths: list[str]) -> None:
        """Live and die as often as it is said, then once more in peace; then judge. Raises Violation."""
        (self._workspace / FILES).mkdir(parents=True)
        os.mkfifo(self._workspace / GATE)
        for death in deaths:
            await self._live(death)
        (self._workspace / GATE).unlink()
        (self._workspace / GATE).touch()
        await self._live_in_peace()
        await self._judge()

    async def _live(self, death: str) -> None:
        """A server under load, that dies at its point."""
        point = POINTS.get(death)
        life = self._life(point)
        self._load.loaded, self._load.has_begun = trio.Event(), False
        async with self._forks.fork(life, self._directory / "log") as server, trio.open_nursery() as nursery:
            with trio.move_on_after(LIFE_S) as patience:
                nursery.start_soon(self._work, server)
                nursery.start_soon(self._bring_to, death, server)
                await server.wait()
            if patience.cancelled_caught:  # it did not come by
                server.kill()
                death = RANDOM
            code = await server.wait()
            in_flight = self._ledger.in_flight
            nursery.cancel_scope.cancel()
        await wait_gone(self._mark)
        if code in KILLED:
            self.tally.count_kill(death, in_flight)
        elif code or not death.startswith("leaving"):
            raise Violation(f"the server ended with {code}: {server.log[-2000:]}")
        await self._examine(death)

    async def _bring_to(self, death: str, server: Forked) -> None:
        """Once the server has its load, bring it to where it dies."""
        point, within_s = POINTS.get(death), ANY_MOMENT.get(death, 0.0)
        if is_starting(death):
            await trio.lowlevel.checkpoint()
        else:
            await self._load.loaded.wait()
        if is_leaving(death):
            server.send_signal(signal.SIGTERM)
        elif point is not None and point.when is When.LOADED:
            server.send_signal(signal.SIGUSR1)
        if point is None:
            await trio.sleep(within_s * self._random.random() ** 2)
            server.kill()

    async def _work(self, server: Forked) -> None:
        """Everything that clients do, until the server is gone."""
        if not await server.wait_listening() or not await self._load.begin(
            server, str(self._workspace), sessions=self.size.sessions
        ):
            return
        async with trio.open_nursery() as nursery:
            for reader in self._readers:
                nursery.start_soon(reader.read, server, self._load.w)
            await self._load.resend(server)
            for _ in range(CLIENTS):
                nursery.start_soon(self._load.client, server)

    async def _live_in_peace(self) -> None:
        """The last server: it ends everything, and is told to leave."""
        async with self._forks.fork(self._life(), self._directory / "log") as server, trio.open_nursery() as nursery:
            if not await server.wait_listening():
                raise Violation(f"the server did not start: {server.log[-2000:]}")
            await self._load.begin(server, str(self._workspace), sessions=1)
            self._readers.append(Reader(self._ledger))
            for reader in self._readers:
                nursery.start_soon(reader.read, server, self._load.w)
            nursery.start_soon(self._load.people.answer_all, server, self._load.w)
            await self._load.resend(server)
            await self._wait_ended(server)
            server.send_signal(self._random.choice([signal.SIGTERM, signal.SIGKILL]))
            await server.wait()
        await wait_gone(self._mark)

    async def _wait_ended(self, server: Forked) -> None:
        with trio.move_on_after(END_S):
            async with server.connect() as connection:
                for run_id in self._ledger.acknowledged:
                    while True:
                        answer = await connection.request("GET", f"{self._load.w}/runs/{run_id}?wait_s=60")
                        if answer.json()["ended_at"]:
                            break
            await self._ledger.wait_until(
                lambda: not self._ledger.in_flight and len({reader.last for reader in self._readers}) == 1
            )
            return
        missing = [run_id for run_id in self._ledger.acknowledged if run_id not in self._ledger.ended]
        numbers = [reader.last for reader in self._readers]
        raise Violation(f"never ended: {missing[:5]}; the readers are at {numbers} (R22, R28)")

    async def _examine(self, death: str) -> None:
        """What the dead server left, against what was told."""
        if not self._load.w:
            return
        found = await examine(self._data_dir, self._directory / "copy", self._workspace_id)
        self._check(found)
        self.tally.unfinished[death] += found.unfinished
        people = self._load.people
        waiting = {id for id, request in found.requests.items() if request.decision is None}
        if self._load.has_begun and (late := people.dead & waiting):
            raise Violation(f"requests {late} of dead servers waited after a recovery (R25)")
        people.dead |= waiting

    async def _judge(self) -> None:
        """What the last server left, against everything before."""
        async with open_sqlite_store(self._data_dir, inline=True) as store:
            await check_record(store, self._workspace_id)
            found = await look(store, self._workspace_id, read_requests(self._data_dir))
        self._check(found, is_at_rest=True)
        check_prompts(found, self._ledger)
        self._count(found)

    def _check(self, found: Found, *, is_at_rest: bool = False) -> None:
        """What is there now, against what was told, and what was there before."""
        check_told(found, self._ledger)
        check_failures(found)
        check_requests(found.requests, found.runs, self._ledger)
        check_files(self._workspace, found.messages, found.runs)
        if self._corpse is not None:
            check_taken_up(self._corpse, found, is_at_rest=is_at_rest, max_attempts=MAX_ATTEMPTS)
        self._corpse = found

    def _count(self, found: Found) -> None:
        states = Counter(run.state for run in found.runs.values())
        tally = self.tally
        tally.resent = self._load.resent
        tally.acknowledged, tally.named = len(self._ledger.acknowledged), len(self._ledger.named)
        tally.completed, tally.failed = states[RunState.COMPLETED], states[RunState.FAILED]
        tally.canceled, tally.interrupted = states[RunState.CANCELED], states[RunState.INTERRUPTED]
        tally.retried = sum(run.attempt > 1 for run in found.runs.values())
        tally.events = found.latest
        asked = Counter(request.decision for request in found.requests.values())
        tally.asked, tally.withdrawn = asked.total(), asked["withdrawn"]
        tally.answered = len(self._ledger.decided)
        tally.files = len(list((self._workspace / FILES).iterdir()))

    def _life(self, point: Point | None = None) -> Life:
        draw, at = self._random, 1
        if point is not None and point.when is When.STARTING and self._corpse is not None:
            # A recovery passes by as often as there are runs to take up, or more often.
            at = draw.randint(1, max(1, min(point.within, self._corpse.unfinished)))
        elif point is not None:
            # Little load passes by less often.
            at = draw.randint(1, max(1, point.within * self.size.in_flight // Size.in_flight))
        return Life(
            data_dir=str(self._data_dir), point=point.name if point is not None else "", at=at, engine=ENGINE,
            seed=draw.getrandbits(32), allowed_tools=ALLOWED, environ={LIFE: self._mark, "PATH": os.defpath},
        )  # fmt: skip

    @property
    def _workspace_id(self) -> WorkspaceId:
        return WorkspaceId(self._load.w.rpartition("/")[2])
