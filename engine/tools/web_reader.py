"""Reads a page of the web for a tool: over the public network alone, through a few redirects, and bounded."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import final
from urllib.parse import urljoin, urlsplit

import httpcore2
import msgspec

from engine.errors import ToolProblem

REDIRECTS_MAX = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
URL_MAX = 4096
SHOWN = 200  # characters of a redirect that leads nowhere
HEADERS = (
    ("User-Agent", "countermand"),
    ("Accept", "text/html,application/xhtml+xml,text/*;q=0.9,application/json;q=0.9,*/*;q=0.5"),
    ("Accept-Encoding", "identity"),  # what is small on the way and large on arrival is no kindness
)


class Page(msgspec.Struct, frozen=True):
    """What was answered: where, what kind of thing, and its bytes as they come; `length` is how many, if it says so."""

    url: str
    content_type: str
    chunks: AsyncIterator[bytes]
    length: int | None = None


@final
class WebReader:
    """Opens pages."""

    def __init__(self, network: httpcore2.AsyncNetworkBackend) -> None:
        self._network = network

    @asynccontextmanager
    async def open(self, url: str, *, timeout_s: float) -> AsyncIterator[Page]:
        """The page at this URL, with so long for each step. Raises ToolProblem for whatever is not to be had."""
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)
        async with httpcore2.AsyncConnectionPool(network_backend=self._network) as pool:
            for _ in range(REDIRECTS_MAX + 1):
                check_url(url)
                try:
                    stream = pool.stream("GET", url, headers=HEADERS, extensions={"timeout": timeouts})
                    async with stream as response:
                        if response.status in REDIRECTS and (target := header(response, b"location")):
                            url = redirected(url, target)
                            continue
                        if response.status != 200:
                            raise ToolProblem(f"{url} answers with status {response.status}")
                        length = header(response, b"content-length")
                        async with aclosing(response.aiter_stream()) as chunks:
                            yield Page(
                                url, header(response, b"content-type").lower(), chunks,
                                length=int(length) if length.isdecimal() else None,
                            )  # fmt: skip
                        return
                except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError) as error:
                    raise ToolProblem(f"{url} cannot be read: {str(error) or type(error).__name__}") from None
            raise ToolProblem(f"{url}: there are more than {REDIRECTS_MAX} redirects")


def check_url(url: str) -> None:
    """Raise ToolProblem for a URL that is not for tools."""
    try:
        parts = urlsplit(url)
        is_plain = parts.username is None and parts.password is None
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise ToolProblem(f"url: it is not valid: {error}") from None
    if parts.scheme not in ("http", "https") or not has_host:
        raise ToolProblem("url: it must begin with http:// or https:// and name a host")
    if not is_plain:
        raise ToolProblem("url: a name or a password in it is not sent")
    if len(url) > URL_MAX or not url.isascii() or any(character <= " " for character in url):
        raise ToolProblem(f"url: it must be percent-encoded, and have at most {URL_MAX} characters")


def redirected(url: str, target: str) -> str:
    """Where a redirect leads. Raises ToolProblem if that cannot be read as a URL."""
    try:
        return urljoin(url, target)
    except ValueError:
        raise ToolProblem(f"{url} redirects to {target[:SHOWN]!r}, which is no URL") from None


def header(response: httpcore2.Response, name: bytes) -> str:
    """A header of the response; empty if it is not there."""
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")
