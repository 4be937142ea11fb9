"""Transcripts in documents: what stands in their console blocks, and whether it is what really happens.

    ```console
    $ curl -s $W/runs/first
    {"id":"first","state":"canceled",…}
    ```

In a document a line that begins with a space goes on the line before it, and `…` stands for any text. Ids, moments and
event numbers differ each time: whatever a document calls by one id must be one thing, and a moment must be a moment.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PROMPT = "$ "
ANY = "…"

_BLOCK = re.compile(r"^```(?P<kind>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z"
_NUMBER = r"(?<=^id: )\d+$"  # of an event, on a stream
_SECONDS = r'(?:(?<=_at":)|(?<="time":))\d{10}\b'  # since the epoch
_VOLATILE = re.compile(
    f"(?P<any>{ANY})|(?P<id>{_UUID})|(?P<moment>{_MOMENT})|(?P<number>{_NUMBER})|(?P<seconds>{_SECONDS})", re.MULTILINE
)
_READ_AFTER = re.compile(r"(Last-Event-ID: |[?&]cursor=)(\d+)")
_FORMS = {"any": ".*?", "id": _UUID, "moment": _MOMENT, "number": r"\d+", "seconds": r"\d{10}"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document: its kind, its text, and the line it begins on."""

    kind: str
    text: str
    line: int


@dataclass(frozen=True)
class Step:
    """One command of a transcript, and what the document shows of its output."""

    command: str
    shown: str
    line: int


def read_blocks(path: Path) -> list[Block]:
    """The fenced blocks of a document."""
    text = path.read_text("utf-8")
    return [
        Block(found["kind"], found["text"], text.count("\n", 0, found.start()) + 1) for found in _BLOCK.finditer(text)
    ]


def read_steps(path: Path) -> list[Step]:
    """What is typed in the console blocks of a document, in order, with what is shown after it."""
    steps = []
    for block in read_blocks(path):
        if block.kind == "console":
            steps += _steps_of(block)
    return steps


def _steps_of(block: Block) -> list[Step]:
    steps: list[Step] = []
    command, shown, line = "", [""], 0
    for number, text in enumerate(block.text.splitlines(), block.line + 1):
        if text.startswith(PROMPT):
            if command:
                steps.append(Step(command, _unwrapped(shown), line))
            command, shown, line = text.removeprefix(PROMPT), [], number
        elif command.endswith("\\") and not shown:
            command = f"{command[:-1].rstrip()} {text.strip()}"
        else:
            shown.append(text)
    return [*steps, Step(command, _unwrapped(shown), line)]


def _unwrapped(lines: list[str]) -> str:
    return re.sub(r"\n +", "", "\n".join(lines)).strip("\n")


@dataclass
class Likeness:
    """What the document calls things, and what they are called this time."""

    names: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, str] = field(default_factory=dict)  # of events

    def real(self, text: str) -> str:
        """The text with what the document calls things replaced by what they are called here."""
        for shown in sorted(self.names, key=len, reverse=True):
            text = text.replace(shown, self.names[shown])
        return _READ_AFTER.sub(lambda found: found[1] + self.numbers.get(found[2], found[2]), text)

    def is_alike(self, shown: str, actual: str) -> bool:
        """Whether the output is what the document shows. What is named there for the first time is remembered."""
        pattern, new, end = [], list[tuple[dict[str, str], str]](), 0
        for found in _VOLATILE.finditer(shown):
            pattern.append(re.escape(self.real(shown[end : found.start()])))
            end = found.end()
            kind, text = str(found.lastgroup), found[0]
            known = self.numbers if kind == "number" else self.names
            if text in known:
                pattern.append(re.escape(known[text]))
            elif (known, text) in new:
                pattern.append(f"(?P=new{new.index((known, text))})")
            elif kind in ("id", "number"):
                pattern.append(f"(?P<new{len(new)}>{_FORMS[kind]})")
                new.append((known, text))
            else:
                pattern.append(_FORMS[kind])
        pattern.append(re.escape(self.real(shown[end:])))
        match = re.fullmatch("".join(pattern), actual, re.DOTALL)
        if match is not None:
            for index, (known, text) in enumerate(new):
                known[text] = match[f"new{index}"]
        return match is not None


@dataclass
class Curl:
    """A command line of curl, as far as the documents need it."""

    url: str = ""
    method: str = ""
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    shows_head: bool = False


def parse_curl(words: list[str]) -> Curl:
    """Read curl's arguments. Raises ValueError for one that is not known here."""
    curl = Curl()
    rest = iter(words[1:])
    for word in rest:
        match word:
            case "-X":
                curl.method = next(rest)
            case "-d":
                curl.body = next(rest).encode()
            case "-H":
                name, _, value = next(rest).partition(":")
                curl.headers[name] = value.strip()
            case "-s" | "-sN" | "-si":
                curl.shows_head = curl.shows_head or "i" in word
            case _ if word.startswith("-"):
                raise ValueError(f"curl {word} is not known to the transcripts")
            case _:
                curl.url = word
    curl.method = curl.method or ("GET" if curl.body is None else "POST")
    return curl


def expand(command: str, variables: Mapping[str, str]) -> list[str]:
    """The words of a command line, its variables replaced as a shell replaces them."""

    def value(found: re.Match[str]) -> str:
        return found[0] if found[1] is None else variables[found[1]]

    return shlex.split(re.sub(r"'[^']*'|\$(\w+)", value, command))
