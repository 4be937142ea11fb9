"""Models and configuration as Crush's client reads them. No shape here has a place for a secret."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.models.protocol import ModelInfo
from engine.options import Recent, Tui

ModelType = Literal["large", "small"]
NAME_MAX = 300


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model; prices are US dollars for a million tokens. `supports_attachments` says whether it takes images."""

    id: str
    name: str
    cost_per_1m_in: float
    cost_per_1m_out: float
    cost_per_1m_in_cached: float
    cost_per_1m_out_cached: float
    context_window: int
    default_max_tokens: int
    can_reason: bool
    supports_attachments: bool
    reasoning_levels: tuple[str, ...] = ()
    default_reasoning_effort: str = ""


class SelectedModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which model of which provider."""

    model: str
    provider: str
    reasoning_effort: str = ""
    max_tokens: int = 0


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One provider, as the configuration has it."""

    id: str
    name: str
    type: str
    models: tuple[Model, ...]


class CatalogProvider(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One provider, as the catalog has it."""

    name: str
    id: str
    type: str = ""
    default_large_model_id: str = ""
    default_small_model_id: str = ""
    models: tuple[Model, ...] = ()


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a person likes, and what Crush's client wants to know beside it, which reads `tui` without looking whether
    it is there. No metrics are to be sent anywhere."""

    tui: Tui = Tui()
    data_directory: str = ""
    disable_metrics: bool = True
    disabled_tools: tuple[str, ...] = ()
    context_paths: tuple[str, ...] | UnsetType = UNSET
    initialize_as: str | UnsetType = UNSET
    progress: bool | UnsetType = UNSET
    notifications: str | UnsetType = UNSET


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """What needs no asking inside the workspace."""

    allowed_tools: tuple[str, ...] = ()


class NothingHere(msgspec.Struct, frozen=True):
    """An object without a key."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration in force. `providers` and `options` are always there: Crush's client needs both to live. There
    are no MCP and no LSP servers."""

    models: dict[str, SelectedModel]
    recent_models: Recent = Recent()
    providers: dict[str, Provider]
    options: Options
    permissions: Permissions = Permissions()
    mcp: NothingHere = NothingHere()
    lsp: NothingHere = NothingHere()


class GlobalConfig(msgspec.Struct, frozen=True):
    """Empty, as in Crush: what is configured belongs to a workspace."""


class WantedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model somebody chooses."""

    model: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]
    provider: Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]


class ConfigModel(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a choice of model; scope 0 is everywhere, 1 is this workspace."""

    model_type: ModelType
    model: WantedModel
    scope: Literal[0, 1] = 0


Scope = Literal[0, 1]
Key = Annotated[str, Meta(min_length=1, max_length=NAME_MAX)]


class SetConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a setting; `key` is a path of names with dots; scope 0 is everywhere, 1 is this workspace."""

    key: Key
    value: Any
    scope: Scope = 0


class RemoveConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be forgotten."""

    key: Key
    scope: Scope = 0


class CompactConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the terminal is to be compact."""

    enabled: bool = False
    scope: Scope = 0


class ProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which provider is meant. What else is sent, a key, is not looked at."""

    provider_id: Key
    scope: Scope = 0


class ImportedToken(msgspec.Struct, frozen=True, kw_only=True):
    """What came of looking for a token of another program: nothing."""

    token: None = None
    success: bool = False


class DefaultModelQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Whose small model is asked for."""

    provider_id: str = ""


class AgentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the agent can be asked, and what it asks. Before it is ready, `model` and `model_cfg` are null."""

    is_busy: bool
    is_ready: bool
    model: Model | None
    model_cfg: SelectedModel | None


class InitAgent(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an agent/init. Nothing hangs on it: the agent of a workspace is always there."""

    interactive: bool = False


def model_shape(info: ModelInfo) -> Model:
    """The model as it goes over the wire."""
    return Model(
        id=info.id,
        name=info.name,
        cost_per_1m_in=info.cost_in,
        cost_per_1m_out=info.cost_out,
        cost_per_1m_in_cached=info.cost_in_cached,
        cost_per_1m_out_cached=info.cost_out_cached,
        context_window=info.context_window,
        default_max_tokens=info.default_max_tokens,
        can_reason=info.can_reason,
        reasoning_levels=info.reasoning_levels,
        default_reasoning_effort=info.default_reasoning_effort,
        supports_attachments=info.supports_attachments,
    )


def selected_shape(info: ModelInfo) -> SelectedModel:
    """The model as a choice."""
    return SelectedModel(
        model=info.id,
        provider=info.provider,
        reasoning_effort=info.effort_for(None),
        max_tokens=info.default_max_tokens,
    )
