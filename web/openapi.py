"""The OpenAPI document, made of the route table and the very structs that requests are decoded with."""

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec

from web.problems import Error
from web.routes.all_routes import ROUTES
from web.routes.call import Nothing
from web.routes.table import Route
from web.sse import CONTENT_TYPE as EVENT_STREAM

REF = "#/components/schemas/{name}"

_ABOUT = """\
Runs AI agents, so that every accepted prompt has exactly one ending. A superset of the API that Crush's client speaks.

On TCP, send a token as `Authorization: Bearer …`. Its scope is `read`, `run` or `admin`; each has the one before in it.
"""
_PATH_PARAMETERS = {
    "id": "The id of a workspace.",
    "sid": "The id of a session.",
    "rid": "The id of a run.",
    "client_id": "The id of a client: a UUID.",
    "name": "The name of a language server.",
}
_MISTAKE = "Refused; `type` is a stable word, `field` names what is to blame, where something is."


@cache
def build_document(version: str) -> bytes:
    """The document, as JSON."""
    kinds = [kind for route in ROUTES for kind in (route.query, route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, Error], ref_template=REF)
    found = _Schemas(dict(zip(map(_key, [*kinds, Error]), schemas, strict=True)), components)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, found)
    # Queries are told parameter by parameter, and nothing else refers to them.
    hidden = {route.query.__name__ for route in ROUTES} | {Nothing.__name__}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "countermand", "version": version, "description": _ABOUT},
        "tags": [{"name": name} for name in dict.fromkeys(route.group for route in ROUTES)],
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in hidden},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "countermand"},
            },
        },
    }
    return msgspec.json.encode(document)


def _key(kind: Any) -> str:
    return repr(kind)


class _Schemas:
    """Schemas of types, by type."""

    def __init__(self, schemas: dict[str, dict[str, Any]], components: dict[str, Any]) -> None:
        self._schemas = schemas
        self._components = components

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type: a reference, for a struct."""
        return self._schemas[_key(kind)]

    def fields(self, kind: type) -> Iterable[tuple[str, dict[str, Any], bool]]:
        """The fields of a struct: name, schema, and whether it is required."""
        component = self._components[kind.__name__]
        required = component.get("required", ())
        for name, schema in component.get("properties", {}).items():
            yield name, schema, name in required


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.group],
        "summary": route.summary,
        "parameters": list(_parameters(route, schemas)),
        "responses": {
            str(route.status): _success(route, schemas),
            "default": {"description": _MISTAKE, "content": {"application/json": {"schema": schemas.of(Error)}}},
        },
        "security": [] if route.access == "open" else [{"token": [route.access]}, {"cookie": [route.access]}],
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not Nothing:
        content = {"application/json": {"schema": schemas.of(route.body)}}
        operation["requestBody"] = {"required": _has_required(route.body), "content": content}
    return operation


def _has_required(kind: type) -> bool:
    return any(field.required for field in msgspec.structs.fields(kind))


def _parameters(route: Route, schemas: _Schemas) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        schema = {"type": "string", "minLength": 1}
        yield {"name": name, "in": "path", "required": True, "schema": schema, "description": _PATH_PARAMETERS[name]}
    for name, schema, required in schemas.fields(route.query):
        yield {"name": name, "in": "query", "required": required, "schema": schema}
    for name, purpose in route.headers.items():
        yield {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": purpose}


def _success(route: Route, schemas: _Schemas) -> dict[str, Any]:
    if route.answer is None:
        return {"description": "Done; there is no body."}
    schema = schemas.of(route.answer)
    if route.media_type == EVENT_STREAM:
        # OpenAPI 3.1 has no word for what a stream is made of; 3.2 calls it itemSchema.
        content: dict[str, Any] = {"schema": {"type": "string"}, "x-itemSchema": schema}
        return {"description": "The stream; `x-itemSchema` is one event.", "content": {route.media_type: content}}
    return {"description": "Done.", "content": {route.media_type: {"schema": schema}}}
