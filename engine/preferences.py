"""Preferences: what is set through the API. It lies in the store, over the files, which belong to people alone.

    options.…          as in the files
    recent_models.…    what a client wants to have back

A value that is no object is a setting of its own in the store, so that two who set different ones do not undo each
other. What is set for a workspace wins over what is set for the server.
"""

from collections.abc import Callable, Iterator, Mapping

import msgspec

from engine.errors import ConfigInvalid, ConfigRefused
from engine.events.log import EventLog
from engine.options import Layered, Options, Recent
from engine.records.change import Announce, Change, PutSetting
from engine.records.event import ConfigChanged
from engine.records.ids import WorkspaceId
from engine.store.protocol import Store
from engine.toml_file import where

PREFIX = "config."  # of the names in the store
KEY_MAX = 200  # characters
VALUE_MAX = 64 * 1024  # bytes of JSON

# What gives rights, names programs and addresses, or holds keys.
OPERATORS = frozenset(
    {"agents", "engine", "env", "hooks", "lsp", "mcp", "models", "permissions", "providers", "tools", "web"}
)


class Preferences(Layered, frozen=True, kw_only=True):
    """Everything that can be set through the API."""

    options: Options = Options()
    recent_models: Recent = Recent()


class PreferenceStore:
    """What is set for the server and for its workspaces, kept in memory and in the store."""

    def __init__(self, store: Store, log: EventLog, now_us: Callable[[], int]) -> None:
        self._store = store
        self._log = log
        self._now_us = now_us
        self._said: dict[WorkspaceId | None, dict[str, object]] = {}

    async def load(self, workspace_id: WorkspaceId | None) -> None:
        """Read what was set before, for a workspace or for the server."""
        self._said[workspace_id] = {
            key.removeprefix(PREFIX): msgspec.json.decode(value)
            for key, value in (await self._store.settings(workspace_id)).items()
            if key.startswith(PREFIX)
        }

    def in_force(self, workspace_id: WorkspaceId) -> Preferences:
        """What is set for this workspace, and else for the server."""
        return self._read(workspace_id).over(self._read(None))

    async def put(self, workspace_id: WorkspaceId, key: str, value: object, *, everywhere: bool = False) -> None:
        """Set `key`, a path of names with dots, with all that is below it; told by a `config_changed` event. Raises
        ConfigRefused for what is the operator's, ConfigInvalid for what is nothing, and StoreError; then nothing is
        set."""
        path = check_key(key)
        check_value(path, value)
        await self._write(workspace_id, key, dict(leaves(key, value)), everywhere=everywhere)

    async def remove(self, workspace_id: WorkspaceId, key: str, *, everywhere: bool = False) -> None:
        """Forget what is set under `key`. Nothing there is no error. Raises as `put`."""
        check_key(key)
        await self._write(workspace_id, key, {}, everywhere=everywhere)

    async def _write(self, workspace_id: WorkspaceId, key: str, new: Mapping[str, object], *, everywhere: bool) -> None:
        scope = None if everywhere else workspace_id
        said = self._said.setdefault(scope, {})
        old = [name for name in said if name == key or name.startswith(f"{key}.") or key.startswith(f"{name}.")]
        gone = [PutSetting(scope, PREFIX + name, "") for name in old if name not in new]
        puts = [PutSetting(scope, PREFIX + name, msgspec.json.encode(value).decode()) for name, value in new.items()]
        told = Announce(ConfigChanged(workspace_id))
        await self._log.commit(Change(workspace_id, self._now_us(), (*gone, *puts, told)))
        for name in old:
            said.pop(name, None)
        said.update(new)

    def _read(self, scope: WorkspaceId | None) -> Preferences:
        tree: dict[str, object] = {}
        for name, value in sorted(self._said.get(scope, {}).items()):
            put_below(tree, name.split("."), value)
        try:
            return msgspec.convert(tree, Preferences)
        except msgspec.ValidationError:  # of another version, that knew other keys
            return _readable(tree)


class WorkspacePreferences:
    """What is set for one workspace, over what the files say in `options`."""

    def __init__(self, preferences: PreferenceStore, workspace_id: WorkspaceId, options: Options) -> None:
        self._preferences = preferences
        self._workspace_id = workspace_id
        self._files = Preferences(options=options)

    def in_force(self) -> Preferences:
        """What holds here."""
        return self._preferences.in_force(self._workspace_id).over(self._files)

    async def put(self, key: str, value: object, *, everywhere: bool = False) -> None:
        """`PreferenceStore.put` for this workspace, or for the whole server."""
        await self._preferences.put(self._workspace_id, key, value, everywhere=everywhere)

    async def remove(self, key: str, *, everywhere: bool = False) -> None:
        """`PreferenceStore.remove` for this workspace, or for the whole server."""
        await self._preferences.remove(self._workspace_id, key, everywhere=everywhere)


def check_key(key: str) -> list[str]:
    """The names of a path that may be set. Raises ConfigRefused and ConfigInvalid."""
    path = key.split(".")
    if path[0] in OPERATORS:
        raise ConfigRefused(key)
    if len(key) > KEY_MAX or not all(path) or path[0] not in Preferences.__struct_fields__:
        raise ConfigInvalid("key", f"{key[:KEY_MAX]!r} cannot be set; what can is below `options` and `recent_models`")
    return path


def check_value(path: list[str], value: object) -> None:
    """Raise ConfigInvalid unless the value can stand there."""
    try:
        if len(msgspec.json.encode(value)) > VALUE_MAX:
            raise ConfigInvalid("value", f"has more than {VALUE_MAX} bytes")
        tree: dict[str, object] = {}
        put_below(tree, path, value)
        msgspec.convert(tree, Preferences)
    except msgspec.ValidationError as error:
        field, problem = where(error)
        raise ConfigInvalid("value", f"{field}: {problem}") from None


def leaves(key: str, value: object) -> Iterator[tuple[str, object]]:
    """What is to be stored of a value: the values in it that are no objects, each under its own path."""
    if not isinstance(value, dict):
        yield key, value
        return
    for name, inner in value.items():
        yield from leaves(f"{key}.{name}", inner)


def put_below(tree: dict[str, object], path: list[str], value: object) -> None:
    """Put a value into a tree of objects."""
    for name in path[:-1]:
        inner = tree.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        tree = inner
    tree[path[-1]] = value


def _readable(tree: Mapping[str, object]) -> Preferences:
    """What can be read of it, a leaf at a time."""
    found = Preferences()
    for name, value in (leaf for top, inner in tree.items() for leaf in leaves(top, inner)):
        one: dict[str, object] = {}
        put_below(one, name.split("."), value)
        try:
            found = msgspec.convert(one, Preferences).over(found)
        except msgspec.ValidationError:
            continue
    return found
