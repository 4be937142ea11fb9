"""What a person configures about models, and the wrapper that keeps their keys out of every text."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import msgspec

from engine.errors import ConfigInvalid
from engine.models.protocol import LongPrompt, ModelInfo

MASK = "[secret]"

ProviderType = Literal["openai", "openai-compat", "anthropic", "gemini"]
ReasoningField = Literal["", "reasoning", "reasoning_content", "reasoning_details"]

Price = Annotated[float, msgspec.Meta(ge=0)]
Tokens = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]


class Secret:
    """A key. Nothing shows it but `reveal`: not `repr`, not `str`, not an encoder, not a traceback's locals."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the one header that carries it."""
        return self._value

    def hide_in(self, text: str) -> str:
        """The text with the key taken out, for what a provider says about a request that held it."""
        return text.replace(self._value, MASK) if self._value else text

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not pickled")


def decode_secret(kind: type, value: object) -> object:
    """The `dec_hook` of whatever decodes settings."""
    if kind is object:  # what is passed on as it is
        return value
    if kind is Secret:
        if not isinstance(value, str):
            raise ValueError("a key is a string")
        return Secret(value)
    raise NotImplementedError(f"cannot make {kind.__name__} of {type(value).__name__}")


def encode_secret(value: object) -> object:
    """The `enc_hook` of whatever encodes settings: a mask stands for the key."""
    if isinstance(value, Secret):
        return MASK
    raise NotImplementedError(f"cannot encode {type(value).__name__}")


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that a person adds to a provider, or what they know better about one of the catalog; see `ModelInfo`."""

    id: str
    name: str | None = None
    context_window: Tokens | None = None
    default_max_tokens: Tokens | None = None
    cost_in: Price | None = None
    cost_out: Price | None = None
    cost_in_cached: Price | None = None
    cost_out_cached: Price | None = None
    long_prompt: LongPrompt | None = None
    can_reason: bool | None = None
    reasoning_levels: tuple[str, ...] | None = None
    default_reasoning_effort: str | None = None
    thinks_by: Literal["effort", "budget"] | None = None
    supports_attachments: bool | None = None

    def over(self, known: Self) -> Self:
        """What is said here, and else what is known."""
        said = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(known, **said)

    def as_info(self, provider: str, *, flat_rate: bool = False) -> ModelInfo:
        """The same, as the engine knows models."""
        said = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return ModelInfo(provider=provider, flat_rate=flat_rate, **({"name": self.id} | said))


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider. What is not said comes from the catalog, for a provider that is in it."""

    type: ProviderType | None = None
    name: str = ""
    base_url: str | None = None
    api_key: Secret | None = None
    api_key_env: str | None = None  # the environment variable that holds the key
    api_key_file: str | None = None  # the file that holds the key, and nothing else
    models: tuple[ModelEntry, ...] = ()
    default_model: str | None = None  # by id; else the catalog's, else the first of `models`
    small_model: str | None = None
    disable: bool = False
    flat_rate: bool = False  # requests cost nothing, whatever they take
    extra_headers: Mapping[str, Secret] = {}  # sent with every request
    extra_body: Mapping[str, object] = {}  # put into every request, over what is there
    send_reasoning_as: ReasoningField | None = None  # chat completions only: the field that takes thoughts back
    connect_timeout_s: Seconds = 15.0
    read_timeout_s: Seconds = 300.0  # between two pieces of an answer; a model that thinks may be silent for minutes


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `models` part of the configuration. `model` and `small_model` are `provider/model`."""

    model: str | None = None
    small_model: str | None = None
    providers: Mapping[str, ProviderSettings] = {}

    @classmethod
    def from_data(cls, data: object, field: str = "models") -> Self:
        """Check decoded JSON or TOML. Raises `ConfigInvalid`."""
        try:
            return msgspec.convert(data, cls, dec_hook=decode_secret)
        except msgspec.ValidationError as error:
            raise ConfigInvalid(field, str(error)) from None


def key_variables(settings: ModelSettings) -> set[str]:
    """The environment variables that hold keys by the configuration, whatever they are called."""
    return {each.api_key_env for each in settings.providers.values() if each.api_key_env}
