"""Shell: the commands that a person runs in a session. Nobody is asked, and the session keeps what came of them.

A command runs as those of `bash` do: under the reaper, in the workspace, with the environment of commands, and with
nothing to read. Whoever asked may go away, and the workspace may close: then it is killed, with all that it started,
and what it had written until then is kept all the same, because it has been done.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import msgspec
import structlog
import trio

from engine.errors import StoreError
from engine.events.log import EventLog, Pending
from engine.records.change import Change, CreateMessage
from engine.records.ids import RunId, SessionId, WorkspaceId, new_message_id
from engine.records.message import Finish, FinishReason, Message, Role, ShellCommand, storable
from engine.runs.lanes import Lanes
from engine.sessions import Sessions
from engine.tools.jobs import Command, Job, Jobs

KILLED = 137  # the exit code of what was killed, as a shell has it
KILLED_NOTE = "[The command was killed.]"
OF_NO_RUN = RunId("")
# Both streams in one, in the order of writing, without a line of ours before the first of the command.
TOGETHER = 'exec 2>&1; exec "$0" -c "$1"'

logger = structlog.get_logger(__name__)


class ShellResult(msgspec.Struct, frozen=True):
    """What a command came to."""

    output: str
    exit_code: int


class ShellSeams(msgspec.Struct, frozen=True, kw_only=True):
    """What commands run on. `check_open` raises what prompts are refused with; `latest_seq` is the accept number that
    was given last."""

    workspace_id: WorkspaceId
    root: Path
    environment: Mapping[str, str]
    jobs: Jobs
    log: EventLog
    sessions: Sessions
    lanes: Lanes
    now_us: Callable[[], int]
    check_open: Callable[[], None]
    latest_seq: Callable[[], int]


@final
class Shell:
    """Runs the commands of a person in one workspace."""

    def __init__(self, seams: ShellSeams) -> None:
        self._seams = seams
        self._shell = shutil.which("bash") or "/bin/sh"

    async def run(self, session_id: str, command: str, *, columns: int = 0) -> ShellResult:
        """Run a command, and return when it has ended and its message is stored.

        Canceled, it leaves no process, and the message is on its way into the store, if that takes it. Raises NotFound,
        ChildSession, ToolProblem if the command cannot be started, what prompts are refused with, and StoreError: then
        it ran, and is not kept.
        """
        seams = self._seams
        session = await seams.sessions.get_own(session_id)
        environment = {**seams.environment, **({"COLUMNS": str(columns)} if columns else {})}
        seams.check_open()  # with nothing awaited until the job has its place
        job = await seams.jobs.start(
            Command(
                arguments=("/bin/sh", "-c", TOGETHER, self._shell, command), shown=command, description="",
                directory=seams.root, session_id=session.id, run_id=OF_NO_RUN, environment=environment,
            )
        )  # fmt: skip
        try:
            await job.wait()
        except trio.Cancelled:
            await seams.jobs.end(job)  # noqa: ASYNC102  (shielded and bounded there)
            try:
                self._keep(session.id, command, result_of(job))  # nobody is there to wait for the commit
            except StoreError as error:
                logger.warning("a command that ran is not kept", session_id=session.id, error=str(error))
            raise
        result = result_of(job)
        await self._keep(session.id, command, result).wait()
        return result

    def _keep(self, session_id: SessionId, command: str, result: ShellResult) -> Pending:
        """Send the message on its way: after everything that the session has, and before what it has still to do."""
        seams, now_us = self._seams, self._seams.now_us()
        said = ShellCommand(storable(command), storable(result.output), result.exit_code)
        message = Message(
            id=new_message_id(), session_id=session_id, role=Role.USER, parts=(said, Finish(FinishReason.STOP)),
            turn=self._turn(session_id), created_at_us=now_us, updated_at_us=now_us,
        )  # fmt: skip
        return seams.log.submit(Change(seams.workspace_id, now_us, (CreateMessage(message),)))

    def _turn(self, session_id: SessionId) -> int:
        """In the turn of the run that is active now, so that the next run sees it; before one that has not begun."""
        runs = self._seams.lanes.of_session(session_id)
        if not runs:
            return self._seams.latest_seq()
        return runs[0].record.seq - (1 if runs[0].is_waiting else 0)


def result_of(job: Job) -> ShellResult:
    """What a job that has ended came to."""
    output = job.stdout.text() + job.stderr.text()
    if job.exit_code is None:
        output = f"{output.rstrip()}\n{KILLED_NOTE}".lstrip("\n")
    return ShellResult(output, KILLED if job.exit_code is None else job.exit_code)
