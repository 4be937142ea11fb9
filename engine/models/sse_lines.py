"""Server-sent events, from raw bytes to payloads, without decoding a character: a read may end inside one."""

from engine.errors import ModelError

MAX_EVENT_BYTES = 8 * 1024 * 1024  # what one event may hold; a model's piece of an answer is a thousandth of it

_BOM = b"\xef\xbb\xbf"


class EventPayloads:
    """Splits a byte stream into the `data` of its events. Knows LF and CRLF; passes over comments and other fields.

    A stream that begins with a brace is no event stream but a JSON document, and comes out as one payload: the answer,
    or the error, of a server that does not stream.
    """

    def __init__(self, max_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._line: list[bytes] = []  # the pieces of the line that has not ended
        self._data: list[bytes] = []  # the lines of the event that has not ended
        self._held = 0  # bytes in both
        self._at_start = True
        self._is_document = False

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that `data` completes, in order. Raises `ModelError` when an event is too large."""
        if self._at_start:
            data = self._begin(data)
        if self._is_document or b"\n" not in data:
            self._hold(self._line, data)
            return []
        first, *lines, last = data.split(b"\n")
        payloads: list[bytes] = []
        self._take(self._release(self._line, b"") + first, payloads)
        for line in lines:
            self._take(line, payloads)
        self._hold(self._line, last)
        return payloads

    def end(self) -> list[bytes]:
        """What the end of the stream completes: a document, or an event without its blank line. Half a line is lost,
        unless it is the mark that needs no more."""
        rest = self._release(self._line, b"")
        if self._is_document:
            return [rest]
        payloads: list[bytes] = []
        if rest.removeprefix(b"data:").strip() == b"[DONE]":
            self._take(rest, payloads)
        self._take(b"", payloads)
        return payloads

    def _begin(self, data: bytes) -> bytes:
        """Takes a byte order mark and white space off the front, and sees what kind of stream this is."""
        data = self._release(self._line, b"") + data
        start = data.removeprefix(_BOM).lstrip()
        if start and start not in (_BOM[:1], _BOM[:2]):
            self._at_start = False
            self._is_document = start[:1] in (b"{", b"[")
            return start
        return data

    def _take(self, line: bytes, payloads: list[bytes]) -> None:
        """One whole line."""
        if line[-1:] == b"\r":
            line = line[:-1]
        if line[:6] == b"data: ":
            self._hold(self._data, line[6:])
        elif line[:5] == b"data:":
            self._hold(self._data, line[5:])
        elif not line and self._data:
            payloads.append(self._release(self._data, b"\n"))

    def _hold(self, where: list[bytes], data: bytes) -> None:
        self._held += len(data)
        if self._held > self._max_bytes:
            raise ModelError(
                "protocol",
                "The provider sent too much at once",
                f"one event of its answer has over {self._max_bytes} bytes; is the base URL that of a model server?",
            )
        where.append(data)

    def _release(self, where: list[bytes], glue: bytes) -> bytes:
        joined = where[0] if len(where) == 1 else glue.join(where)
        self._held = 0 if where is self._data else self._held - len(joined)
        where.clear()
        return joined
