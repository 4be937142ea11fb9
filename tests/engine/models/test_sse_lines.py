"""Events are found in raw bytes, wherever the reads cut them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ModelError
from engine.models.sse_lines import EventPayloads
from tests.doubles.openai_server import split

ANY_SPLIT = st.lists(st.integers(0, 400), max_size=40)


def payloads(*pieces: bytes, limit: int = 1000) -> list[bytes]:
    """All payloads of a stream that came in these pieces."""
    events = EventPayloads(limit)
    return [payload for piece in pieces for payload in events.feed(piece)] + events.end()


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\r\n\r\ndata:b\r\n\r\n", [b"a", b"b"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:\n\n", [b""]),
        (b": keep-alive\n\ndata: a\n\n:\n\n\n\n", [b"a"]),
        (b"event: message\nid: 7\nretry: 10\ndata: a\n\n", [b"a"]),
        (b"database: x\n\ndata\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\n\r\n \ndata: a\n\n", [b"a"]),
        (b"", []),
        (b"\xef\xbb", []),
        ("data: é…😀\n\n".encode(), ["é…😀".encode()]),
        (b'{"error": {\n\n"message": "data: x"}}\n', [b'{"error": {\n\n"message": "data: x"}}\n']),
    ],
)
def test_payloads_are_what_stands_after_data(stream: bytes, wanted: list[bytes]) -> None:
    assert payloads(stream) == wanted
    assert payloads(*(stream[i : i + 1] for i in range(len(stream)))) == wanted


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        (b"data: a\n", [b"a"]),  # a whole line, and no blank one
        (b"data: a\n\ndata: {ha", [b"a"]),  # half a line
        (b"data: a\n\ndata: [DONE]", [b"a", b"[DONE]"]),
        (b"data: a\n\ndata:[DONE]\r", [b"a", b"[DONE]"]),
    ],
)
def test_the_end_of_the_stream_ends_an_event(stream: bytes, wanted: list[bytes]) -> None:
    assert payloads(stream) == wanted


@given(ANY_SPLIT)
@settings(deadline=None)
def test_any_split_gives_the_same_payloads(positions: list[int]) -> None:
    lines = [
        "\r",
        ": hi",
        "data: é1\r",
        "\r",
        "id: x",
        'data: {"a":',
        "data: 1}",
        "",
        "data:2",
        "",
        "",
        "data: 😀3",
        "",
        "",
    ]
    stream = "\n".join(lines).encode()
    assert payloads(*split(stream, positions)) == payloads(stream)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"data: " + b"x" * 101],
        [b"data: ", *[b"x" * 20] * 5],
        [b"data: " + b"x" * 60 + b"\n", b"data: " + b"x" * 60 + b"\n\n"],
        [b"{", *[b"x" * 20] * 5],
        [b"data: " + b"x" * 101 + b"\n\n"],
    ],
)
def test_an_event_that_is_too_large_is_refused(pieces: list[bytes]) -> None:
    with pytest.raises(ModelError, match="100 bytes") as caught:
        payloads(*pieces, limit=100)
    assert caught.value.kind == "protocol"


def test_the_bound_is_on_one_event_and_not_on_the_stream() -> None:
    assert len(payloads(*[b"data: " + b"x" * 80 + b"\n\n: " + b"c" * 15 + b"\n"] * 50, limit=100)) == 50
