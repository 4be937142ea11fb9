"""Strict decoding of what a caller sends, as forgiving as Go's decoder where Crush's client relies on it.

Unknown keys are ignored and `null` counts as not sent. Everything else is taken at its word: a wrong type, a number out
of range or a missing field is refused, and the refusal names the field.
"""

import re
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec.inspect import CollectionType, StructType, Type, UnionType, type_info

from web.problems import Refused

T = TypeVar("T")

# Made once for each struct of the API.
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}
_repeatable_fields: dict[type, frozenset[str]] = {}

QUERY_FIELDS_MAX = 100  # in one query string; more is no honest request

_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")


def decode_body(raw: bytes, kind: type[T]) -> T:
    """The body as `kind`. An empty body is an empty object. Raises Refused (400)."""
    decoder: msgspec.json.Decoder[T] | None = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Rare: broken, wrong, or with nulls. Which of these it is is worth a second look.
        return _decode_again(raw, kind)


def _decode_again(raw: bytes, kind: type[T]) -> T:
    try:
        value = msgspec.json.decode(raw) if raw.strip() else {}
        return msgspec.convert({} if value is None else _without_nulls(value), kind)
    except msgspec.ValidationError as error:
        _refuse_value(error, "body")
    except UnicodeDecodeError:
        raise Refused(400, "bad_json", "failed to decode request: it is not valid UTF-8") from None
    except RecursionError:
        raise Refused(400, "bad_json", "failed to decode request: it is nested too deeply") from None
    except msgspec.DecodeError as error:
        raise Refused(400, "bad_json", f"failed to decode request: {error}") from None


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def decode_query(raw: bytes, kind: type[T]) -> T:
    """The query string as `kind`. Unknown names are ignored, empty values count as not sent. Raises Refused (400)."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except UnicodeError:
        raise Refused(400, "bad_query", "the query string is not valid UTF-8") from None
    except ValueError:
        raise Refused(400, "bad_query", f"the query string has more than {QUERY_FIELDS_MAX} fields") from None
    values: dict[str, str | list[str]] = {name: [] for name in _repeatable(kind)}
    for name, value in pairs:
        held = values.get(name)
        if isinstance(held, list):
            held.append(value)
        else:
            values[name] = value
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        _refuse_value(error, "query")


def _repeatable(kind: type) -> frozenset[str]:
    """The fields that take every value of their name, rather than the last one."""
    if kind not in _repeatable_fields:
        info = type_info(kind)
        fields = info.fields if isinstance(info, StructType) else ()
        _repeatable_fields[kind] = frozenset(each.encode_name for each in fields if _is_collection(each.type))
    return _repeatable_fields[kind]


def _is_collection(info: Type) -> bool:
    return isinstance(info, CollectionType) or (isinstance(info, UnionType) and any(map(_is_collection, info.types)))


def _refuse_value(error: msgspec.ValidationError, place: str) -> NoReturn:
    text = str(error)
    found = _PATH.search(text)
    path = found["path"] if found else ""
    problem = text[: found.start()] if found else text
    if missing := _MISSING.search(problem):
        path = f"{path}.{missing['name']}" if path else missing["name"]
        problem = "it is required"
    problem = problem[:1].lower() + problem[1:]
    raise Refused(400, f"invalid_{place}", f"{path or place}: {problem}", field=path or None) from None
