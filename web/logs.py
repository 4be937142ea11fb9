"""Logs: one line an event on stderr, for people or as JSON; and no secret in any of them.

Everything goes through the same processors: our own loggers (structlog) and those of the libraries (the standard
library's root logger). Redaction is the last step before the rendering, after tracebacks have become text.
"""

import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogLevel = Literal["debug", "info", "warning", "error"]

REDACTED = "[redacted]"
DEPTH_MAX = 8  # of nested values; what lies deeper is not logged at all
SECRET_MIN = 8  # characters of an environment variable's value from which on it is looked for in every line
QUIET = ("httpx2", "httpcore2", "h11", "h2", "hpack", "asyncio")  # libraries that tell of every request

_SECRET_NAME = re.compile(
    r"(?:authorization|cookies?|tokens?|secrets?|passwords?|passwd|passphrase|api[_-]?keys?|credentials?|private[_-]?keys?"
    r"|(?:^|[_.-])(?:env|environ|environment))$",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"(?P<before>\b(?:bearer|basic)\s+"
    r"|\b[\w-]*(?:authorization|cookie|token|secret|password|passwd|api[_-]?key)['\"]?\s*[=:]\s*['\"]?(?:bearer\s+|basic\s+)?"
    r"|://[^\s/:@]+:)"
    r"(?!\[redacted\])[^\s'\",;&@)}\]]+"
    r"|\b(?:cmd_|sk-)[A-Za-z0-9_-]{16,}",
    re.IGNORECASE,
)


class Redactor:
    """Takes secrets out of log lines: whatever stands under a telling name, whatever looks like one, and the values of
    the secret variables of this process's environment, wherever they turn up."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        known = {value for name, value in environ.items() if _SECRET_NAME.search(name) and len(value) >= SECRET_MIN}
        # The longest first: one secret may begin with another.
        self._known = re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True)))) if known else None

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """A processor."""
        return {name: self._value(value, name, 0) for name, value in event.items()}

    def text(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return _SECRET_TEXT.sub(lambda found: (found["before"] or "") + REDACTED, text)

    def _value(self, value: object, name: str, depth: int) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value  # a number of tokens is no token
        if _SECRET_NAME.search(name):
            return REDACTED
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset) and depth == DEPTH_MAX:
            return "…"
        if isinstance(value, Mapping):
            return {str(each): self._value(inner, str(each), depth + 1) for each, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value(inner, "", depth + 1) for inner in value]
        return self.text(value if isinstance(value, str) else str(value))


class _Stream:
    """Where the lines go. That nobody reads them any more is no reason to fail."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logs(
    *,
    level: LogLevel = "info",
    as_json: bool = False,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send every log line of this process to `stream` (stderr), from `level` on."""
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor] = [
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        Redactor(environ),
        _renderer(stream, as_json=as_json),
    ]
    lines: Any = _Stream(stream)
    structlog.configure(
        processors=[*first, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(lines),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(lines)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*first, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))


def _renderer(stream: TextIO, *, as_json: bool) -> Processor:
    if as_json:
        return structlog.processors.JSONRenderer(serializer=_encode)
    return structlog.dev.ConsoleRenderer(
        # Not the pretty one: it prints local variables, and those are anything.
        colors=stream.isatty(),
        exception_formatter=structlog.dev.plain_traceback,
        sort_keys=False,
    )


def _encode(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
