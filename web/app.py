"""The ASGI application: routes on Quart-Trio, a front that turns away what does not belong, one place for errors.

    Front            targets, Host and Origin; one access line a request
    └ Quart-Trio     routing, bodies, sending
      └ _answer      who calls, decoding, the handler; every error becomes an answer here

The engine is opened outside and given in: it is there before the first request and after the last.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import cache
from types import TracebackType
from typing import Any, cast

import structlog
import trio
from hypercorn.typing import ASGISendCallable
from quart import Request, Response, request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge, RequestTimeout
from werkzeug.routing import Map

from engine.backend import Backend
from web.auth import Gate, Inbound, WebSettings, check_scope
from web.auth.front import CALLER, ENDLESS, INBOUND, ROUTE, Front, unescape_segment
from web.control import ServerControl
from web.metrics import RequestMetrics
from web.openapi import build_document
from web.problems import INTERNAL, Error, Problem, Refused, problem_of
from web.routes.all_routes import ROUTES
from web.routes.call import NOTHING, Call, Nothing, Reply, Services, problem_reply
from web.routes.table import Route
from web.sse import EventBody, FrameCache
from web.wire.decode import decode_body, decode_query

RESOURCES = "countermand.resources"  # in the scope: what lives as long as the response

log = structlog.get_logger(__name__)


class _Connection(TrioASGIHTTPConnection):
    """One request and its response."""

    async def handle_request(  # type: ignore[override]
        self, nursery: trio.Nursery, request: Request, send: ASGISendCallable
    ) -> None:
        # What a handler opens for its response (a claim, a feed) is left here, in the task that entered it, whether the
        # response was sent, broke off, or never began.
        async with AsyncExitStack() as resources:
            _notes(request)[RESOURCES] = resources
            await super().handle_request(nursery, request, send)


class App(QuartTrio):
    """Quart-Trio, with our connection and our log."""

    asgi_http_class: type[TrioASGIHTTPConnection] = _Connection

    def log_exception(
        self, exception_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None]
    ) -> None:
        """For what fails inside the framework; the errors of handlers do not come this far."""
        log.error("request_failed", exc_info=exception_info)


def create_app(backend: Backend, web: WebSettings, control: ServerControl | None = None) -> QuartTrio:
    """The application over an open engine. Without a `control`, nobody acts on a request to leave."""
    control = control or ServerControl()
    metrics = RequestMetrics(backend, control)
    gate = Gate(web)
    services = Services(
        backend=backend,
        web=web,
        gate=gate,
        control=control,
        frames=FrameCache(),
        metrics=metrics,
        document=build_document(backend.version),
    )
    app = App("web", static_folder=None)
    app.config.update(
        MAX_CONTENT_LENGTH=web.max_body_bytes, BODY_TIMEOUT=web.body_timeout_s, PROPAGATE_EXCEPTIONS=False
    )
    app.url_map = _url_map(tuple((route.method, rule_of(route), route.name) for route in ROUTES))
    app.view_functions = {route.name: _view(services, route) for route in ROUTES}
    app.register_error_handler(HTTPException, _refusal(services))
    front = Front(app.asgi_app, gate, metrics.count, log_every=web.access_log_every)
    app.asgi_app = front  # type: ignore[method-assign, assignment]
    return app


@cache
def _url_map(places: tuple[tuple[str, str, str], ...]) -> Map:
    """Which method and path is whose, by name. It holds nothing of an application: it is compiled once for all of them,
    since that takes a hundred times as long as the rest of one."""
    app = App("web", static_folder=None)
    app.url_map.merge_slashes = False  # `//v1/health` is another path, not a detour
    for method, rule, name in places:
        app.add_url_rule(rule, endpoint=name, methods=[method], provide_automatic_options=False)
    return app.url_map


def rule_of(route: Route) -> str:
    """The route's path as the framework writes it."""
    return route.path.replace("{", "<").replace("}", ">")


def _notes(request: Request) -> dict[str, Any]:
    """The scope, where the front and the application leave each other notes."""
    return cast("dict[str, Any]", request.scope)


