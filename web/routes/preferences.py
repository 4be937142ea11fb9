"""Preferences: what is set through the API; and what cannot be, with the reason."""

from engine.errors import ConfigRefused, NotFound
from web.problems import Refused
from web.routes.call import EMPTY, Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable, W
from web.wire import config as wire

table = RouteTable("config")


@table.add("POST", f"{W}/config/set", access="admin", query=Nothing, body=wire.SetConfig)
async def set_config(call: Call[Nothing, wire.SetConfig]) -> Reply:
    """Set an option, of this workspace (scope 1) or of the whole server (scope 0).

    What can be set is below `options` and `recent_models`. What gives rights, names programs and addresses, or holds
    keys is the operator's, and is refused.
    """
    body = call.body
    await call.workspace().preferences.put(body.key, body.value, everywhere=body.scope == 0)
    return EMPTY


@table.add("POST", f"{W}/config/remove", access="admin", query=Nothing, body=wire.RemoveConfig)
async def remove_config(call: Call[Nothing, wire.RemoveConfig]) -> Reply:
    """Forget what was set: what the files say holds again."""
    body = call.body
    await call.workspace().preferences.remove(body.key, everywhere=body.scope == 0)
    return EMPTY


@table.add("POST", f"{W}/config/compact", access="admin", query=Nothing, body=wire.CompactConfig)
async def set_compact(call: Call[Nothing, wire.CompactConfig]) -> Reply:
    """Set `options.tui.compact_mode`."""
    body = call.body
    await call.workspace().preferences.put("options.tui.compact_mode", body.enabled, everywhere=body.scope == 0)
    return EMPTY


@table.add("POST", f"{W}/config/provider-key", access="admin", query=Nothing, body=wire.ProviderConfig)
def set_provider_key(call: Call[Nothing, wire.ProviderConfig]) -> Reply:
    """Refused: keys come from the environment of the server, and from files, and from nowhere else.

    So none of them is on its way over a connection, or in the store and its backups.
    """
    call.workspace()
    raise ConfigRefused(f"providers.{call.body.provider_id}.api_key")


@table.add("POST", f"{W}/config/import-copilot", access="admin", query=Nothing, body=Nothing, answer=wire.ImportedToken)
def import_copilot(call: Call[Nothing, Nothing]) -> Reply:
    """Nothing is imported: no sign-in of another program is looked for."""
    call.workspace()
    return json_reply(wire.ImportedToken())


@table.add("POST", f"{W}/config/refresh-oauth", access="admin", query=Nothing, body=wire.ProviderConfig)
def refresh_oauth(call: Call[Nothing, wire.ProviderConfig]) -> Reply:
    """Refused: no provider is signed in to with OAuth; they are given keys."""
    call.workspace()
    provider_id = call.body.provider_id
    if all(each.id != provider_id for each in call.backend.models.providers()):
        raise NotFound("provider", provider_id)
    raise Refused(400, "no_oauth", f"provider {provider_id!r} is given a key; nobody is signed in to it with OAuth")
