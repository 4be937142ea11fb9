"""Project: whether a workspace has told its agents about itself, and what to ask an agent for that it does."""

from collections.abc import Callable
from pathlib import Path

from engine.agents.context_files import read_context_files
from engine.events.log import EventLog
from engine.preferences import WorkspacePreferences
from engine.records.change import Announce, Change, PutSetting
from engine.records.event import ConfigChanged
from engine.records.ids import WorkspaceId
from engine.store.protocol import Store
from engine.tools.disk import Disk

ASKED = "project.asked"  # the setting of a workspace whose person was asked, and need not be again
INITIALIZE_AS = "AGENTS.md"

PROMPT = """\
Write `{name}` for this project: what an agent that has never seen it must know to work on it well. If the file is
there, make it better and keep what people wrote.

Look before you write: the README, the build files, what checks and tests the code, the rules that stand in files such
as AGENTS.md, CLAUDE.md, .cursorrules or .github/copilot-instructions.md, and a few typical sources. Write down only
what you have seen: the commands that build, run, check and test it, one test alone too; how it is laid out, and what
goes where; how its code is written, by its own examples; what surprises. Be brief: a page at most, and nothing that
is true of every project. If there is nothing in the directory yet, say so, and write no file.\
"""


class Project:
    """The project in one workspace."""

    def __init__(
        self,
        preferences: WorkspacePreferences,
        store: Store,
        log: EventLog,
        workspace_id: WorkspaceId,
        now_us: Callable[[], int],
        *,
        root: Path,
        disk: Disk,
    ) -> None:
        self._preferences = preferences
        self._store = store
        self._log = log
        self._workspace_id = workspace_id
        self._now_us = now_us
        self._root = root
        self._disk = disk

    async def needs_init(self) -> bool:
        """Whether a person should be asked: no file tells of the project, and nobody was asked before."""
        if ASKED in await self._store.settings(self._workspace_id):
            return False
        options = self._preferences.in_force().options
        more = options.context_paths if isinstance(options.context_paths, tuple) else ()
        return not await self._disk.do(read_context_files, self._root, (*more, self._name()))

    async def note_asked(self) -> None:
        """The person was asked, whatever they said; told by a `config_changed` event."""
        put = PutSetting(self._workspace_id, ASKED, "1")
        told = Announce(ConfigChanged(self._workspace_id))
        await self._log.commit(Change(self._workspace_id, self._now_us(), (put, told)))

    def init_prompt(self) -> str:
        """What to ask an agent for."""
        return PROMPT.format(name=self._name())

    def _name(self) -> str:
        name = self._preferences.in_force().options.initialize_as
        return name if isinstance(name, str) else INITIALIZE_AS
