"""Runs: one accepted prompt each, from acceptance to its terminal event."""

from enum import StrEnum

import msgspec

from engine.records.ids import MessageId, RunId, SessionId, WorkspaceId
from engine.records.message import Attachment


class RunState(StrEnum):
    """`accepted → queued → active → completed | canceled | failed | interrupted`; `queued` may be skipped."""

    ACCEPTED = "accepted"
    QUEUED = "queued"
    ACTIVE = "active"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def is_terminal(self) -> bool:
        """Whether a run in this state has ended, for good (R18)."""
        return self in TERMINAL


TERMINAL = frozenset({RunState.COMPLETED, RunState.CANCELED, RunState.FAILED, RunState.INTERRUPTED})


class IfBusy(StrEnum):
    """What happens to a prompt while its session is busy (R15)."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    STEER = "steer"


class OnCrash(StrEnum):
    """What happens to an active run when the server dies (R25)."""

    INTERRUPT = "interrupt"
    RETRY = "retry"


class Purpose(StrEnum):
    """What a run is for."""

    ANSWER = "answer"
    SUMMARIZE = "summarize"  # its answer stands for the conversation so far, from then on
    DELEGATED = "delegated"  # an agent asks, and a sub-agent answers; no run of its own


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks for, after validation. `idempotency_key` and `run_id` make a retry safe (R06)."""

    session_id: SessionId
    text: str
    attachments: tuple[Attachment, ...] = ()
    run_id: RunId | None = None
    if_busy: IfBusy = IfBusy.ENQUEUE
    timeout_s: float | None = None
    on_crash: OnCrash = OnCrash.INTERRUPT
    model: str | None = None
    idempotency_key: str | None = None
    purpose: Purpose = Purpose.ANSWER


class RunError(msgspec.Struct, frozen=True):
    """Why a run failed: `type` is a stable word, `title` short, `details` what a person can do about it (R20)."""

    type: str
    title: str
    details: str = ""


class Usage(msgspec.Struct, frozen=True):
    """Tokens, and their price in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cost + other.cost,
        )


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One run as it is stored. `seq` is its accept number in the workspace: lanes run in this order (R14)."""

    id: RunId
    workspace_id: WorkspaceId
    session_id: SessionId
    seq: int
    state: RunState
    prompt: Prompt
    model: str = ""
    provider: str = ""
    attempt: int = 1
    accepted_at_us: int
    started_at_us: int | None = None
    ended_at_us: int | None = None
    cancel_requested_at_us: int | None = None
    cancel_reason: str | None = None
    error: RunError | None = None
    message_id: MessageId | None = None
    steered_into: RunId | None = None
    usage: Usage = Usage()
