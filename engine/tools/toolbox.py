"""The toolbox: the built-in tools of a workspace. To add a tool, add a line to `_built_in`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import trio

from engine.errors import ConfigInvalid
from engine.events.log import EventLog
from engine.records.ids import RunId, WorkspaceId
from engine.settings import EngineSettings
from engine.store.protocol import Store
from engine.tools.agent import AgentTool
from engine.tools.bash import BashTool
from engine.tools.disk import Disk
from engine.tools.download import DownloadTool
from engine.tools.edit import EditTool
from engine.tools.fetch import FetchTool
from engine.tools.file_change import FileChanger
from engine.tools.glob import GlobTool
from engine.tools.grep import GrepTool
from engine.tools.job_kill import JobKillTool
from engine.tools.job_output import JobOutputTool
from engine.tools.jobs import Jobs, open_jobs
from engine.tools.ls import LsTool
from engine.tools.multiedit import MultiEditTool
from engine.tools.permissions import Permissions
from engine.tools.protocol import Tool
from engine.tools.public_network import Network, PublicNetwork, read_networks
from engine.tools.question import QuestionTool
from engine.tools.questions import Questions
from engine.tools.search_process import Searches
from engine.tools.session_files import SessionFiles
from engine.tools.todos import TodosTool
from engine.tools.view import ViewTool
from engine.tools.web_reader import WebReader
from engine.tools.write import WriteTool

Tools = Mapping[str, Tool]  # by name
EndRun = Callable[[RunId], Awaitable[None]]


class ToolSeams(msgspec.Struct, frozen=True, kw_only=True):
    """What the tools of a workspace are built on; all of it outlives them. `environment` is that of commands."""

    id: WorkspaceId
    settings: EngineSettings
    store: Store
    log: EventLog
    now_us: Callable[[], int]
    environment: Mapping[str, str]
    files: SessionFiles
    permissions: Permissions
    questions: Questions


class OpenTools(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a workspace, by name. `end_run` ends what a run has left running, and returns when it is gone; it is
    bounded, and a cancellation does not cut it short (R10)."""

    tools: Tools
    end_run: EndRun


Toolbox = Callable[[ToolSeams], AbstractAsyncContextManager[OpenTools]]
"""Opens the tools of a workspace; leaving it ends what they hold."""


@asynccontextmanager
async def open_toolbox(seams: ToolSeams) -> AsyncIterator[OpenTools]:
    """The built-in tools, less those in `disabled_tools`. What they hold is left after the last run of the workspace
    has ended. Raises ConfigInvalid."""
    async with open_jobs(seams.now_us) as jobs:
        tools = _built_in(seams, jobs)
        kept = {tool.name: tool for tool in tools if tool.name not in seams.settings.disabled_tools}
        yield OpenTools(tools=kept, end_run=jobs.end_run)


def _built_in(seams: ToolSeams, jobs: Jobs) -> tuple[Tool, ...]:
    files, disk = seams.files, seams.files.disk
    changer, searches = FileChanger(files, disk), Searches(disk)
    reader = WebReader(PublicNetwork(allowed_networks(seams.settings)))
    return (
        ViewTool(files, disk),
        LsTool(searches, disk),
        GlobTool(searches, disk),
        GrepTool(searches, disk),
        WriteTool(changer),
        EditTool(changer),
        MultiEditTool(changer),
        BashTool(jobs, seams.environment),
        JobOutputTool(jobs),
        JobKillTool(jobs),
        FetchTool(reader),
        DownloadTool(reader, files, disk),
        AgentTool(),
        TodosTool(seams.store, seams.log, seams.id, seams.now_us),
        QuestionTool(seams.questions, seams.permissions),
    )


def allowed_networks(settings: EngineSettings) -> tuple[Network, ...]:
    """What `fetch` and `download` may read beside the public network. Raises ConfigInvalid."""
    try:
        return read_networks(settings.fetch_networks)
    except ValueError as error:
        raise ConfigInvalid("engine.fetch_networks", str(error)) from None


def tool_seams(
    *,
    id: WorkspaceId,
    root: Path,
    settings: EngineSettings,
    store: Store,
    log: EventLog,
    now_us: Callable[[], int],
    environment: Mapping[str, str],
) -> ToolSeams:
    """What the tools of a workspace share with those who answer for them."""
    disk = Disk(in_thread=settings.data_dir is not None)  # in memory, a test's clock may jump beside threads
    return ToolSeams(
        id=id, settings=settings, store=store, log=log, now_us=now_us, environment=environment,
        files=SessionFiles(store, log, id, now_us, root=root, disk=disk),
        permissions=Permissions(store, log, id, now_us, root, settings.allowed_tools),
        questions=Questions(log, id, now_us),
    )  # fmt: skip


def chosen_toolbox(tools: Tools | Toolbox | None, *, is_agent_ours: bool) -> Toolbox:
    """The toolbox that a caller means: given tools are the same for every workspace; without a word, the built-in agent
    gets the built-in tools, and another agent none."""
    if tools is None:
        return open_toolbox if is_agent_ours else _fixed({})
    return _fixed(tools) if isinstance(tools, Mapping) else tools


def _fixed(tools: Tools) -> Toolbox:

    @asynccontextmanager
    async def open_fixed(seams: ToolSeams) -> AsyncIterator[OpenTools]:
        await trio.lowlevel.checkpoint()
        yield OpenTools(tools=tools, end_run=leave_nothing)

    return open_fixed


async def leave_nothing(run_id: RunId) -> None:
    """For tools that hold nothing over the end of a call."""
    await trio.lowlevel.cancel_shielded_checkpoint()
