"""The description of this API, and a page that shows it."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from web.routes.call import JSON, Call, Nothing, Reply
from web.routes.table import RouteTable

table = RouteTable("server")

_PAGE = Path(__file__).parent.with_name("docs.html")


@table.get("/v1/openapi.json", query=Nothing, access="open", answer=dict[str, Any])
def openapi(call: Call[Nothing, Nothing]) -> Reply:
    """This API in the terms of OpenAPI 3.1."""
    return Reply(body=call.services.document, content_type=JSON)


@table.get("/v1/docs", query=Nothing, access="open", answer=str, media_type="text/html")
def docs(call: Call[Nothing, Nothing]) -> Reply:
    """A page that shows this API."""
    page, policy = _page()
    return Reply(body=page, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy})


@table.get("/", query=Nothing, access="open", answer=None, status=302)
def root(call: Call[Nothing, Nothing]) -> Reply:
    """Where a browser that knows no more than the address is sent."""
    return Reply(status=302, headers={"Location": "/v1/docs"})


@cache
def _page() -> tuple[bytes, str]:
    """The page, and a policy that lets nothing run but its own script."""
    page = _PAGE.read_bytes()
    script = re.search(rb"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1] if script else b"").digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page, policy
