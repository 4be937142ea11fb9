"""The first thing that a request meets, on bare ASGI: its target is put in order, its Host and Origin are checked, and
its end is logged and counted.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
import structlog
import trio

from web.auth.gate import Gate, Inbound
from web.problems import Error, Problem, Refused, problem_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Count = Callable[[str, str, int, float | None], None]  # route, method, status, seconds

# Where, in the scope, those behind find and leave what they know of the request.
INBOUND = "countermand.inbound"
ROUTE = "countermand.route"
CALLER = "countermand.caller"
ENDLESS = "countermand.endless"

TARGET_MAX = 8192  # bytes
LOGGED_PATH_MAX = 200  # characters
DISCONNECTED = 499  # in the log: the caller was gone before there was an answer

log = structlog.get_logger("web.access")


class Front:
    """An ASGI application in front of another."""

    def __init__(self, inner: Any, gate: Gate, count: Count, *, log_every: int) -> None:
        self._inner: AsgiApp = inner  # by whoever typed ASGI, there are several ways
        self._gate = gate
        self._count = count
        self._log_every = log_every
        self._went_well = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of ASGI."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._inner(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = trio.current_time()
        status = DISCONNECTED

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        inbound = inbound_of(scope)
        scope = {**scope, INBOUND: inbound}
        try:
            self._check(scope, inbound)
        except Refused as error:
            problem = problem_of(error)
            assert problem is not None
            await send_problem(watching, problem, with_body=inbound.method != "HEAD")
        else:
            await self._inner(scope, receive, watching)
        finally:
            self._finish(scope, inbound, status, trio.current_time() - started)

    def _check(self, scope: Scope, inbound: Inbound) -> None:
        raw = scope.get("raw_path") or scope["path"].encode()
        if len(raw) + len(scope["query_string"]) > TARGET_MAX:
            raise Refused(414, "target_too_long", f"the target of the request has more than {TARGET_MAX} bytes")
        self._gate.check_place(inbound)
        place, path = split_target(raw)
        if place is not None:
            self._gate.check_host(place, inbound.transport)
        if path.startswith("//"):  # the framework would not tell it from one slash
            raise Refused(404, "path_not_found", f"there is nothing at {path}")
        scope["path"] = path
        if not scope["query_string"].isascii():
            raise Refused(400, "invalid_query", "the query string is not percent-encoded")

    def _finish(self, scope: Scope, inbound: Inbound, status: int, seconds: float) -> None:
        route = scope.get(ROUTE, "none")
        self._count(route, inbound.method, status, None if scope.get(ENDLESS) else seconds)
        if status < 400:
            self._went_well += 1
            if not self._log_every or self._went_well % self._log_every:
                return
        # The path alone: a query may hold what somebody took for a good place for a secret.
        log.info(
            "request",
            method=inbound.method,
            path=str(scope["path"])[:LOGGED_PATH_MAX],
            route=route,
            status=status,
            ms=round(seconds * 1000, 1),
            caller=scope.get(CALLER),
            transport=inbound.transport,
        )


def inbound_of(scope: Scope) -> Inbound:
    """What matters of a request when it is decided who may pass."""
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin1").lower()
        headers[key] = (*headers.get(key, ()), value.decode("latin1"))
    # Told by our own server; whatever else serves this is taken to be a network.
    is_unix = (scope.get("state") or {}).get("transport") == "unix"
    client = scope.get("client")
    return Inbound(
        transport="unix" if is_unix else "tcp",
        scheme=scope.get("scheme", "http"),
        peer=client[0] if client else None,
        method=scope["method"],
        headers=headers,
    )


def split_target(raw: bytes) -> tuple[str | None, str]:
    """The place that an absolute target names, if it is one, and the path to route by. Raises Refused (400).

    Each segment is decoded by itself. A slash that was escaped stays so: it belongs to an id, and splits nothing.
    """
    place = None
    if not raw.startswith(b"/"):
        parts = urlsplit(raw.decode("latin1"))
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise Refused(400, "invalid_target", "the target of the request must be a path, as in /v1/health")
        place, raw = parts.netloc, (parts.path or "/").encode("latin1")
    try:
        segments = [unquote_to_bytes(segment).decode() for segment in raw.split(b"/")]
    except UnicodeDecodeError:
        raise Refused(400, "invalid_target", "the path of the request is not valid UTF-8") from None
    return place, "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)


def unescape_segment(segment: str) -> str:
    """One segment of such a path, as its sender meant it."""
    return segment.replace("%2F", "/").replace("%25", "%")


async def send_problem(send: Send, problem: Problem, *, with_body: bool) -> None:
    """Answer with a problem, on bare ASGI."""
    body = _encode(problem.body)
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.headers}
    encoded = [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body if with_body else b"", "more_body": False})


def _encode(error: Error) -> bytes:
    return msgspec.json.encode(error) + b"\n"
