"""What prompts tell the offline model to do."""

import random
from collections.abc import Callable

import msgspec

Actions = list[dict[str, object]]  # one step

GATE = "gate"  # in the workspace: a FIFO that nobody writes to; for the last server a file
FILES = "files"  # the directory of the files that are written
LINES = 40
VERSIONS = ("old", "new")
FAILURE = "No"  # the title of a failure that was asked for
RUN = "CRASH_RUN"  # a variable of each command: the number of its prompt


def speak(draw: random.Random) -> str:
    """Some words, now and then a thought, a tool call with a second step, a failure."""
    steps = [_words(draw, step) for step in range(draw.choice([1, 1, 1, 2, 3]))]
    for actions in steps[:-1]:
        actions.append({"tool": "wait", "input": {"seconds": 0.2 * draw.random()}})
    return msgspec.json.encode(steps).decode()


def work(draw: random.Random, number: int) -> str:
    """Something with a tool: a command, a file that is written twice, a question. Most of it takes as long as somebody
    lets it wait, or as the server lives."""
    steps = [*draw.choice(KINDS)(draw, number), _words(draw, 9)]
    return msgspec.json.encode(steps).decode()


def run_command(draw: random.Random, number: int) -> list[Actions]:
    """A command that does not end by itself, with children of all kinds: one in a session of its own, one whose parent
    has gone, one that ignores the polite end. As often it goes on in the background."""
    children = ["(setsid sleep 300 &)", "sleep 300 &", "(trap '' TERM HUP; sleep 300) &"]
    chosen = " ".join(draw.sample(children, k=draw.choice([0, 1, 2])))
    command = f"export {RUN}={number}.; {chosen} cat {GATE}"
    is_background = draw.random() < 0.3
    call = {"description": "Wait", "command": command, "run_in_background": is_background}
    return [[{"text": "a command ", "repeat": 2, "every": 0.02}, {"tool": "bash", "input": call}]]


def write_file(draw: random.Random, number: int) -> list[Actions]:
    """A file that is made, and then replaced."""
    name = file_name(number)
    writes = ({"file_path": f"{FILES}/{name}", "content": content(name, version)} for version in VERSIONS)
    return [[{"text": f"file {name} "}, {"tool": "write", "input": given}] for given in writes]


def ask(draw: random.Random, number: int) -> list[Actions]:
    """A question, with something said before."""
    question = {"type": "yes_no", "question": f"{number}?", "description": "It matters."}
    return [[{"text": "hm, "}, {"tool": "question", "input": {"questions": [question]}}]]


KINDS: list[Callable[[random.Random, int], list[Actions]]] = [run_command, run_command, write_file, write_file, ask]


def file_name(number: int) -> str:
    """Of the file that this prompt writes."""
    return f"{number}.txt"


def content(name: str, version: str) -> str:
    """What the file holds, in one version or the other."""
    return "".join(f"{name} {version} {line}\n" for line in range(LINES if version == VERSIONS[0] else 2 * LINES))


def _words(draw: random.Random, step: int) -> Actions:
    actions: Actions = []
    if draw.random() < 0.3:
        actions.append({"think": "hm, ", "repeat": draw.randint(1, 3), "every": 0.03})
    actions.append({"text": f"word {step} ", "repeat": draw.randint(1, 8), "every": 0.1 * draw.random()})
    if draw.random() < 0.03:
        actions.append({"fail": "bad_request", "title": FAILURE})
    return actions
