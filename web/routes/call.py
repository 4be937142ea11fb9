"""What a handler is given, and what it gives back."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Generic, TypeVar
from urllib.parse import quote

import msgspec

from engine.backend import Backend
from engine.workspace import Workspace
from web.auth import Caller, Gate, Inbound, Scope, WebSettings, check_scope
from web.control import ServerControl
from web.metrics import RequestMetrics
from web.problems import Problem
from web.sse import EventBody, FrameCache

QueryT = TypeVar("QueryT")
BodyT = TypeVar("BodyT")

JSON = "application/json"


class Nothing(msgspec.Struct, frozen=True):
    """A query or a body that is not looked at."""


NOTHING = Nothing()


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What handlers work with; one for each application."""

    backend: Backend
    web: WebSettings
    gate: Gate
    control: ServerControl
    frames: FrameCache
    metrics: RequestMetrics
    document: bytes  # the OpenAPI document


class Call(Generic[QueryT, BodyT]):
    """One request: allowed, decoded, and with what its handler works with.

    `resources` outlives the handler: what is entered there is left when the response has been sent, or cannot be.
    """

    __slots__ = ("_caller", "body", "inbound", "path", "query", "resources", "services")

    def __init__(
        self,
        services: Services,
        inbound: Inbound,
        caller: Caller | None,
        *,
        path: Mapping[str, str],
        query: QueryT,
        body: BodyT,
        resources: AsyncExitStack,
    ) -> None:
        self.services = services
        self.inbound = inbound
        self.path = path
        self.query = query
        self.body = body
        self.resources = resources
        self._caller = caller

    @property
    def backend(self) -> Backend:
        """The engine."""
        return self.services.backend

    @property
    def is_head(self) -> bool:
        """Whether only the head of the response is wanted."""
        return self.inbound.method == "HEAD"

    def workspace(self) -> Workspace:
        """The workspace that the path names. Raises NotFound."""
        return self.backend.workspace(self.path["id"])

    def require(self, scope: Scope) -> Caller:
        """The caller, if it may do more than the route asks for. Raises Refused."""
        return check_scope(self._caller, scope)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: a whole body, or a stream of events."""

    status: int = 200
    body: bytes | EventBody = b""
    content_type: str | None = None
    headers: Mapping[str, str] = {}


EMPTY = Reply()
"""What Crush answers where its client reads nothing but the status."""


def json_reply(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """The value as JSON, with the newline that Crush ends its answers with."""
    return Reply(status=status, body=msgspec.json.encode(value) + b"\n", content_type=JSON, headers=headers or {})


def problem_reply(problem: Problem) -> Reply:
    """The problem as an answer."""
    return json_reply(problem.body, status=problem.status, headers=problem.headers)


def path_to(template: str, **ids: str) -> str:
    """A path of this API, for a Location header."""
    return template.format(**{name: quote(value, safe="$") for name, value in ids.items()})
