"""Every error the engine raises on purpose, named for its condition.

    CountermandError
    ├── InvalidPrompt            the prompt is refused before it was accepted (R03)
    │   └── AttachmentInvalid    one attachment is not what it says
    ├── NotFound                 no such thing; `kind` and `id` say which
    ├── WorkspacePathInvalid     the path is no directory that can be worked in
    ├── WorkspaceFailed          an error of our own took the workspace down
    ├── WorkspaceUnavailable     it is to be open, and cannot be worked in; its runs wait
    ├── WorkspaceClosing         this workspace accepts nothing any more (R04)
    ├── ServerStopping           no workspace of this server accepts anything any more (R04)
    ├── SessionBusy              `if_busy` was `reject`, and the session is busy (R15)
    ├── ChildSession             a sub-agent's session was asked to do what only its parent can
    ├── QueueFull                a bound on the queue is reached (R16)
    ├── IdempotencyConflict      the same key came with another request (R06)
    ├── ClientRetired            a client that said goodbye came back
    ├── ClientNotAttached        the call needs a live event stream of this client
    ├── ConfigInvalid            configuration that cannot be used, with its field
    ├── ConfigRefused            configuration that only the operator may change
    ├── ModelError               what a model provider did, with its kind (R20)
    ├── ToolProblem              a call that cannot be done as the model asks; told to the model
    ├── PermissionDenied         a call that may not be done (R31)
    ├── InvalidAnswer            an answer to a question that does not fit it
    └── StoreError               the store cannot do its work
        ├── StoreLocked          another server holds it
        ├── StoreNewer           it was written by a newer version
        ├── StoreUnavailable     read-only, locked by another program, gone, behind or closed (R26)
        │   ├── StoreFull        its disk is full
        │   └── StoreDamaged     what it holds cannot be read any more
        └── Conflict             a uniqueness constraint refused the change

Expected results (queued, already settled, not applied) are return values, not errors.
"""

from typing import Literal

NOBODY_TO_ASK = (
    "This needs a permission, and nobody is there who could give it. Go on without it, or say what is needed."
)


class CountermandError(Exception):
    """The root of the tree; its text is written for the person who reads it."""


class InvalidPrompt(CountermandError):
    """A prompt that is refused; `field` names what is wrong with it (R03)."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class AttachmentInvalid(InvalidPrompt):
    """An attachment whose content is not what its type says (R03)."""


type_of_thing = Literal[
    "workspace", "session", "message", "run", "provider", "model", "client", "token", "lsp", "mcp", "skill"
]  # fmt: skip


class NotFound(CountermandError):
    """There is no `kind` with this id."""

    def __init__(self, kind: type_of_thing, id: str) -> None:
        super().__init__(f"there is no {kind} {id!r}")
        self.kind = kind
        self.id = id


class WorkspacePathInvalid(CountermandError):
    """The path of a workspace that cannot be opened."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"cannot open a workspace at {path!r}: {problem}")
        self.path = path
        self.problem = problem


class WorkspaceFailed(CountermandError):
    """The workspace met an error of the server's own; the others go on."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__(f"workspace {workspace_id!r} failed by an error of the server's own; its log says more")
        self.workspace_id = workspace_id


class WorkspaceUnavailable(CountermandError):
    """The workspace is to be open, and something is in the way; what waits in it is taken up when that is gone."""

    def __init__(self, workspace_id: str, problem: str) -> None:
        super().__init__(f"workspace {workspace_id!r} cannot be worked in: {problem}; what waits in it is not lost")
        self.workspace_id = workspace_id
        self.problem = problem


class WorkspaceClosing(CountermandError):
    """The workspace is being closed and accepts nothing (R04)."""

    def __init__(self, workspace_id: str) -> None:
        super().__init__(f"workspace {workspace_id!r} is closing; open it again and retry")
        self.workspace_id = workspace_id


class ServerStopping(CountermandError):
    """The server is shutting down and accepts nothing (R04)."""

    def __init__(self) -> None:
        super().__init__("the server is shutting down; retry when it is back")


class SessionBusy(CountermandError):
    """`if_busy` was `reject` and the session has a run (R15)."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} is busy, and if_busy is 'reject'")
        self.session_id = session_id


