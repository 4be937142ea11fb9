"""THE table from errors to HTTP answers: the only place that knows which status an engine error has.

    refused before the engine was asked      Refused: carries its own status
    an error of the engine                   STATUSES: by class; the text is the error's own
    anything else                            500, and the text says nothing of what happened

The body is always `{"message", "type"}`, and `"field"` where one field is to blame. `type` is a stable word that
programs may compare; `message` is for people.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from engine import errors

MESSAGE_MAX = 1000  # characters: an error quotes what it was given, and that may be a whole URL
RETRY_LEAVING_S = 5  # when a server that is leaving, or a store that is unwell, may be asked again


class Refused(Exception):
    """The request is refused for what it is, before the engine was asked."""

    def __init__(
        self,
        status: int,
        type: str,
        message: str,
        *,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.message = message
        self.field = field
        self.headers = headers or {}


class Error(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of every answer that is not a success."""

    message: str
    type: str
    field: str | None = None


class Problem(msgspec.Struct, frozen=True):
    """An answer that says what is wrong."""

    status: int
    body: Error
    headers: Mapping[str, str] = MappingProxyType({})


class Status(msgspec.Struct, frozen=True):
    """How a class of errors is answered: the status, the stable word, and the field if it is always the same."""

    code: int
    type: str
    field: str | None = None
    retry_after_s: int | None = None


STATUSES: Mapping[type[errors.CountermandError], Status] = {
    errors.InvalidPrompt: Status(400, "invalid_prompt"),
    errors.AttachmentInvalid: Status(400, "invalid_attachment"),
    errors.NotFound: Status(404, "not_found"),  # the word names the kind: `session_not_found`
    errors.WorkspacePathInvalid: Status(400, "invalid_path", field="path"),
    errors.WorkspaceFailed: Status(500, "workspace_failed"),
    errors.WorkspaceUnavailable: Status(503, "workspace_unavailable", retry_after_s=RETRY_LEAVING_S),
    # 409, not 404: the workspace is there, and the caller should open it again rather than forget it.
    errors.WorkspaceClosing: Status(409, "workspace_closing"),
    errors.ServerStopping: Status(503, "server_stopping", retry_after_s=RETRY_LEAVING_S),
    errors.ChildSession: Status(409, "child_session"),
    errors.SessionBusy: Status(409, "session_busy"),
    errors.QueueFull: Status(429, "queue_full"),  # Retry-After is the error's own
    errors.IdempotencyConflict: Status(422, "idempotency_conflict"),
    errors.ClientRetired: Status(409, "client_retired", field="client_id"),
    errors.ClientNotAttached: Status(409, "client_not_attached", field="client_id"),
    errors.ConfigInvalid: Status(400, "invalid_config"),
    errors.ConfigRefused: Status(403, "config_refused", field="key"),
    errors.ModelError: Status(502, "model_error"),
    errors.ToolProblem: Status(400, "tool_problem"),
    errors.PermissionDenied: Status(403, "permission_denied"),
    errors.InvalidAnswer: Status(400, "invalid_answer"),
    errors.StoreError: Status(500, "store_error"),
    errors.StoreLocked: Status(503, "store_locked", retry_after_s=RETRY_LEAVING_S),
    errors.StoreNewer: Status(503, "store_newer"),
    errors.StoreUnavailable: Status(503, "store_unavailable", retry_after_s=RETRY_LEAVING_S),
    errors.StoreFull: Status(503, "store_full", retry_after_s=RETRY_LEAVING_S),
    errors.StoreDamaged: Status(500, "store_damaged"),  # trying again does not help
    errors.Conflict: Status(409, "conflict"),
}

INTERNAL = Problem(500, Error("internal server error", "internal"))
"""What an unexpected error is answered with. What happened stands in the log, and only there."""


def problem_of(error: BaseException) -> Problem | None:
    """The answer to an error, or None if it is one that nobody expected."""
    if isinstance(error, Refused):
        return Problem(error.status, Error(_shorten(error.message), error.type, error.field), error.headers)
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)
    if status is None:
        return None
    body = Error(_shorten(str(error)), _word(error, status), getattr(error, "field", status.field))
    return Problem(status.code, body, _headers(error, status))


def _word(error: BaseException, status: Status) -> str:
    return f"{error.kind}_{status.type}" if isinstance(error, errors.NotFound) else status.type


def _headers(error: BaseException, status: Status) -> Mapping[str, str]:
    retry_after = error.retry_after if isinstance(error, errors.QueueFull) else status.retry_after_s
    return {} if retry_after is None else {"Retry-After": str(retry_after)}


def _shorten(message: str) -> str:
    return message if len(message) <= MESSAGE_MAX else message[: MESSAGE_MAX - 1] + "…"
