"""What an operator can set of the web shell, with its defaults and units."""

from pathlib import Path

import msgspec


class WebSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The web shell's settings. Times are in seconds."""

    token_file: Path | None = None  # None: there are no tokens
    open_loopback: bool = False  # callers from loopback need no token; all others need one still
    allowed_hosts: tuple[str, ...] = ()  # names without port, beside loopback's; 0.0.0.0 and :: stand for any address
    allowed_origins: tuple[str, ...] = ()  # as in `https://agents.example.org`, beside the server's own
    max_body_bytes: int = 32 << 20
    body_timeout_s: float = 30.0  # for the whole of a request's body to arrive
    keep_alive_s: float = 15.0  # the longest silence on an event stream
    access_log_every: int = 1  # of the requests that went well; those that failed are always logged. 0: only those
    leave_when_idle: bool = True  # whether `POST /v1/control` is granted while the server is idle