class ChildSession(CountermandError):
    """The session is the work of a sub-agent: nobody can speak in it, and it is deleted with its parent."""

    field = "session_id"

    def __init__(self, session_id: str, parent_id: str) -> None:
        super().__init__(
            f"session_id: {session_id!r} is what a sub-agent did for session {parent_id!r}; it can be read, and nothing"
            " else. Send, cancel or delete there"
        )
        self.session_id = session_id
        self.parent_id = parent_id


class QueueFull(CountermandError):
    """A bound on waiting runs is reached; try again after `retry_after` seconds (R16)."""

    def __init__(self, scope: Literal["session", "workspace"], limit: int, retry_after: int = 5) -> None:
        super().__init__(f"the queue of this {scope} is full: {limit} runs are waiting; retry later")
        self.scope = scope
        self.limit = limit
        self.retry_after = retry_after


class IdempotencyConflict(CountermandError):
    """A `run_id` or idempotency key was used before, for another request (R06)."""

    def __init__(self, field: str, key: str) -> None:
        super().__init__(f"{field}: {key!r} was already used for a different request")
        self.field = field
        self.key = key


class ClientRetired(CountermandError):
    """A client id that said goodbye cannot come back."""

    def __init__(self, client_id: str) -> None:
        super().__init__(f"client {client_id!r} is retired; use a new client id")
        self.client_id = client_id


class ClientNotAttached(CountermandError):
    """The client has no live event stream on this workspace."""

    def __init__(self, client_id: str) -> None:
        super().__init__(f"client {client_id!r} has no open event stream on this workspace")
        self.client_id = client_id


class ConfigInvalid(CountermandError):
    """A setting that cannot be used; `field` names it, and `file` where it stands, if it stands in one."""

    def __init__(self, field: str, problem: str, *, file: str = "") -> None:
        super().__init__(": ".join(filter(None, (file, field, problem))))
        self.field = field
        self.problem = problem
        self.file = file


class ConfigRefused(CountermandError):
    """A setting that nobody may change through the API: it would give rights, name programs or hold keys."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key!r} cannot be changed through the API; only the operator can, in the server's own file")
        self.key = key


ModelErrorKind = Literal[
    "authentication", "rate_limit", "overloaded", "server", "connection", "protocol", "bad_request", "context_length",
    "not_found", "content_filter",
]  # fmt: skip

TRANSIENT_KINDS: frozenset[ModelErrorKind] = frozenset({"rate_limit", "overloaded", "server", "connection", "protocol"})


class ModelError(CountermandError):
    """A model provider failed. `title` is short; `details` say what a person can do (R20)."""

    def __init__(
        self,
        kind: ModelErrorKind,
        title: str,
        details: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{title}: {details}")
        self.kind = kind
        self.title = title
        self.details = details
        self.status = status
        self.retry_after = retry_after  # seconds, as the provider asked

    @property
    def is_transient(self) -> bool:
        """Whether trying the same request again may succeed."""
        return self.kind in TRANSIENT_KINDS


class ToolProblem(CountermandError):
    """A call that cannot be done as the model asks; its text is written for the model."""


class PermissionDenied(CountermandError):
    """A call that may not be done. A person who says no ends the turn with it; with nobody there, the model is told
    (R31)."""

    def __init__(self, *, by_person: bool) -> None:
        super().__init__("User denied permission" if by_person else NOBODY_TO_ASK)
        self.by_person = by_person


class InvalidAnswer(CountermandError):
    """An answer to a question that does not fit it; `field` names what is wrong with it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class StoreError(CountermandError):
    """The store cannot do its work."""


class StoreLocked(StoreError):
    """Another server holds this store (R26)."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(f"the data directory {path!r} is in use by {holder}; stop it, or choose another --data-dir")
        self.path = path
        self.holder = holder


class StoreNewer(StoreError):
    """The store was written by a newer version of this program (R26)."""

    def __init__(self, path: str, found: int, known: int) -> None:
        super().__init__(f"{path!r} has schema {found}, and this version knows up to {known}; upgrade countermand")
        self.path = path
        self.found = found
        self.known = known


class StoreUnavailable(StoreError):
    """The store cannot work now: it is full, read-only, locked, damaged or closed; the text says which (R26)."""


class StoreFull(StoreUnavailable):
    """The disk that holds the store is full. It goes on by itself when there is space again (R26)."""


class StoreDamaged(StoreUnavailable):
    """Something in the store's files cannot be read any more. Trying again does not help; a backup does (R26)."""


class Conflict(StoreError):
    """A uniqueness constraint refused the change; nothing of it was written."""
