"""Who may call, and what: hosts and origins, tokens with scopes, and the cookie of the console.

    on a Unix socket           whoever can open it is the owner (its mode is 0600)
    on TCP, `open_loopback`    callers from this machine are the owner
    on TCP otherwise           a bearer token, or the cookie of somebody who signed in with one

A browser is held to its place in every case: the Host must be a name of this server (else a page could have its own
name point here, DNS rebinding), and what it sends from a page of another origin is refused.
"""

import hashlib
import ipaddress
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

import msgspec
import trio
from werkzeug.http import parse_cookie

from web.auth.settings import WebSettings
from web.auth.tokens import Scope, Token, TokenStore
from web.problems import Refused

Transport = Literal["unix", "tcp"]

COOKIE = "countermand"
COOKIE_S = 7 * 24 * 3600
SIGN_INS_MAX = 1000

_LEVELS: Mapping[Scope, int] = {"read": 1, "run": 2, "admin": 3}
_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_UNIX_NAMES = frozenset({"api.crush.localhost"})  # what Crush's client says on a Unix socket
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_FORWARDED = frozenset({"forwarded", "x-forwarded-for"})  # a proxy on this machine speaks for somebody elsewhere
_ELSEWHERE = frozenset({"cross-site", "same-site"})
_DEFAULT_PORTS = {"http": "80", "https": "443"}


class Caller(msgspec.Struct, frozen=True):
    """Who calls: the name of a token, or the owner of the machine."""

    name: str
    scope: Scope

    def may(self, scope: Scope) -> bool:
        """Whether a call that needs `scope` is allowed: a wider scope has the narrower ones in it."""
        return _LEVELS[self.scope] >= _LEVELS[scope]


OWNER = Caller("owner", "admin")


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """A request as far as it matters here."""

    transport: Transport
    scheme: str  # of the connection that came here
    peer: str | None  # the caller's address; None on a Unix socket
    method: str
    headers: Mapping[str, tuple[str, ...]]  # names in lower case

    def header(self, name: str) -> str | None:
        """The one value of a header. Raises Refused (400) if it was sent twice: which of them counts?"""
        values = self.headers.get(name, ())
        if len(values) > 1:
            raise Refused(400, "invalid_header", f"{name}: it was sent {len(values)} times", field=name)
        return values[0] if values else None


class SignIns:
    """Who signed in at the console: a cookie's hash, and the token behind it. Forgotten with the process."""

    def __init__(self) -> None:
        self._tokens: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def open(self, token: Token) -> str:
        """A fresh cookie for whoever holds the token."""
        cookie = secrets.token_urlsafe(32)
        self._tokens[_digest(cookie)] = (token.sha256, trio.current_time() + COOKIE_S)
        if len(self._tokens) > SIGN_INS_MAX:
            self._tokens.popitem(last=False)
        return cookie

    def close(self, cookie: str) -> None:
        """Sign out."""
        self._tokens.pop(_digest(cookie), None)

    def token_hash(self, cookie: str) -> str | None:
        """The hash of the token that was signed in with. Looked up by hash: there is nothing to learn from the time."""
        found, ends_at = self._tokens.get(_digest(cookie), (None, 0.0))
        return found if trio.current_time() < ends_at else None


