"""From the catalog, the settings and the environment to the providers that are to be opened. No network."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import msgspec

from engine.errors import ConfigInvalid
from engine.models.endpoint import Endpoint
from engine.models.protocol import ModelInfo
from engine.models.settings import ModelEntry, ProviderSettings, ProviderType, ReasoningField, Secret

_CATALOG = Path(__file__).with_name("catalog.toml")


class ProviderInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that can be asked, for those who show a choice. Holds no key. The default and the small model are ids,
    empty where nobody can know them."""

    id: str
    name: str
    type: str
    base_url: str
    models: tuple[ModelInfo, ...]
    default_model: str = ""
    small_model: str = ""
    flat_rate: bool = False

    def model(self, model_id: str) -> ModelInfo:
        """What is known of a model; of one that nobody knows, its name."""
        known = (info for info in self.models if info.id == model_id)
        unknown = ModelInfo(id=model_id, provider=self.id, name=model_id, flat_rate=self.flat_rate)
        return next(known, unknown)


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A provider to be opened. `is_chosen`: somebody gave it a key or settings, so that it may be the default one."""

    info: ProviderInfo
    endpoint: Endpoint
    is_chosen: bool


class KnownProvider(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider of the catalog. Its key is in the first of `api_key_env` that is set. Under another address it is
    another server, which speaks `type_elsewhere` unless the settings say what."""

    id: str
    name: str
    base_url: str = ""
    type: ProviderType = "openai-compat"
    type_elsewhere: ProviderType | None = None
    base_url_env: str = ""
    api_key_env: tuple[str, ...] = ()
    default_model: str = ""
    small_model: str = ""
    extra_body: Mapping[str, object] = {}
    send_reasoning_as: ReasoningField = ""
    models: tuple[ModelEntry, ...] = ()

    def is_at(self, base_url: str) -> bool:
        """Whether this is its own address."""
        return base_url.rstrip("/") == self.base_url.rstrip("/")


@cache
def load_catalog() -> Mapping[str, KnownProvider]:
    """The catalog, in the order in which its providers are preferred."""
    data = tomllib.loads(_CATALOG.read_text("utf-8"))
    return {known.id: known for known in msgspec.convert(data["provider"], tuple[KnownProvider, ...])}


def find_sources(
    configured: Mapping[str, ProviderSettings], environ: Mapping[str, str], wanted: frozenset[str]
) -> Iterator[Source]:
    """The providers that are configured, have their key or address in the environment, or are `wanted` by name, the
    preferred ones first. Raises `ConfigInvalid`."""
    catalog = load_catalog()
    for provider_id in dict.fromkeys((*catalog, *configured)):
        settings, known = configured.get(provider_id), catalog.get(provider_id)
        if settings is not None and settings.disable:
            continue
        in_environ = known is not None and any(map(environ.get, (*known.api_key_env, known.base_url_env)))
        if settings is not None or in_environ or provider_id in wanted:
            yield _source(
                settings or ProviderSettings(), known or KnownProvider(id=provider_id, name=provider_id), environ,
                is_configured=settings is not None,
            )  # fmt: skip


def _source(said: ProviderSettings, known: KnownProvider, environ: Mapping[str, str], *, is_configured: bool) -> Source:
    field = f"providers.{known.id}"
    base_url = said.base_url or environ.get(known.base_url_env, "").strip() or known.base_url
    if not base_url:
        raise ConfigInvalid(f"{field}.base_url", "is missing, and the provider is not in the catalog")
    key_env = (said.api_key_env,) if said.api_key_env else known.api_key_env
    key = said.api_key or _key_in_file(said.api_key_file, f"{field}.api_key_file") or _key_in_environ(key_env, environ)
    hints = (f"`{field}.api_key`", *(f"the environment variable {name}" for name in key_env))
    endpoint = Endpoint(
        provider=known.id,
        name=said.name or known.name,
        base_url=base_url,
        type=said.type or (None if known.is_at(base_url) else known.type_elsewhere) or known.type,
        api_key=key,
        key_hint=" or ".join(hints),
        headers=said.extra_headers,
        body={**known.extra_body, **said.extra_body},
        send_reasoning_as=known.send_reasoning_as if said.send_reasoning_as is None else said.send_reasoning_as,
        connect_timeout_s=said.connect_timeout_s,
        read_timeout_s=said.read_timeout_s,
    )
    return Source(info=_info(endpoint, said, known), endpoint=endpoint, is_chosen=is_configured or key is not None)


def _key_in_environ(names: tuple[str, ...], environ: Mapping[str, str]) -> Secret | None:
    keys = (environ.get(name, "").strip() for name in names)
    return next((Secret(key) for key in keys if key), None)


def _key_in_file(given: str | None, field: str) -> Secret | None:
    if not given:
        return None
    path = Path(given).expanduser()
    if not path.is_absolute():
        raise ConfigInvalid(field, f"{given!r} must be an absolute path, or begin with ~")
    try:
        key = path.read_text("utf-8").strip()
    except UnicodeDecodeError:  # its text would hold what the file holds
        raise ConfigInvalid(field, f"{given!r} holds no text") from None
    except OSError as error:
        raise ConfigInvalid(field, f"{given!r} cannot be read: {error.strerror}") from None
    if not key:
        raise ConfigInvalid(field, f"{given!r} is empty")
    return Secret(key)


def _info(endpoint: Endpoint, said: ProviderSettings, known: KnownProvider) -> ProviderInfo:
    entries = {entry.id: entry for entry in known.models}
    for entry in said.models:
        entries[entry.id] = entry.over(entries[entry.id]) if entry.id in entries else entry
    default, small = known.default_model, known.small_model
    if not known.is_at(endpoint.base_url):
        # Another server under a known name, or one of its own: it has what was said of it, and no small one is known.
        default, small = (said.models[0].id if said.models else default), ""
    return ProviderInfo(
        id=endpoint.provider,
        name=endpoint.name,
        type=endpoint.type,
        base_url=endpoint.base_url,
        models=tuple(entry.as_info(endpoint.provider, flat_rate=said.flat_rate) for entry in entries.values()),
        default_model=said.default_model or default,
        small_model=said.small_model or small,
        flat_rate=said.flat_rate,
    )
