"""Models and configuration: what a workspace works with."""

from msgspec import UnsetType

from engine.backend import Backend
from engine.errors import NotFound
from engine.models.catalog import OFFLINE
from engine.models.protocol import ModelInfo
from engine.models.sources import ProviderInfo
from engine.options import Options, Tui
from engine.workspace import Workspace
from web.routes.call import EMPTY, Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable, W
from web.wire import config as wire

table = RouteTable("config")

# What Crush's client calls a provider that it knows nothing particular of.
_WIRE_TYPE = "openai-compat"


def _wire_type(provider: ProviderInfo) -> str:
    return _WIRE_TYPE if provider.type == OFFLINE.type else provider.type


@table.get("/v1/config", query=Nothing, answer=wire.GlobalConfig)
def get_global_config(call: Call[Nothing, Nothing]) -> Reply:
    """Empty, as in Crush."""
    return json_reply(wire.GlobalConfig())


@table.get(f"{W}/config", query=Nothing, answer=wire.Config)
def get_config(call: Call[Nothing, Nothing]) -> Reply:
    """The configuration in force. Keys and other secrets have no place in it."""
    return json_reply(config_shape(call.backend, call.workspace()))


@table.add("POST", f"{W}/config/model", access="admin", query=Nothing, body=wire.ConfigModel)
async def choose_model(call: Call[Nothing, wire.ConfigModel]) -> Reply:
    """Choose the large or the small model, of this workspace (scope 1) or of the whole server (scope 0)."""
    body = call.body
    name = f"{body.model.provider}/{body.model.model}"
    await call.workspace().choose_model(body.model_type, name, everywhere=body.scope == 0)
    return EMPTY


@table.get(f"{W}/providers", query=Nothing, answer=list[wire.CatalogProvider])
def list_providers(call: Call[Nothing, Nothing]) -> Reply:
    """The providers that can be asked, the default model's first."""
    call.workspace()
    return json_reply([_catalog_provider(each) for each in call.backend.models.providers()])


@table.get(f"{W}/agent", query=Nothing, answer=wire.AgentInfo)
def get_agent(call: Call[Nothing, Nothing]) -> Reply:
    """Whether the agent can be asked, whether it is busy, and with which model it answers."""
    workspace = call.workspace()
    info = _info(call.backend, workspace.chosen_model("large"))
    return json_reply(
        wire.AgentInfo(
            is_busy=workspace.is_busy,
            is_ready=info is not None,
            model=wire.model_shape(info) if info else None,
            model_cfg=wire.selected_shape(info) if info else None,
        )
    )


@table.add("POST", f"{W}/agent/init", access="run", query=Nothing, body=wire.InitAgent)
def init_agent(call: Call[Nothing, wire.InitAgent]) -> Reply:
    """Say whether somebody is there to answer what tools ask; the agent is there for as long as its workspace.

    Crush builds a new one for each client that starts, and lets go of what the old one was doing.
    """
    workspace = call.workspace()
    workspace.permissions.attend(call.body.interactive, clients=workspace.claims.statistics().clients)
    return EMPTY


@table.add("POST", f"{W}/agent/update", access="run", query=Nothing, body=Nothing)
def update_agent(call: Call[Nothing, Nothing]) -> Reply:
    """Nothing to do: each run begins with the model that is chosen then."""
    call.workspace()
    return EMPTY


@table.get(f"{W}/agent/default-small-model", query=wire.DefaultModelQuery, answer=wire.SelectedModel)
def get_default_small_model(call: Call[wire.DefaultModelQuery, Nothing]) -> Reply:
    """The small model of a provider; without a provider, the one in force."""
    workspace, models = call.workspace(), call.backend.models
    provider_id = call.query.provider_id
    if not provider_id:
        return json_reply(wire.selected_shape(models.get(workspace.chosen_model("small")).info))
    provider = next((each for each in models.providers() if each.id == provider_id), None)
    if provider is None:
        raise NotFound("provider", provider_id)
    name = provider.small_model or provider.default_model or next((each.id for each in provider.models), "")
    return json_reply(wire.selected_shape(models.get(f"{provider_id}/{name}").info))


def config_shape(backend: Backend, workspace: Workspace) -> wire.Config:
    """The configuration of a workspace, as much of it as leaves the server."""
    infos = {size: _info(backend, workspace.chosen_model(size)) for size in ("large", "small")}
    preferred = workspace.preferences.in_force()
    return wire.Config(
        models={size: wire.selected_shape(info) for size, info in infos.items() if info is not None},
        recent_models=preferred.recent_models,
        providers={each.id: _provider(each) for each in backend.models.providers()},
        options=_options(preferred.options, workspace),
        permissions=wire.Permissions(allowed_tools=tuple(sorted(workspace.settings.allowed_tools))),
    )


def _options(options: Options, workspace: Workspace) -> wire.Options:
    settings = workspace.settings
    return wire.Options(
        tui=Tui() if isinstance(options.tui, UnsetType) else options.tui,
        data_directory=str(settings.data_dir) if settings.data_dir else "",
        disabled_tools=tuple(sorted(settings.disabled_tools)),
        context_paths=options.context_paths,
        initialize_as=options.initialize_as,
        progress=options.progress,
        notifications=options.notifications,
    )


def _info(backend: Backend, name: str) -> ModelInfo | None:
    """What is known of a model; None if it is gone since it was chosen."""
    try:
        return backend.models.get(name).info
    except NotFound:
        return None


def _provider(provider: ProviderInfo) -> wire.Provider:
    models = tuple(map(wire.model_shape, provider.models))
    return wire.Provider(id=provider.id, name=provider.name, type=_wire_type(provider), models=models)


def _catalog_provider(provider: ProviderInfo) -> wire.CatalogProvider:
    return wire.CatalogProvider(
        name=provider.name,
        id=provider.id,
        type=_wire_type(provider),
        default_large_model_id=provider.default_model,
        default_small_model_id=provider.small_model,
        models=tuple(map(wire.model_shape, provider.models)),
    )
