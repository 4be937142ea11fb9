"""Configuration files: read within bounds, and wrong in ways that name the file and the field."""

import os
import re
import stat
import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

from engine.errors import ConfigInvalid
from engine.models.settings import decode_secret

T = TypeVar("T")

SIZE_MAX = 1 << 20  # bytes; more is no honest configuration

_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]+)`")


def read_toml(path: Path) -> dict[str, object] | None:
    """What a file says; None if it is not there. Blocking. Raises ConfigInvalid."""
    try:
        # Whoever put it there may have made it a pipe that nobody writes to.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigInvalid(str(path), "is no file")
            data = file.read(SIZE_MAX + 1)
        if len(data) > SIZE_MAX:
            raise ConfigInvalid(str(path), f"has more than {SIZE_MAX} bytes")
        return tomllib.loads(data.decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, no TOML, a number without an end
        raise ConfigInvalid(str(path), f"cannot be read: {error}") from None


def convert(data: object, kind: type[T], file: str) -> T:
    """What was read, as `kind`. Raises ConfigInvalid."""
    try:
        return msgspec.convert(data, kind, dec_hook=decode_secret)
    except msgspec.ValidationError as error:
        field, problem = where(error)
        raise ConfigInvalid(field or "the file", problem, file=file) from None


def where(error: msgspec.ValidationError) -> tuple[str, str]:
    """The field that is to blame, as a person writes it, and what is wrong with it."""
    text = str(error)
    found = _PATH.search(text)
    field, problem = (found["path"], text[: found.start()]) if found else ("", text)
    if unknown := _UNKNOWN.search(problem):
        return ".".join(filter(None, (field, unknown["name"]))), "there is no such key"
    return field, problem[:1].lower() + problem[1:]
