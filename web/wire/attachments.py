"""Attachments as they come in. The engine checks base64, UTF-8 and sizes; here, that a file begins as its type says."""

import binascii
from collections.abc import Sequence

import msgspec

from engine.errors import AttachmentInvalid
from engine.records import message as records

ATTACHMENTS_MAX = 100  # in one prompt

# How files of these types begin. A model provider refuses a file that does not, but only after
# the prompt was accepted and paid for.
_SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
    "application/pdf": (b"%PDF-",),
}
_BEGINNING = 16  # characters of base64: 12 bytes, enough for every signature


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """A file that comes with a prompt; `content` is standard, padded base64."""

    file_path: str = ""
    file_name: str = ""
    mime_type: str = ""
    content: str = ""


def attachment_records(attachments: Sequence[Attachment]) -> tuple[records.Attachment, ...]:
    """The attachments, for the engine. Raises AttachmentInvalid for one that begins as another type does (R03)."""
    if len(attachments) > ATTACHMENTS_MAX:
        raise AttachmentInvalid("attachments", f"there are {len(attachments)}; at most {ATTACHMENTS_MAX} are taken")
    for index, attachment in enumerate(attachments):
        kind = attachment.mime_type.partition(";")[0].strip().lower()
        if not _begins_as(kind, attachment.content):
            raise AttachmentInvalid(f"attachments[{index}].content", f"it does not begin as {kind} does")
    return tuple(
        records.Attachment(each.file_path, each.file_name, each.mime_type, each.content) for each in attachments
    )


def _begins_as(kind: str, content: str) -> bool:
    signatures = _SIGNATURES.get(kind)
    if signatures is None:
        return True
    try:
        beginning = binascii.a2b_base64(content[:_BEGINNING])
    except ValueError:
        return True  # no base64 at all: the engine says so, in better words
    return beginning.startswith(signatures)
