"""Files in which people tell agents about their project; they go into the system prompt."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

NAMES = (
    "AGENTS.md",
    "AGENTS.local.md",
    "CLAUDE.md",
    "CLAUDE.local.md",
    "GEMINI.md",
    "CRUSH.md",
    "CRUSH.local.md",
    ".cursorrules",
    ".github/copilot-instructions.md",
)
FILE_MAX = 40_000  # bytes that are read of one
ALL_MAX = 120_000  # and of all together
CUT = "\n[cut off here]"


class ContextFile(msgspec.Struct, frozen=True):
    """One of them, with its path as a person would write it."""

    name: str
    text: str


def read_context_files(root: Path, more: Sequence[str] = ()) -> tuple[ContextFile, ...]:
    """Those that are in the workspace, and `more` of them by their paths there. Blocking. One that cannot be read, or
    leads outside, is left out (R32)."""
    found: list[ContextFile] = []
    seen: set[str] = set()  # some projects link one name to another
    left = ALL_MAX
    for name in (*NAMES, *more):
        path = os.path.realpath(root / name)
        if path in seen or not Path(path).is_relative_to(root) or not os.path.isfile(path):
            continue
        seen.add(path)
        try:
            with open(path, "rb") as file:
                data = file.read(min(FILE_MAX, left) + 1)
        except OSError:
            continue
        text = data[: min(FILE_MAX, left)].decode("utf-8", "replace").strip()
        left -= len(data)
        if text:
            found.append(ContextFile(name, text + CUT if len(data) > FILE_MAX else text))
        if left <= 0:
            break
    return tuple(found)
