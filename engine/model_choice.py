"""ModelChoice: which model answers where. Chosen in a workspace, else for the whole server, else the default.

What the environment names wins over the file of a workspace, as it does over that of the server.
"""

from collections.abc import Callable
from typing import Literal

from engine.events.log import EventLog
from engine.models.catalog import Models
from engine.records.change import Announce, Change, PutSetting
from engine.records.event import ConfigChanged
from engine.records.ids import WorkspaceId
from engine.store.protocol import Store

Size = Literal["large", "small"]


class ModelChoice:
    """The choices in force, kept in memory and in the store."""

    def __init__(
        self,
        models: Models,
        store: Store,
        log: EventLog,
        now_us: Callable[[], int],
        *,
        in_environ: frozenset[Size] = frozenset(),
    ) -> None:
        self._models = models
        self._store = store
        self._log = log
        self._now_us = now_us
        self._in_environ = in_environ
        self._chosen: dict[tuple[WorkspaceId | None, str], str] = {}

    async def load(self, workspace_id: WorkspaceId | None) -> None:
        """Read what was chosen before."""
        for key, value in (await self._store.settings(workspace_id)).items():
            if key.startswith("model."):
                self._chosen[workspace_id, key.removeprefix("model.")] = value

    def in_force(self, workspace_id: WorkspaceId, size: Size, configured: str | None = None) -> str:
        """The model for this workspace, as `provider/model`; `configured` is what its own file says."""
        default = self._models.default_name if size == "large" else self._models.small_name
        if configured is not None and size not in self._in_environ:
            default = configured
        return self._chosen.get((workspace_id, size)) or self._chosen.get((None, size)) or default

    def check(self, name: str) -> None:
        """Raise NotFound unless there is such a provider, and such a model if the provider knows its models."""
        self._models.get(name)

    async def choose(self, workspace_id: WorkspaceId, size: Size, name: str, *, everywhere: bool = False) -> None:
        """Choose a model for a workspace or for the whole server; told by a `config_changed` event. Raises NotFound."""
        self.check(name)
        scope = None if everywhere else workspace_id
        now = self._now_us()
        told = Announce(ConfigChanged(workspace_id))
        await self._log.commit(Change(workspace_id, now, (PutSetting(scope, f"model.{size}", name), told)))
        self._chosen[scope, size] = name