def _view(services: Services, route: Route) -> Callable[..., Awaitable[Response]]:
    async def view(**path: str) -> Response:
        return _response(await _answer(services, route, path))

    return view


async def _answer(services: Services, route: Route, path: Mapping[str, str]) -> Reply:
    """What the handler says, or what is said of its failure. A `Cancelled` beside the failure is let through."""
    reply = Reply()
    try:
        reply = await _handle(services, route, path)
    except* Exception as failures:
        reply = problem_reply(_problem_of(failures, route))
        await trio.lowlevel.checkpoint()
    return reply


async def _handle(services: Services, route: Route, path: Mapping[str, str]) -> Reply:
    notes = _notes(request)
    notes[ROUTE] = route.name
    inbound: Inbound = notes[INBOUND]
    caller = None
    if route.access != "open":
        # Before the body is looked at: nobody has to read what somebody unknown sends.
        caller = check_scope(services.gate.caller(inbound), route.access)
        notes[CALLER] = caller.name
    query = decode_query(request.query_string, route.query)
    body = NOTHING if route.body is Nothing else decode_body(await _read_body(services.web), route.body)
    ids = {name: unescape_segment(value) for name, value in path.items()}
    resources: AsyncExitStack = notes[RESOURCES]
    answer = route.handler(Call(services, inbound, caller, path=ids, query=query, body=body, resources=resources))
    if isinstance(answer, Reply):
        await trio.lowlevel.checkpoint()
        reply = answer
    else:
        reply = await answer
    notes[ENDLESS] = isinstance(reply.body, EventBody)
    return reply


async def _read_body(web: WebSettings) -> bytes:
    """The whole body. Raises Refused (408, 413)."""
    try:
        return await request.get_data(cache=False, as_text=False, parse_form_data=False)
    except RequestEntityTooLarge:
        raise Refused(413, "body_too_large", f"the body has more than {web.max_body_bytes} bytes") from None
    except RequestTimeout:
        raise Refused(408, "body_too_slow", f"the body did not arrive in {web.body_timeout_s:g} seconds") from None


def _problem_of(failures: BaseExceptionGroup[Exception], route: Route) -> Problem:
    """The answer to what went wrong; what nobody expected is logged here, with its traceback."""
    leaves = list(_leaves(failures))
    problem = problem_of(leaves[0]) if len(leaves) == 1 else None
    if problem is None:
        log.error("request_failed", route=route.name, exc_info=leaves[0] if len(leaves) == 1 else failures)
        return INTERNAL
    if problem.status >= 500:
        log.warning("request_refused", route=route.name, status=problem.status, problem=str(leaves[0]))
    return problem


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _refusal(services: Services) -> Callable[[HTTPException], Awaitable[Response]]:
    """For what the framework refuses: a path that is not there, a method that a path does not have."""

    async def refuse(error: HTTPException) -> Response:
        await trio.lowlevel.checkpoint()
        problem = INTERNAL
        try:
            # What there is and what there is not is told to those who may ask.
            check_scope(services.gate.caller(_notes(request)[INBOUND]), "read")
        except Refused as refused:
            problem = problem_of(refused) or INTERNAL
        else:
            problem = _routing_problem(error)
        return _response(problem_reply(problem))

    return refuse


def _routing_problem(error: HTTPException) -> Problem:
    match error:
        case NotFound():
            return Problem(404, Error(f"there is nothing at {request.path}", "path_not_found"))
        case MethodNotAllowed():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            body = Error(f"{request.method} is not possible here; {allowed} is", "method_not_allowed")
            return Problem(405, body, {"Allow": allowed})
        case _:
            return INTERNAL


def _response(reply: Reply) -> Response:
    """The reply as the framework sends it."""
    body = reply.body
    is_head = request.method == "HEAD"
    response = Response(b"" if is_head and isinstance(body, bytes) else body, status=reply.status)
    response.headers.remove("Content-Type")
    if reply.content_type is not None:
        response.headers["Content-Type"] = reply.content_type
    if isinstance(body, EventBody):
        response.timeout = None  # an event stream ends when it ends; the framework would cut it off
    elif is_head:
        response.headers["Content-Length"] = str(len(body))
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.headers.update(reply.headers)
    return response
