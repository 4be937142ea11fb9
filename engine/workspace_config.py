"""The configuration of one workspace: `.countermand/config.toml` in its directory, over the server's.

[models]
model = "openai/gpt-6.1-sol"      # one of the server's providers; what a person chooses wins over it

[engine]
disabled_tools = ["fetch"]        # beside those that the server disables
default_timeout_s = 600           # at most the server's

[options]
context_paths = ["docs/RULES.md"]

Whoever opens a directory may have got it from somebody else. So this file can tell the agent things and narrow what it
may do, and no more than that: it grants no permission, names no address and no key, and starts no program. What only
the operator may set is refused by name.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import anyio.to_thread
import msgspec
import trio
from msgspec import Meta

from engine.errors import ConfigInvalid, NotFound
from engine.models.settings import ModelSettings
from engine.options import Options
from engine.settings import EngineSettings
from engine.toml_file import convert, read_toml

WORKSPACE_FILE = ".countermand/config.toml"


class WorkspaceModels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the server's models answer here, each as `provider/model`."""

    model: str | None = None
    small_model: str | None = None


class WorkspaceEngine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is narrower here than in the server. Times are in seconds."""

    disabled_tools: frozenset[str] = frozenset()
    default_timeout_s: Annotated[float, Meta(gt=0)] | None = None


class WorkspaceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says. Nothing, if there is none."""

    engine: WorkspaceEngine = WorkspaceEngine()
    models: WorkspaceModels = WorkspaceModels()
    options: Options = Options()

    def model(self, size: Literal["large", "small"]) -> str | None:
        """The model that is said for this size."""
        return self.models.model if size == "large" else self.models.small_model

    def check_models(self, check: Callable[[str], None], root: Path) -> None:
        """Raise ConfigInvalid for a model that `check` raises NotFound for."""
        for field in self.models.__struct_fields__:
            try:
                check(getattr(self.models, field) or "")
            except NotFound as error:
                raise ConfigInvalid(f"models.{field}", str(error), file=str(root / WORKSPACE_FILE)) from None

    def narrow(self, settings: EngineSettings) -> EngineSettings:
        """The server's settings as they hold here."""
        timeout_s = settings.default_timeout_s
        if self.engine.default_timeout_s is not None:
            timeout_s = min(timeout_s, self.engine.default_timeout_s)
        disabled = settings.disabled_tools | self.engine.disabled_tools
        return msgspec.structs.replace(settings, disabled_tools=disabled, default_timeout_s=timeout_s)


NOTHING = WorkspaceConfig()

_PARTS: Mapping[str, tuple[type[msgspec.Struct], type[msgspec.Struct]]] = {
    "engine": (EngineSettings, WorkspaceEngine),
    "models": (ModelSettings, WorkspaceModels),
}


def load_workspace_config(root: Path) -> WorkspaceConfig:
    """Read the file of the workspace at this resolved path. Blocking. Raises ConfigInvalid, naming file and field."""
    path = root / WORKSPACE_FILE
    if not Path(os.path.realpath(path)).is_relative_to(root):
        raise ConfigInvalid(str(path), "leads out of the workspace; it must be a file inside (R32)")
    data = read_toml(path)
    if data is None:
        return NOTHING
    for part, (known, allowed) in _PARTS.items():
        said = data.get(part)
        for name in said if isinstance(said, dict) else ():
            if name in known.__struct_fields__ and name not in allowed.__struct_fields__:
                problem = "only the operator may set this, in the configuration of the server"
                raise ConfigInvalid(f"{part}.{name}", problem, file=str(path))
    return convert(data, WorkspaceConfig, str(path))


async def read_workspace_config(root: Path, *, in_thread: bool) -> WorkspaceConfig:
    """The same without blocking the others, if threads may be used. Raises ConfigInvalid."""
    if in_thread:
        return await anyio.to_thread.run_sync(load_workspace_config, root)
    await trio.lowlevel.checkpoint()
    return load_workspace_config(root)
