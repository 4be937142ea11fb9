"""Options: what a person likes, for clients that show it and for the agent. None of it gives anybody a right."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import msgspec
from msgspec import UNSET, Meta, UnsetType

PATHS_MAX = 50
RECENT_MAX = 20

Path = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Meta(min_length=1, max_length=300)]
Anything = Annotated[object, Meta(extra_json_schema={"description": "Anything."})]
Few = Annotated[int, Meta(ge=0, le=100_000)]


class Layered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something that is said in several places. A field that is not set is not said."""

    def over(self, lower: Self) -> Self:
        """What is said here, and else what is said in the lower place."""
        said = {name: _over(getattr(self, name), getattr(lower, name)) for name in self.__struct_fields__}
        return msgspec.structs.replace(lower, **said)


def _over(upper: object, lower: object) -> object:
    if isinstance(upper, UnsetType):
        return lower
    if isinstance(upper, Layered) and isinstance(lower, Layered):
        return upper.over(lower)
    return upper


class Completions(Layered, frozen=True, kw_only=True):
    """How far a terminal looks for names of files to complete."""

    max_depth: Few | UnsetType = UNSET
    max_items: Few | UnsetType = UNSET


class Tui(Layered, frozen=True, kw_only=True):
    """The looks of a terminal. The server keeps them, and gives them back."""

    compact_mode: bool | UnsetType = UNSET
    diff_mode: Literal["unified", "split"] | UnsetType = UNSET
    transparent: bool | UnsetType = UNSET
    scrollbar: Literal["default", "always", "never"] | UnsetType = UNSET
    completions: Completions | UnsetType = UNSET


class Options(Layered, frozen=True, kw_only=True):
    """The `options` part of the configuration."""

    # Files, or names of them, that tell the agent about the project beside those that it knows by itself.
    context_paths: Annotated[tuple[Path, ...], Meta(max_length=PATHS_MAX)] | UnsetType = UNSET
    initialize_as: Path | UnsetType = UNSET  # the file that `project/init-prompt` asks for
    progress: bool | UnsetType = UNSET
    notifications: Literal["auto", "native", "osc", "bell", "disabled"] | UnsetType = UNSET
    tui: Tui | UnsetType = UNSET


class RecentModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that somebody chose lately, as a client wants to have it back."""

    model: Name
    provider: Name
    reasoning_effort: Name | UnsetType = UNSET
    think: bool | UnsetType = UNSET
    max_tokens: int | UnsetType = UNSET
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    frequency_penalty: float | UnsetType = UNSET
    presence_penalty: float | UnsetType = UNSET
    provider_options: Mapping[str, Anything] | UnsetType = UNSET


RecentModels = Annotated[tuple[RecentModel, ...], Meta(max_length=RECENT_MAX)]


class Recent(Layered, frozen=True, kw_only=True):
    """The models that were chosen lately, the last one first."""

    large: RecentModels | UnsetType = UNSET
    small: RecentModels | UnsetType = UNSET
