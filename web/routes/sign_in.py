"""Signing in with a token, for a browser: the cookie stands for the token where no header can be set."""

from typing import Annotated

import msgspec
from msgspec import Meta

from web.auth import COOKIE, COOKIE_S, Scope
from web.routes.call import EMPTY, Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable

table = RouteTable("sign-in")

_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Strict"


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a sign-in."""

    token: Annotated[str, Meta(min_length=1, max_length=200)]


class SignedIn(msgspec.Struct, frozen=True):
    """Who calls, and what they may do."""

    name: str
    scope: Scope


@table.add("POST", "/v1/sign-in", access="open", query=Nothing, body=SignIn, answer=SignedIn)
def sign_in(call: Call[Nothing, SignIn]) -> Reply:
    """Exchange a token for a cookie that only this server gets, and only from its own pages."""
    caller, cookie = call.services.gate.sign_in(call.body.token)
    secure = "; Secure" if call.inbound.scheme == "https" else ""
    headers = {"Set-Cookie": f"{COOKIE}={cookie}; Max-Age={COOKIE_S}; {_ATTRIBUTES}{secure}"}
    return json_reply(SignedIn(caller.name, caller.scope), headers=headers)


@table.get("/v1/sign-in", query=Nothing, answer=SignedIn)
def who_am_i(call: Call[Nothing, Nothing]) -> Reply:
    """Who calls, and what they may do."""
    caller = call.require("read")
    return json_reply(SignedIn(caller.name, caller.scope))


@table.add("DELETE", "/v1/sign-in", access="open", query=Nothing, body=Nothing)
def sign_out(call: Call[Nothing, Nothing]) -> Reply:
    """Forget the cookie. The token stays what it is."""
    call.services.gate.sign_out(call.inbound)
    return msgspec.structs.replace(EMPTY, headers={"Set-Cookie": f"{COOKIE}=; Max-Age=0; {_ATTRIBUTES}"})
