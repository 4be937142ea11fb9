"""What Google's own SDK hears and sends, recorded: it cannot be installed beside us, because it takes no `tenacity` as
new as ours. `python -m tests.engine.models.gemini.recording` records it anew, in an environment of its own.

The cases are part of the recording, so that one that was changed without recording anew is noticed.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from engine.models.gemini.request import gemini_body
from engine.models.protocol import ModelInfo
from tests.doubles.gemini_server import answer, call, error, piece, say, stop, think
from tests.doubles.model_server import Reply
from tests.engine.models.oracle import conversations

RECORDED = Path(__file__).with_name("sdk_recording.json")
SCRIPT = Path(__file__).with_name("ask_sdk.py")
SDK = "google-genai==3.6.1"

INFO = ModelInfo(
    id="gemini-3.8-flash", provider="test", name="M", default_max_tokens=64_000, can_reason=True,
    supports_attachments=True,
)  # fmt: skip
OLDER = msgspec.structs.replace(INFO, id="gemini-2.5-pro", thinks_by="budget")
SIGNED = "c2lnbmVk"
REPLIES = [
    answer(say("Grüße "), say("😀"), stop()),
    answer(think("h"), think("m", SIGNED), say("So."), say("", SIGNED), stop("MAX_TOKENS", thoughts=9)),
    answer(say("x"), stop("SAFETY")),
    answer(say("I look."), piece(call("look", {"path": "ü"}, signature=SIGNED), call("wait")), stop()),
    answer(say("x"), stop(prompt=100, candidates=20, thoughts=30, cached=60)),
]
REFUSED = (400, 429, 503)
REFUSALS = [error(status, "SOME_STATUS", "said why") for status in REFUSED]
REQUESTS = [(info, asked) for info in (INFO, OLDER) for asked in conversations(f"call:{SIGNED}", call_id="g1")]


def stream_of(reply: Reply) -> str:
    """What a reply sends."""
    return b"".join(move for move in reply.moves if isinstance(move, bytes)).decode()


def cases() -> dict[str, Any]:
    """What the SDK is asked."""
    return {
        "heard": [stream_of(reply) for reply in REPLIES],
        "refused": [
            {"status": status, "body": msgspec.json.encode(each).decode()}
            for status, each in zip(REFUSED, REFUSALS, strict=True)
        ],
        "sent": [{"model": info.id, "body": gemini_body(asked, info)} for info, asked in REQUESTS],
    }


def recorded() -> dict[str, Any]:
    """What it answered."""
    data: dict[str, Any] = msgspec.json.decode(RECORDED.read_bytes())
    return data


def main() -> None:
    """Ask, and write it down."""
    uv = Path(sys.executable).with_name("uv")
    command: list[str | Path] = [
        uv,
        "run",
        "--no-project",
        "--no-config",
        "--isolated",
        "--with",
        SDK,
        "--python",
        sys.executable,
        SCRIPT,
    ]
    done = subprocess.run(command, input=msgspec.json.encode(cases()), stdout=subprocess.PIPE, check=True, timeout=600)
    RECORDED.write_bytes(done.stdout)


if __name__ == "__main__":
    main()
