"""Addresses of servers, as people write them: `tcp://host:port` and `unix:///path`. For both ends; no sockets here."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from engine.errors import ConfigInvalid

DEFAULT_HOST = "tcp://127.0.0.1:2180"
UNIX_PATH_MAX = 104  # bytes; what every system's sockaddr_un takes, and Crush's own limit


class TcpAddress(msgspec.Struct, frozen=True):
    """`tcp://host:port`; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"


class UnixAddress(msgspec.Struct, frozen=True):
    """`unix:///path`."""

    path: Path

    def __str__(self) -> str:
        return f"unix://{self.path}"


Address = TcpAddress | UnixAddress


def parse_address(text: str) -> Address:
    """Read `tcp://host:port` or `unix:///path`. Raises ConfigInvalid."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "unix":
        return _parse_unix(rest)
    if separator and scheme == "tcp":
        return _parse_tcp(text)
    raise ConfigInvalid("host", f"write tcp://ADDRESS:PORT or unix:///PATH, not {text!r}")


def _parse_tcp(text: str) -> TcpAddress:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigInvalid("host", f"{text!r} has no usable address and port: {error}") from None
    if not host:
        raise ConfigInvalid("host", f"{text!r} names no address; 127.0.0.1 is this machine, 0.0.0.0 every interface")
    if port is None:
        raise ConfigInvalid("host", f"{text!r} names no port; write tcp://{host}:2180")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ConfigInvalid("host", f"{text!r} has more than an address and a port")
    return TcpAddress(host, port)


def _parse_unix(rest: str) -> UnixAddress:
    if not rest or "\0" in rest:
        raise ConfigInvalid("host", "unix:// needs the path of a socket, as in unix:///run/user/1000/countermand.sock")
    path = Path(rest).absolute()
    length = len(os.fsencode(path))
    if length > UNIX_PATH_MAX:
        problem = (
            f"the socket path {str(path)!r} has {length} bytes, and {UNIX_PATH_MAX} is the most; choose a shorter one"
        )
        raise ConfigInvalid("host", problem)
    return UnixAddress(path)
