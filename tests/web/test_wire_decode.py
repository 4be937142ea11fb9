"""Decoding: strict about what is sent, forgiving about what is not."""

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from web.problems import Refused
from web.wire.decode import decode_body, decode_query
from web.wire.workspaces import absolute_path


class Inner(msgspec.Struct, frozen=True):
    name: str = ""


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    id: str = "none"
    count: int = 0
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    many: tuple[Inner, ...] = ()


class Query(msgspec.Struct, frozen=True, kw_only=True):
    n: Annotated[int, Meta(ge=0)] = 7
    flag: bool = False
    words: tuple[str, ...] = ()
    name: str | None = None


@pytest.mark.parametrize("raw", [b"", b" \n", b"null", b"{}", b'{"other": [1, {"x": null}]}'])
def test_what_is_not_sent_has_its_default(raw: bytes) -> None:
    assert decode_body(raw, Thing) == Thing()


def test_null_counts_as_not_sent_at_every_depth() -> None:
    raw = b'{"id": null, "count": null, "inner": {"name": null}, "many": [{"name": null}, {"name": "b"}]}'
    assert decode_body(raw, Thing) == Thing(many=(Inner(), Inner("b")))


def test_null_for_a_field_that_is_needed_is_as_good_as_nothing() -> None:
    with pytest.raises(Refused, match="id: it is required") as refused:
        decode_body(b'{"id": null}', Wanted)
    assert refused.value.field == "id"


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"count": "1"}', "count"),
        (b'{"count": 1.5}', "count"),
        (b'{"count": true}', "count"),
        (b'{"inner": []}', "inner"),
        (b'{"inner": {"name": 1}}', "inner.name"),
        (b'{"many": [{}, {"name": 1}]}', "many[1].name"),
        (b'{"id": null, "count": "x"}', "count"),
    ],
)
def test_a_wrong_type_is_refused_by_name(raw: bytes, field: str) -> None:
    with pytest.raises(Refused) as refused:
        decode_body(raw, Thing)
    assert (refused.value.status, refused.value.type, refused.value.field) == (400, "invalid_body", field)
    assert refused.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", Query()),
        (b"n=1&n=2", Query(n=2)),
        (b"flag=1&words=a&words=b+c&words=%C3%A9", Query(flag=True, words=("a", "b c", "é"))),
        (b"flag=&n=&words=&name=", Query()),
        (b"other=1&n=3", Query(n=3)),
        (b"name=%26%3D", Query(name="&=")),
    ],
)
def test_a_query_is_decoded_by_its_fields(raw: bytes, expected: Query) -> None:
    assert decode_query(raw, Query) == expected


@pytest.mark.parametrize(
    ("raw", "type_", "field"),
    [
        (b"n=x", "invalid_query", "n"),
        (b"n=-1", "invalid_query", "n"),
        (b"flag=perhaps", "invalid_query", "flag"),
        (b"name=%ff", "bad_query", None),
        (b"n=\xff", "bad_query", None),
        (b"&".join([b"a=1"] * 101), "bad_query", None),
    ],
)
def test_a_query_that_is_wrong_is_refused(raw: bytes, type_: str, field: str | None) -> None:
    with pytest.raises(Refused) as refused:
        decode_query(raw, Query)
    assert (refused.value.status, refused.value.type, refused.value.field) == (400, type_, field)


@pytest.mark.parametrize(
    ("path", "env", "expected"),
    [
        ("/a/b", (), "/a/b"),
        ("/a/../b", ("PWD=/x",), "/a/../b"),
        ("proj", ("HOME=/h", "PWD=/home/ann", "PWD=/other"), "/home/ann/proj"),
        ("../proj", ("PWD=/home/ann",), "/home/ann/../proj"),
        (".", ("PWD=/home/ann",), "/home/ann/."),
    ],
)
def test_a_relative_path_is_below_its_senders_directory(path: str, env: tuple[str, ...], expected: str) -> None:
    assert absolute_path(path, env) == expected
