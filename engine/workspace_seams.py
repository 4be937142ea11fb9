"""WorkspaceSeams: what a workspace is built on; all of it outlives the workspace."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import trio

from engine.agents.protocol import Agent, Titler
from engine.clock import Clock
from engine.events.local_bus import LocalBus
from engine.events.log import EventLog
from engine.model_choice import ModelChoice
from engine.options import Options
from engine.preferences import PreferenceStore
from engine.records.ids import WorkspaceId
from engine.runs.run import BeforeEntry
from engine.settings import EngineSettings
from engine.store.protocol import Store
from engine.tools.toolbox import Toolbox


class WorkspaceSeams(msgspec.Struct, frozen=True, kw_only=True):
    """See above. `settings` are the server's; `options` what is said beside them in its configuration."""

    id: WorkspaceId
    path: str
    root: Path
    settings: EngineSettings
    options: Options
    clock: Clock
    store: Store
    log: EventLog
    bus: LocalBus
    agent: Agent
    titler: Titler | None
    toolbox: Toolbox
    environment: Mapping[str, str]  # of the commands that tools run
    slots: trio.CapacityLimiter
    replay_turn: trio.Lock  # of the readers of all workspaces
    choice: ModelChoice
    preferences: PreferenceStore
    on_claims_changed: Callable[[], None]
    before_entry: BeforeEntry | None
    problem: str | None = None  # why there is no directory to work in; then no run is accepted, and none started
