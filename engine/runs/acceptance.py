"""What a prompt must be to become a run: checked synchronously, before anything is registered (R01, R03)."""

import base64
import binascii
import hashlib
import math
from functools import cache

import msgspec
from msgspec.structs import fields

from engine.errors import AttachmentInvalid, IdempotencyConflict, InvalidPrompt
from engine.records.ids import RUN_ID_MAX, RunId, WorkspaceId, new_run_id
from engine.records.message import Attachment, storable
from engine.records.run import Prompt, RunRecord, RunState
from engine.settings import EngineSettings
from engine.store.protocol import StoredRun

KEY_MAX = 255  # characters of an idempotency key


class Accepted(msgspec.Struct, frozen=True):
    """The answer to a prompt: its run, and whether it was there before (R06)."""

    run: RunRecord
    replayed: bool = False


def check_prompt(prompt: Prompt, settings: EngineSettings) -> None:
    """Raise InvalidPrompt, naming the field, unless the prompt can be run (R03)."""
    if not prompt.session_id:
        raise InvalidPrompt("session_id", "is required")
    if not prompt.text.strip() and not any(attachment.is_text for attachment in prompt.attachments):
        raise InvalidPrompt("prompt", "is empty, and there is no text attachment")
    if storable(prompt.text) != prompt.text:
        raise InvalidPrompt("prompt", "is not valid Unicode: it holds a lone surrogate")
    if (size := len(prompt.text.encode())) > settings.max_prompt_bytes:
        raise InvalidPrompt("prompt", f"has {size} bytes; at most {settings.max_prompt_bytes} are taken")
    if prompt.run_id is not None:
        check_key("run_id", prompt.run_id, RUN_ID_MAX)
        if "/" in prompt.run_id or prompt.run_id in {".", ".."}:
            raise InvalidPrompt("run_id", "must not hold '/', nor be '.' or '..': it is part of a path")
    if prompt.idempotency_key is not None:
        check_key("Idempotency-Key", prompt.idempotency_key, KEY_MAX)
    if prompt.timeout_s is not None:
        check_timeout(prompt.timeout_s, settings.max_timeout_s)
    for index, attachment in enumerate(prompt.attachments):
        check_attachment(f"attachments[{index}]", attachment, settings.max_attachment_bytes)


def check_key(field: str, key: str, limit: int) -> None:
    """Raise InvalidPrompt unless the key is short and printable."""
    if not 0 < len(key) <= limit:
        raise InvalidPrompt(field, f"must have 1 to {limit} characters")
    if not key.isascii() or not key.isprintable():
        raise InvalidPrompt(field, "must be printable ASCII")


def check_timeout(timeout_s: float, limit_s: float) -> None:
    """Raise InvalidPrompt unless it is a usable number of seconds."""
    if not math.isfinite(timeout_s) or not 0 < timeout_s <= limit_s:
        raise InvalidPrompt("timeout_s", f"must be above 0 and at most {limit_s:g} seconds")


def check_attachment(field: str, attachment: Attachment, limit: int) -> None:
    """Raise AttachmentInvalid unless the attachment is what it says."""
    if not attachment.mime_type or "/" not in attachment.mime_type:
        raise AttachmentInvalid(f"{field}.mime_type", "is required, as in 'text/plain'")
    try:
        content = base64.b64decode(attachment.content, validate=True)
    except (binascii.Error, ValueError):
        raise AttachmentInvalid(f"{field}.content", "is not standard padded base64") from None
    if len(content) > limit:
        raise AttachmentInvalid(f"{field}.content", f"has {len(content)} bytes; at most {limit} are taken")
    if attachment.is_text:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            raise AttachmentInvalid(f"{field}.content", f"is {attachment.mime_type}, but not UTF-8 text") from None


@cache
def _counting(kind: type[Prompt]) -> tuple[tuple[str, object], ...]:
    """The fields of a prompt that count, with what they are when nobody asks for anything."""
    return tuple((field.name, field.default) for field in fields(kind) if field.name != "idempotency_key")


def request_hash(prompt: Prompt) -> str:
    """What two requests under the same key must agree on (R06). The key itself and a made-up run id do not count.

    What is not asked for does not count either, so that a later version, which can be asked for more, still knows the
    requests of this one.
    """
    asked = {name: value for name, usual in _counting(type(prompt)) if (value := getattr(prompt, name)) != usual}
    return hashlib.sha256(msgspec.json.encode(asked, order="sorted")).hexdigest()


def check_same_request(prompt: Prompt, expected_hash: str, stored: StoredRun) -> Accepted:
    """The stored run as the answer to a repeated request; IdempotencyConflict if it was another one (R06)."""
    if stored.request_hash != expected_hash:
        if prompt.run_id is not None and stored.run.id == prompt.run_id:
            raise IdempotencyConflict("run_id", prompt.run_id)
        raise IdempotencyConflict("Idempotency-Key", prompt.idempotency_key or "")
    return Accepted(stored.run, replayed=True)


def new_run(prompt: Prompt, *, workspace_id: WorkspaceId, seq: int, at_us: int) -> RunRecord:
    """The row of a run that is being accepted."""
    run_id: RunId = prompt.run_id or new_run_id()
    return RunRecord(
        id=run_id, workspace_id=workspace_id, session_id=prompt.session_id, seq=seq, state=RunState.ACCEPTED,
        prompt=prompt, model=prompt.model or "", accepted_at_us=at_us,
    )  # fmt: skip
