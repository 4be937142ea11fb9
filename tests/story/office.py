"""The story in this process, to be canceled anywhere: an engine, the developer, two sessions, and Ann who grants."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

import trio

from engine.backend import Backend, NewWorkspace, open_backend
from engine.records.event import PermissionAsked
from engine.records.ids import RequestId, RunId, SessionId, new_run_id
from engine.records.permission import Decision, PermissionRequest
from engine.records.run import IfBusy, Prompt
from engine.settings import EngineSettings
from engine.workspace import Workspace
from tests.doubles.model_server import ModelServer
from tests.doubles.reading import Reader, read_along
from tests.story import developer
from tests.story.developer_server import model_environment, open_developer
from tests.story.gate import CommandGate, open_gate
from tests.story.points import Place, Points
from tests.story.processes import MARK, Found, alive, children
from tests.story.repository import Repository, environment, make_repository
from tests.story.telling import NOTES_TASK, STEER, TASK

AT_THE_GATE: Place = ("check.sh is up",)
PAUSE_S = 0.001  # between the pieces of an answer, so that there is a middle of it


class Office:
    """Where the work is done; `task` is what is asked for and canceled. Made by `open_office`."""

    def __init__(
        self,
        task: str,
        *,
        backend: Backend,
        workspace: Workspace,
        repository: Repository,
        model: ModelServer,
        gate: CommandGate,
        mark: str,
    ) -> None:
        self.task = task
        self.backend = backend
        self.workspace = workspace
        self.repository = repository
        self.model = model
        self.gate = gate
        self._mark = mark
        self._strangers = children()  # of other tests in this process
        self.points = Points()
        self.session_id = SessionId("")
        self.notes_id = SessionId("")
        self.notes_run = RunId("")
        self.standing: list[Found] = []  # the processes, when a command came to its gate last
        self.reader: Reader
        self.nursery: trio.Nursery
        self._held: RequestId | None = None  # of the other session, until all is over
        self._is_holding = trio.Event()

    async def begin(self) -> None:
        """Begin both sessions; the other one works until it asks."""
        self.notes_id = (await self.workspace.sessions.create("notes")).id
        await self.begin_work()
        prompt = Prompt(session_id=self.notes_id, text=NOTES_TASK, run_id=new_run_id())
        self.notes_run = (await self.workspace.accept(prompt)).run.id
        await self._is_holding.wait()

    async def begin_work(self) -> None:
        """Begin the work anew, in a session of its own."""
        self.repository.restore()
        self.session_id = (await self.workspace.sessions.create("work")).id

    async def end_notes(self) -> None:
        """Let the other session go on to its end."""
        assert self._held is not None
        await self.workspace.permissions.answer(self._held, Decision.ALLOW)
        await self.workspace.wait_run(self.notes_run, 30)

    async def answer(self) -> None:
        """Ann: grants what is asked for, but in the other session, and has one thing more to say in the middle."""
        async with self.workspace.open_feed(after=None) as feed:
            while True:
                for event in await feed.receive():
                    if isinstance(event.body, PermissionAsked):
                        await self._answer(event.body.request)

    async def watch_gate(self) -> None:
        """Report each command that stands at its gate, and let it through if nobody minds."""
        while True:
            await self.gate.reached()
            self.standing = self.alive()
            if not self.points.report(AT_THE_GATE):
                self.gate.open()

    def alive(self) -> list[Found]:
        """Every process that the work has started, and that is there still."""
        return alive(self._mark, strangers=self._strangers)

    async def _answer(self, asked: PermissionRequest) -> None:
        decision = Decision.ALLOW
        if asked.params.get("command") == developer.COMMIT:
            decision = Decision.DENY
        elif asked.session_id == self.notes_id:
            self._held = asked.id
            self._is_holding.set()
            return
        elif str(asked.params.get("file_path", "")).endswith("report.py"):
            prompt = Prompt(session_id=self.session_id, text=STEER, if_busy=IfBusy.STEER, run_id=new_run_id())
            await self.workspace.accept(prompt)
        await self.workspace.permissions.answer(asked.id, decision)


@asynccontextmanager
async def open_office(directory: Path, *, task: str = TASK, has_threads: bool = False) -> AsyncIterator[Office]:
    """The office, in a directory of its own. `has_threads`: the store is on the disk, as a server has it, and files are
    read and written in threads; else all of it is on Trio's own."""
    repository = make_repository(directory / "tally")
    settings = EngineSettings(data_dir=directory / "data" if has_threads else None)
    mark = uuid4().hex
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(open_developer(pause_s=PAUSE_S))
        gate = stack.enter_context(open_gate(directory / "gate"))
        environ = environment(STORY_GATE=str(gate.directory), **{MARK: mark}) | model_environment(model)
        backend = await stack.enter_async_context(open_backend(settings, environ=environ))
        workspace = await backend.create_workspace(NewWorkspace(path=str(repository.root)))
        office = Office(
            task, backend=backend, workspace=workspace, repository=repository, model=model, gate=gate, mark=mark
        )
        office.reader = await stack.enter_async_context(read_along(workspace))
        office.nursery = await stack.enter_async_context(trio.open_nursery())
        trio.lowlevel.add_instrument(office.points)
        try:
            office.nursery.start_soon(office.answer)
            office.nursery.start_soon(office.watch_gate)
            await office.begin()
            yield office
        finally:
            trio.lowlevel.remove_instrument(office.points)
            office.nursery.cancel_scope.cancel()
