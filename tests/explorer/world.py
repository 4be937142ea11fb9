"""The world of one schedule: the servers of its scenario, one after another, and everybody who deals with them."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal, TypeVarTuple

import trio

from engine.agents.protocol import Turn
from engine.backend import Backend, NewWorkspace, open_backend
from engine.errors import CountermandError, NotFound, ServerStopping, StoreUnavailable, WorkspaceUnavailable
from engine.records.event import Event, RunCompleted
from engine.records.ids import ClientId
from engine.records.run import Prompt, RunState
from engine.runs.accepted import AcceptedRun
from engine.runs.answering import split
from engine.settings import EngineSettings
from engine.store.open import Database
from engine.workspace import Workspace
from tests.explorer.answering import answer_the_rest
from tests.explorer.disk import DIRECTORY, WORKSPACE, ExploredDisk
from tests.explorer.ledger import Answering, Ledger
from tests.explorer.leftovers import leftovers
from tests.explorer.readers import Reader
from tests.explorer.scenario import End, Lifetime, Operation, Scenario
from tests.explorer.script import REQUESTS, STUBBORN, ScriptAgent
from tests.explorer.toolbox import toolbox_of

REST_S = 400.0  # virtual seconds until everything must be at rest
UNWIND_S = 3.0
OPEN_TRIES = 10
LAST_TURNS = 3  # of the scheduler, in which a task whose work is done comes to its end
FIRST_CLIENT = ClientId("c0")

Args = TypeVarTuple("Args")


class World:
    """One schedule at work."""

    def __init__(self, scenario: Scenario, database: Database, *, tells: bool = False) -> None:
        self.scenario = scenario
        self.ledger = Ledger()
        self._database = database
        self.backend: Backend | None = None
        self.agents = 0  # that are at work
        self.readers: dict[str, Reader] = {}
        self.failing: Workspace | None = None  # by a bug of the scenario
        self.jobs: dict[str, int] = {}  # that tools have left running, by run
        self._progress = trio.Event()
        self._disk: ExploredDisk | None = None
        self._life = trio.CancelScope()
        self._at_work: dict[str, str] = {}  # the run that an agent answers, of each session
        self._tells = tells

    async def play(self) -> None:
        """Play the scenario to its end."""
        for lifetime in self.scenario.lifetimes:
            await self._live(lifetime)
        if self._is_unfinished() and self.has_trouble:
            await self._live(Lifetime())  # what could not be ended is left to the next start
        for reader in self.readers.values():
            reader.look_back()

    def workspace(self) -> Workspace | None:
        """The workspace, open or closing; None if there is none."""
        if self.backend is None:
            return None
        try:
            return self.backend.workspace(WORKSPACE)
        except CountermandError as error:
            self.expect(error, NotFound, ServerStopping, WorkspaceUnavailable)
            return None

    def expect(self, error: CountermandError, *kinds: type[CountermandError]) -> None:
        """It is a violation unless the error is one of these; of the store, unless there is trouble with it."""
        if not isinstance(error, kinds):
            self.ledger.violate(f"an error that nobody expects: {error!r}")
        elif isinstance(error, StoreUnavailable):
            self.expect_trouble(error)

    def start(self, task: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
        """Start a task beside the actors, that ends with the server."""
        self._background.start_soon(task, *args)

    def progress(self) -> None:
        """A reader got something."""
        self._progress.set()
        self._progress = trio.Event()

    def script(self, prompt: Prompt) -> tuple[str, ...]:
        """What the agent does with a prompt."""
        return self.ledger.scripts.get(prompt.text, ())

    def is_stubborn(self, text: str) -> bool:
        """Whether the agent of this prompt may go on, or end otherwise, when it is told to stop."""
        return not STUBBORN.isdisjoint(self.ledger.words(text))

    @contextmanager
    def at_work(self, turn: Turn) -> Iterator[None]:
        """The agent is at work on a turn."""
        run_id, other = turn.run_id, self._at_work.get(turn.session_id)
        answering: Answering | None = None
        if not self.is_dead:
            answering = self.ledger.answer(run_id, turn.session_id)
            if other is not None and not self.is_stubborn(other):
                self.ledger.violate(f"{run_id} began while {other} was answered in the same session (R14)")
        self._at_work[turn.session_id] = turn.prompt.text
        self.agents += 1
        self.tell("agent begins", run_id, turn.session_id)
        how: Literal["returned", "failed", "canceled"] = "returned"
        try:
            yield
        except BaseException as error:
            how = "canceled" if split(error)[1] is None else "failed"
            raise
        finally:
            if answering is not None:
                self.ledger.end_answering(answering, how)
            self.agents -= 1
            self._at_work.pop(turn.session_id, None)
            self.tell("agent ends", run_id, turn.session_id, how)

    def tell(self, *words: object) -> None:
        """Something happened that a reader of the schedule wants to know."""
        if self._tells:
            self.ledger.story.append(f"{trio.current_time():9.3f}  " + " ".join(map(str, words)))

    @property
    def _is_failing(self) -> bool:
        """Whether a bug has met the workspace and it is not closed yet."""
        return self.failing is not None and self.failing is self.workspace()

    @property
    def has_trouble(self) -> bool:
        """Whether anything happens that a caller may be told of as trouble with the store."""
        disks = (lifetime.disk for lifetime in self.scenario.lifetimes)
        return any(disk.fails or disk.stalls for disk in disks) or any(
            one.why == "a bug" for one in self.ledger.closings
        )

    def expect_trouble(self, error: StoreUnavailable) -> None:
        """The error is a violation if there is none."""
        if not self.has_trouble:
            self.ledger.violate(f"trouble with a store that has none: {error!r}")

    def _has_requests(self) -> bool:
        """Whether an agent of the scenario asks a person."""
        words = {word.partition(":")[0] for script in self.ledger.scripts.values() for word in script}
        return not words.isdisjoint(REQUESTS)

    def _is_unfinished(self) -> bool:
        """Whether a run was left to the next start."""
        unfinished = "SELECT 1 FROM runs WHERE state IN ('accepted', 'queued', 'active') LIMIT 1"
        return self._database.reader.execute(unfinished).fetchone() is not None

    @property
    def is_dead(self) -> bool:
        """Whether the server was killed."""
        return self._disk is None or self._disk.is_dead

    async def _live(self, lifetime: Lifetime) -> None:
        """One server, from its start to its end."""
        scenario = self.scenario
        self.ledger.server += 1
        self._life = trio.CancelScope()
        self._at_work.clear()
        self.jobs.clear()  # they die with their server
        self._disk = disk = ExploredDisk(self._database, lifetime.disk, on_commit=self._committed, on_death=self._die)
        disk.is_at_once = self.ledger.server == 1
        settings = EngineSettings(
            max_active_runs=scenario.slots, queue_per_session=scenario.queue_per_session,
            queue_per_workspace=scenario.queue_per_workspace, reader_buffer=scenario.reader_buffer, unwind_s=UNWIND_S,
        )  # fmt: skip
        try:
            with self._life:
                async with open_backend(
                    settings, environ={}, agent=ScriptAgent(self), tools=toolbox_of(self),
                    before_entry=self._before_entry, open_store=lambda _: nullcontext(disk),
                ) as self.backend:  # fmt: skip
                    await self._serve(self.backend, lifetime)
        except* StoreUnavailable:
            if not disk.is_dead and not disk.has_stalled:
                raise
        finally:
            self.backend = None

    async def _serve(self, backend: Backend, lifetime: Lifetime) -> None:
        if not backend.workspaces():
            await self._open(backend)
        assert self._disk is not None
        self._disk.is_at_once = False
        with trio.move_on_after(REST_S) as limit:
            async with trio.open_nursery() as self._background:
                async with trio.open_nursery() as nursery:
                    if lifetime.end.how != "rest":
                        nursery.start_soon(self._end, backend, lifetime.end)
                    for operations in lifetime.actors:
                        nursery.start_soon(self._act, operations)
                if self._has_requests():
                    self._background.start_soon(answer_the_rest, self)
                await self._rest(backend)
                self._background.cancel_scope.cancel()
        if limit.cancelled_caught:
            self.ledger.violate(f"not at rest after {REST_S:.0f} s (R22)")
        else:
            for what in leftovers(backend):
                self.ledger.violate(what)

    async def _open(self, backend: Backend) -> None:
        """Open the workspace, which recovery did not open: nobody kept it, or the disk failed."""
        client_id = None if self.scenario.is_kept else FIRST_CLIENT
        for _ in range(OPEN_TRIES):
            try:
                await backend.create_workspace(NewWorkspace(path=DIRECTORY, client_id=client_id))
            except StoreUnavailable as error:
                self.tell("not opened", error)
            else:
                return

    async def _act(self, operations: tuple[Operation, ...]) -> None:
        for operation in operations:
            if operation.ms:
                await trio.sleep(operation.ms / 1000)
            for _ in range(operation.passes):
                await trio.lowlevel.checkpoint()
            await operation.do(self)

    async def _end(self, backend: Backend, end: End) -> None:
        await trio.sleep(end.ms / 1000)
        self.tell(end.how)
        if end.how == "kill":
            assert self._disk is not None
            self._disk.die()
        else:
            self.ledger.close("the server stopped")
            backend.begin_shutdown(end.drain_ms / 1000)
            if end.hurry_ms is not None:
                await trio.sleep(end.hurry_ms / 1000)
                backend.hurry()

    async def _rest(self, backend: Backend) -> None:
        """Return when nothing happens any more, and everybody has seen it."""
        while not backend.is_stopping and ((workspace := self.workspace()) is not None or backend.reopening.all()):
            runs = workspace.lanes.all_runs() if workspace is not None else ()
            for run in runs:
                await run.wait_settled()
            if self._is_failing or backend.reopening.all() or (self.agents and not runs):
                await trio.sleep(1.0)  # it is opened again; an agent that does not stop ends by itself
            elif not runs:
                break
        if backend.is_stopping:
            await backend.wait_stopped()
        await backend.log.wait_drained()
        for _ in range(LAST_TURNS):
            await trio.lowlevel.checkpoint()
        # A reader that is away when its server stops goes on with the next one.
        while not backend.is_stopping and not all(reader.is_up_to_date for reader in self.readers.values()):
            await self._progress.wait()

    async def _before_entry(self, run: AcceptedRun) -> None:
        for _ in range(self.scenario.before_entry[run.record.seq % len(self.scenario.before_entry)]):
            await trio.lowlevel.checkpoint()

    def _die(self) -> None:
        self.tell("the server is killed")
        self._life.cancel()

    def _committed(self, events: Sequence[Event]) -> None:
        self.ledger.commit(events)
        for event in events:
            body = event.body
            if isinstance(body, RunCompleted) and body.state is not RunState.COMPLETED and body.run_id in self.jobs:
                self.ledger.violate(f"{body.run_id} ended {body.state}, and a job of it is at work (R10)")
        for event in events if self._tells else ():
            self.tell("  event", event.seq, type(event.body).__name__, event.run_id)
