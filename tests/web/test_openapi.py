"""The OpenAPI document: it says what the application does, and nothing that is made of it breaks the server."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from structlog.testing import capture_logs

from tests.web.api import Api, open_api
from web.openapi import build_document
from web.problems import Error
from web.routes.all_routes import ROUTES
from web.routes.table import Route

EXAMPLES = 8  # of each operation and mode
HTTP = {"get", "post", "put", "delete"}


def document() -> dict[str, Any]:
    built: dict[str, Any] = msgspec.json.decode(build_document("1.2.3"))
    return built


@cache
def operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {(m.upper(), path): o for path, found in document()["paths"].items() for m, o in found.items() if m in HTTP}


# What it says


async def test_it_has_every_route_of_the_application_and_no_other(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        app: Any = api.app
        served = {
            (method, rule.rule.replace("<", "{").replace(">", "}"))
            for rule in app.url_map.iter_rules()
            for method in rule.methods - {"HEAD"}
        }
        told = (await api.client.get("/v1/openapi.json")).json()
    assert served == {(method.upper(), path) for path, found in told["paths"].items() for method in found}
    assert served == {(route.method, route.path) for route in ROUTES}
    assert told["openapi"] == "3.1.0"


def test_no_two_routes_share_a_name_or_a_place() -> None:
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


def test_every_reference_leads_somewhere_and_every_shape_is_used() -> None:
    text = build_document("1.2.3").decode()
    used = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert used == set(document()["components"]["schemas"])


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_route_is_described_by_what_it_decodes_and_encodes(route: Route) -> None:
    operation = operations()[route.method, route.path]
    assert operation["summary"].endswith((".", ")"))
    assert len(operation["summary"]) <= 110
    assert [each for each in operation["responses"] if each != "default"] == [str(route.status)]
    scopes = [] if route.access == "open" else [route.access]
    assert [scope for each in operation["security"] for scope in each.get("token", [])] == scopes
    parameters = {(each["in"], each["name"]) for each in operation["parameters"]}
    assert parameters == {
        *(("path", name) for name in re.findall(r"{(\w+)}", route.path)),
        *(("query", field.encode_name) for field in msgspec.structs.fields(route.query)),
        *(("header", name) for name in route.headers),
    }
    assert ("requestBody" in operation) == bool(msgspec.structs.fields(route.body))


def test_it_agrees_with_the_meaning_of_openapi() -> None:
    schema().validate()


# What comes of it


@cache
def schema() -> Any:
    return schemathesis.openapi.from_dict(document())


def collected(method: str, path: str, mode: GenerationMode) -> list[Case[Any]]:
    """The same cases each time."""
    cases: list[Case[Any]] = []

    @given(schema()[path][method].as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def collect(case: Case[Any]) -> None:
        cases.append(case)

    run: Callable[[], None] = collect
    run()
    return cases


def prepared(case: Case[Any], ids: Mapping[str, str]) -> requests.PreparedRequest | None:
    """The request as it goes out, with these ids in the path; None for one that no client can send."""
    case.path_parameters = {**(case.path_parameters or {}), **ids}
    how = case.as_transport_kwargs(base_url="http://localhost")
    known = {
        name: how[name] for name in ("method", "url", "headers", "params", "json", "data", "cookies") if name in how
    }
    try:
        return requests.Request(**known).prepare()
    except (ValueError, requests.RequestException):
        return None


async def answered(api: Api, request: requests.PreparedRequest) -> tuple[int, bytes]:
    """The status and the body; of a stream, its head alone."""
    target = (request.url or "").removeprefix("http://localhost").partition("#")[0] or "/"
    body = request.body.encode() if isinstance(request.body, str) else request.body
    assert body is None or isinstance(body, bytes)
    headers = {name: _text(value) for name, value in request.headers.items() if name.lower() not in {"host", "cookie"}}
    async with api.client.stream(request.method or "GET", target, body=body or b"", headers=headers) as stream:
        if stream.headers.get("content-type") == "text/event-stream":
            return stream.status, b""
        return stream.status, await stream.read()


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value.encode("utf-8", "replace").decode("latin1")


RUNS_COMMANDS = "run_command"  # what is made up must not be run: there it finds no session


def can_be_wrong(route: Route) -> bool:
    """Whether a request for it can be wrong: nothing but its path is asked for otherwise."""
    operation = operations()[route.method, route.path]
    return bool(operation["parameters"]) or "requestBody" in operation


@pytest.mark.parametrize(
    ("mode", "route"),
    [
        *(pytest.param(GenerationMode.POSITIVE, route, id=f"right {route.name}") for route in ROUTES),
        *(
            pytest.param(GenerationMode.NEGATIVE, route, id=f"wrong {route.name}")
            for route in ROUTES
            if can_be_wrong(route)
        ),
    ],
)
async def test_r03_nothing_that_is_made_of_it_breaks_the_server(
    mode: GenerationMode, route: Route, tmp_path: Path, autojump_clock: object
) -> None:
    cases = collected(route.method, route.path, mode)
    with capture_logs() as lines:
        async with open_api(tmp_path) as api:
            for case in cases:
                # As it is, and then with ids of what is there, or nothing but 404 would come of it.
                for ids in ({}, await _real_ids(api, route)) if "{" in route.path else ({},):
                    if (request := prepared(case, ids)) is None:
                        continue
                    with trio.fail_after(600):
                        status, body = await answered(api, request)
                    assert status < 500, (request.method, request.url, request.body, body)
                    if status >= 400:
                        msgspec.json.decode(body, type=Error)
                    elif route.media_type == "application/json" and route.answer is not None:
                        msgspec.json.decode(body, type=route.answer)
                    elif route.answer is None:
                        assert body == b""
    assert not [line for line in lines if line["event"] == "request_failed"]


async def _real_ids(api: Api, route: Route) -> dict[str, str]:
    """Ids of what is there, made again if the last request took it away."""
    workspace_id = (await api.create_workspace())["id"]
    api.w = f"/v1/workspaces/{workspace_id}"
    if (await api.client.get(f"{api.w}/sessions/{api.session_id}")).status != 200:
        api.session_id = await api.create_session()
    ids = {"id": workspace_id}
    if route.name != RUNS_COMMANDS:
        ids["sid"] = api.session_id
    if "{rid}" in route.path:
        ids["rid"] = (await api.send("hi")).json()["run_id"]
    return {name: value for name, value in ids.items() if f"{{{name}}}" in route.path}
