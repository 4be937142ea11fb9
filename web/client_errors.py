"""What goes wrong when talking to a server.

ClientError
├── ServerProblem        the server answered, and refused
├── ServerUnreachable    there was no answer: nobody listens, or the connection broke
└── NotUnderstood        the answer is not one of a countermand server of this version
"""

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import httpx2


class ClientError(Exception):
    """The root; its text is written for the person who reads it."""


class ServerProblem(ClientError):
    """The server refused: with a status, a stable word, a text, and the field that is to blame if there is one."""

    def __init__(self, status: int, type: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.field = field


class ServerUnreachable(ClientError):
    """There was no answer."""


class NotUnderstood(ClientError):
    """What was answered cannot be read."""


class _Body(msgspec.Struct):
    message: str = ""
    type: str = ""
    field: str | None = None


def problem_of_response(response: "httpx2.Response") -> ServerProblem:
    """The problem that an answer tells of. Its body must have been read."""
    try:
        body = msgspec.json.decode(response.content, type=_Body)
    except msgspec.DecodeError:
        body = _Body()  # a proxy, or something else that is no server of ours
    message = body.message or f"the server answered {response.status_code} {response.reason_phrase}"
    return ServerProblem(response.status_code, body.type or "unknown", message, body.field)