class Gate:
    """Decides who a caller is, and turns away what does not belong here."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings
        self._tokens = TokenStore(settings.token_file) if settings.token_file is not None else None
        self._sign_ins = SignIns()
        self._hosts = _LOOPBACK_NAMES | {name.lower().strip("[]") for name in settings.allowed_hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in settings.allowed_origins)

    def check_place(self, request: Inbound) -> None:
        """Raise Refused unless the request is meant for this server, and comes from none but its own pages."""
        self.check_host(request.header("host"), request.transport)
        self._check_origin(request)

    def check_host(self, host: str | None, transport: Transport) -> None:
        """Raise Refused unless the name is one of this server."""
        found = _HOST.fullmatch(host or "")
        if found is None:
            raise Refused(400, "invalid_header", "Host: it is required, as in 'localhost:2180'", field="Host")
        name = found["name"].lower().strip("[]").rstrip(".")
        if name in self._hosts or (transport == "unix" and name in _UNIX_NAMES):
            return
        # A name can be made to point anywhere; an address is what it is.
        if not (self._hosts & _ANY_ADDRESS and _is_address(name)):
            raise Refused(403, "host_not_allowed", f"Host: {name!r} is not a name of this server", field="Host")

    def _check_origin(self, request: Inbound) -> None:
        origin = request.header("origin")
        if origin is not None:
            if origin.lower() not in self._origins and not _is_same_place(origin, request.header("host") or ""):
                raise Refused(403, "origin_not_allowed", f"Origin: {origin!r} may not call this server", field="Origin")
        elif request.header("sec-fetch-site") in _ELSEWHERE and request.header("sec-fetch-mode") != "navigate":
            # A link may be followed to here; an image or a script from here may not be used on another site's page.
            problem = "pages of other sites may not use what is here"
            raise Refused(403, "origin_not_allowed", problem, field="Sec-Fetch-Site")

    def caller(self, request: Inbound) -> Caller | None:
        """Who calls, or None if nobody knows. Raises Refused (401) for a token that is not one of ours."""
        if request.transport == "unix" or (self._settings.open_loopback and _is_from_here(request)):
            return OWNER
        authorization = request.header("authorization")
        if authorization is not None:
            return _caller(self.bearer(authorization))
        cookie = cookie_of(request)
        token_hash = self._sign_ins.token_hash(cookie) if cookie else None
        token = self._tokens.find_hash(token_hash) if self._tokens and token_hash else None
        return _caller(token) if token else None

    def bearer(self, authorization: str) -> Token:
        """The token of an Authorization header. Raises Refused (401)."""
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise unauthenticated("Authorization: it must be 'Bearer' and a token", error="invalid_request")
        return self.known_token(secret.strip())

    def known_token(self, secret: str) -> Token:
        """The token that this is the secret of. Raises Refused (401)."""
        token = self._tokens.find(secret) if self._tokens else None
        if token is None:
            raise unauthenticated("this token is not known here; it may have been revoked", error="invalid_token")
        return token

    def sign_in(self, secret: str) -> tuple[Caller, str]:
        """The caller that the token names, and a cookie that stands for it. Raises Refused (401)."""
        token = self.known_token(secret)
        return _caller(token), self._sign_ins.open(token)

    def sign_out(self, request: Inbound) -> None:
        """Forget the cookie."""
        if cookie := cookie_of(request):
            self._sign_ins.close(cookie)


def check_scope(caller: Caller | None, scope: Scope) -> Caller:
    """The caller, if it may do what needs `scope`. Raises Refused: 401 for nobody, 403 for somebody who may not."""
    if caller is None:
        raise unauthenticated("a token is needed: send it as 'Authorization: Bearer …'")
    if not caller.may(scope):
        challenge = f'Bearer realm="countermand", error="insufficient_scope", scope="{scope}"'
        problem = f"this needs a token with scope {scope!r}; {caller.name!r} has {caller.scope!r}"
        raise Refused(403, "scope_too_narrow", problem, headers={"WWW-Authenticate": challenge})
    return caller


def unauthenticated(message: str, *, error: str | None = None) -> Refused:
    """The refusal of somebody who is not known."""
    challenge = 'Bearer realm="countermand"' + (f', error="{error}"' if error else "")
    return Refused(401, "unauthenticated", message, headers={"WWW-Authenticate": challenge})


def cookie_of(request: Inbound) -> str | None:
    """The cookie of the console, if it was sent."""
    return parse_cookie("; ".join(request.headers.get("cookie", ()))).get(COOKIE)


def _caller(token: Token) -> Caller:
    return Caller(token.name, token.scope)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_from_here(request: Inbound) -> bool:
    if request.peer is None or not _is_address(request.peer) or not _FORWARDED.isdisjoint(request.headers):
        return False
    address = ipaddress.ip_address(request.peer)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_same_place(origin: str, host: str) -> bool:
    """Whether an origin is this server as the caller addresses it. Not the scheme: a proxy may have ended TLS."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None or not parts.netloc:
        return False
    return _with_port(parts.netloc, default) == _with_port(host.lower(), default)


def _with_port(place: str, default: str) -> str:
    found = _HOST.fullmatch(place)
    return f"{found['name']}:{found['port'] or default}" if found else ""
