"""Runs: prompts as they come in, and what becomes of them. The shapes of runs are ours; times are RFC 3339."""

from typing import Annotated

import msgspec
from msgspec import Meta

from engine.clock import rfc3339
from engine.records import run as records
from engine.records.ids import RUN_ID_MAX, RunId, SessionId
from engine.records.run import IfBusy, OnCrash, RunState
from web.wire.attachments import Attachment, attachment_records

TIMEOUT_MAX_S = 10.0**9  # what is allowed is the engine's to say; this only keeps the number sane
SEQ_MAX = 2**63 - 1  # what the store can count to

PAGE_DEFAULT = 50
PAGE_MAX = 200
WAIT_MAX_S = 60

Seq = Annotated[int, Meta(ge=0, le=SEQ_MAX)]


class AgentMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt: Crush's fields, then ours. Without `run_id` and without `if_busy` it steers the active turn."""

    session_id: str
    run_id: Annotated[str, Meta(max_length=RUN_ID_MAX)] = ""
    prompt: str = ""
    attachments: tuple[Attachment, ...] = ()
    if_busy: IfBusy | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=TIMEOUT_MAX_S)] | None = None
    on_crash: OnCrash | None = None
    model: str = ""


class AcceptedPrompt(msgspec.Struct, frozen=True):
    """The prompt is durable; `seq` is its accept number in the workspace."""

    run_id: str
    session_id: str
    state: RunState
    seq: int


class RunError(msgspec.Struct, frozen=True):
    """Why a run failed."""

    type: str
    title: str
    details: str


class Usage(msgspec.Struct, frozen=True):
    """Tokens, and their price in US dollars."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted prompt and what became of it."""

    id: str
    workspace_id: str
    session_id: str
    seq: int
    state: RunState
    if_busy: IfBusy
    prompt: str
    model: str
    provider: str
    attempt: int
    accepted_at: str
    started_at: str | None
    ended_at: str | None
    cancel_requested_at: str | None
    error: RunError | None
    message_id: str | None
    steered_into: str | None
    usage: Usage


class RunList(msgspec.Struct, frozen=True):
    """Runs, the newest first; `next` goes into `before` to read on, and is null at the end."""

    runs: tuple[Run, ...]
    next: int | None


class RunListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs to list; `state` may be repeated."""

    session_id: str = ""
    state: tuple[RunState, ...] = ()
    limit: Annotated[int, Meta(ge=1, le=PAGE_MAX)] = PAGE_DEFAULT
    before: Seq | None = None


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """How many seconds to wait for the run's end before answering."""

    wait_s: Annotated[float, Meta(ge=0, le=WAIT_MAX_S)] = 0.0


class CanceledRun(msgspec.Struct, frozen=True):
    """What a cancel of one run came to: the run if it was covered, and its state when the cancel was committed."""

    canceled: tuple[str, ...]
    state: RunState


class CanceledRuns(msgspec.Struct, frozen=True):
    """The runs that a cancel covers: each of them ends `canceled`, whatever happens next."""

    canceled: tuple[str, ...]


def prompt_from(message: AgentMessage, idempotency_key: str | None) -> records.Prompt:
    """The prompt a caller asks for; the engine checks it. Raises AttachmentInvalid."""
    if_busy = message.if_busy
    if if_busy is None:
        # As Crush has it: a prompt that nobody wants to follow by its id joins the turn that is going on.
        if_busy = IfBusy.ENQUEUE if message.run_id else IfBusy.STEER
    return records.Prompt(
        session_id=SessionId(message.session_id),
        text=message.prompt,
        attachments=attachment_records(message.attachments),
        run_id=RunId(message.run_id) if message.run_id else None,
        if_busy=if_busy,
        timeout_s=message.timeout_s,
        on_crash=message.on_crash or OnCrash.INTERRUPT,
        model=message.model or None,
        idempotency_key=idempotency_key,
    )


def run_shape(run: records.RunRecord) -> Run:
    """The run as it goes over the wire."""
    usage = run.usage
    return Run(
        id=run.id,
        workspace_id=run.workspace_id,
        session_id=run.session_id,
        seq=run.seq,
        state=run.state,
        if_busy=run.prompt.if_busy,
        prompt=run.prompt.text,
        model=run.model,
        provider=run.provider,
        attempt=run.attempt,
        accepted_at=rfc3339(run.accepted_at_us),
        started_at=_moment(run.started_at_us),
        ended_at=_moment(run.ended_at_us),
        cancel_requested_at=_moment(run.cancel_requested_at_us),
        error=RunError(run.error.type, run.error.title, run.error.details) if run.error else None,
        message_id=run.message_id,
        steered_into=run.steered_into,
        usage=Usage(
            usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.cost
        ),
    )


def _moment(at_us: int | None) -> str | None:
    return None if at_us is None else rfc3339(at_us)
