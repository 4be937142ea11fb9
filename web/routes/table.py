"""Routes as data: each is declared once, beside its handler; the application and the OpenAPI document read it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from web.auth import Scope
from web.routes.call import BodyT, Call, Nothing, QueryT, Reply

Method = Literal["GET", "POST", "PUT", "DELETE"]
Access = Scope | Literal["open"]  # open: to anybody who can reach the server

# Async only where there is something to wait for.
Handler = Callable[[Call[QueryT, BodyT]], Reply | Awaitable[Reply]]

W = "/v1/workspaces/{id}"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the API. `answer` is the type of the body of a success; None: it has none."""

    method: Method
    path: str
    access: Access
    group: str
    handler: Handler[Any, Any]
    query: type[Any]
    body: type[Any]
    answer: Any
    status: int
    media_type: str
    headers: Mapping[str, str]  # request headers that count, with what they are for

    @property
    def name(self) -> str:
        """The handler's name: unique in the API."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """What it is for, in a line."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]

    @property
    def description(self) -> str:
        """What else there is to know."""
        _, _, rest = (self.handler.__doc__ or "").strip().partition("\n")
        return "\n".join(line.strip() for line in rest.strip().splitlines())


class RouteTable:
    """The routes of one noun."""

    def __init__(self, group: str) -> None:
        self._group = group
        self.routes: list[Route] = []

    def add(
        self,
        method: Method,
        path: str,
        *,
        access: Access,
        query: type[QueryT],
        body: type[BodyT],
        answer: Any = None,
        status: int = 200,
        media_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Callable[[Handler[QueryT, BodyT]], Handler[QueryT, BodyT]]:
        """Declare the decorated handler as a route. What it is given is what is declared here: the types see to it."""

        def declare(handler: Handler[QueryT, BodyT]) -> Handler[QueryT, BodyT]:
            self.routes.append(
                Route(
                    method=method,
                    path=path,
                    access=access,
                    group=self._group,
                    handler=handler,
                    query=query,
                    body=body,
                    answer=answer,
                    status=status,
                    media_type=media_type,
                    headers=headers or {},
                )
            )
            return handler

        return declare

    def get(
        self, path: str, *, query: type[QueryT], access: Access = "read", answer: Any, **declared: Any
    ) -> Callable[[Handler[QueryT, Nothing]], Handler[QueryT, Nothing]]:
        """Declare a route that only reads."""
        return self.add("GET", path, access=access, query=query, body=Nothing, answer=answer, **declared)
