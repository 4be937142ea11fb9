"""Who may call, and what."""

from web.auth.gate import COOKIE, COOKIE_S, OWNER, Caller, Gate, Inbound, Transport, check_scope
from web.auth.settings import WebSettings
from web.auth.tokens import Scope, Token, TokenStore

__all__ = [
    "COOKIE",
    "COOKIE_S",
    "OWNER",
    "Caller",
    "Gate",
    "Inbound",
    "Scope",
    "Token",
    "TokenStore",
    "Transport",
    "WebSettings",
    "check_scope",
]
