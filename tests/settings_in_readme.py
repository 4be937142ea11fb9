"""The table of all settings in the README, and the structs that it describes."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import msgspec
from msgspec import UNSET

ROW = re.compile(
    r"^\| `(?P<key>(?:engine|models|options)\.[\w.]+(?:\[\][\w.]+)?)` \| (?P<default>[^|]*) \|", re.MULTILINE
)
NAME = "NAME"  # in the place of a key that a person chooses


def rows_of(text: str) -> dict[str, str]:
    """The keys in the tables of a document, with their defaults as they stand there."""
    return {found["key"]: found["default"].strip() for found in ROW.finditer(text)}


def settings_of(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a configuration, as a document writes it, with its default."""
    hints = get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        key = f"{prefix}{field.name}"
        inner = struct_in(hints[field.name])
        if inner is None:
            yield key, default_of(field)
        elif is_named(hints[field.name]):
            yield from settings_of(inner, f"{key}.{NAME}.")
        elif is_list(hints[field.name]):
            yield from settings_of(inner, f"{key}[].")
        else:
            yield from settings_of(inner, f"{key}.")


def struct_in(hint: object) -> type[msgspec.Struct] | None:
    """The struct that a value is, or holds."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return hint
    return next((found for each in get_args(hint) if (found := struct_in(each)) is not None), None)


def is_named(hint: object) -> bool:
    """Whether a person chooses the names of what is inside."""
    return "Mapping" in str(hint)


def is_list(hint: object) -> bool:
    """Whether there are several of it."""
    return str(hint).startswith("tuple[")


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """The default, as TOML has it; a dash for none."""
    value = field.default
    if value is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT:
        return "needed"
    if value in (None, UNSET, msgspec.NODEFAULT, "", (), frozenset(), {}):
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:_}".replace("_", ",") if isinstance(value, int) else f"{value:,g}"


def document(path: Path) -> str:
    """A document."""
    return path.read_text("utf-8")
