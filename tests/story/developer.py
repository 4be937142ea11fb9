"""A sensible developer, by rules: looks at the conversation so far, and knows what to do next.

Nothing here knows how the story goes. What is not known is looked up, what was tried and may not have worked is looked
at again, and a test that fails is read for what it says. So the developer also goes on after a cancel, wherever it was.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tests.story.conversation import Call, Conversation

TESTS = "python3 -B -m unittest"
CHECK = "bash check.sh"
CHANGELOG = "CHANGELOG.md"
ENTRY = "- Amounts with commas between the thousands are read as a whole, and fit into a report."
NOTES = "NOTES.md"
COMMIT = f"git add {NOTES} && git commit --quiet --message 'Notes on the functions'"

NUMBERED = re.compile(r"^ *\d+\|", re.MULTILINE)
FOUND_IN = re.compile(r"^(\S+\.py):$", re.MULTILINE)
FRAME = re.compile(r'File "(?:[^"]*/)?((?:tally|tests)/[^"]+)", line \d+')
TOO_NARROW = re.compile(r"(\S+) does not fit into a column of (\d+)")
DEFINED = re.compile(r"def (\w+)\((.*)\)")

Wanted = tuple[str, Mapping[str, Any]]  # a tool, and its arguments


class Move(msgspec.Struct, frozen=True):
    """What the developer does: says something, and calls tools; without calls, it is done."""

    says: str
    calls: tuple[Wanted, ...] = ()
    thinks: str = ""


def decide(seen: Conversation) -> Move:
    """The next move."""
    wanted = "\n".join(seen.said)
    rules = write_notes(seen) if NOTES in wanted else mend(seen, wanted)
    return next(move for move in rules if move is not None)


# -- mending -----------------------------------------------------------------------------------------------------------


def mend(seen: Conversation, wanted: str) -> Iterator[Move | None]:
    """See it fail, find it, mend it, and see it work."""
    first = seen.last("bash", "Ran ", command=TESTS)
    if first is None:
        yield Move("First I want to see it fail.", (run(TESTS, "Run the tests"),), thinks="A mistake, it seems.")
        return
    name = re.findall(r"`(\w+)`", wanted)[0]
    place = seen.last("grep", f"def {name}")
    if place is None:
        yield Move(f"It fails. Where is {name}?", (("grep", {"pattern": f"def {name}\\b", "include": "*.py"}),))
        return
    path = FOUND_IN.findall(place.result)[0]
    yield mend_parsing(seen, path)
    tests = seen.last("bash", "Ran ", command=TESTS)
    if tests is None or tests.number < last_change(seen):
        yield Move("Does it work now?", (run(TESTS, "Run the tests"),))
        return
    if "FAILED" in tests.result:
        yield mend_failure(seen, tests)
    check = seen.last("bash", "check: all is well", command=CHECK)
    if check is None or check.number < tests.number:
        yield Move("The tests are green. Now all that is checked here.", (run(CHECK, "Check everything"),))
    if "changelog" in wanted.lower():
        yield add_entry(seen)
    yield from show(seen, path)


def mend_parsing(seen: Conversation, path: str) -> Move | None:
    """Mend the line that takes what is before the first comma, if it is still there."""
    if seen.last("edit", "Edited", file_path=path) is not None:
        return None
    text = fresh(seen, path)
    if text is None:
        failing = [name for name in frames(seen.last("bash", "Ran ", command=TESTS)) if name.startswith("tests/")]
        views = tuple(view(name) for name in dict.fromkeys([path, *failing]))
        return Move(f"It is in {path}. I read it, beside what tests it.", views)
    broken = next((line.strip() for line in text.splitlines() if '.split(",")[0]' in line), None)
    if broken is None:
        return None
    mended = broken.replace('.split(",")[0]', '.replace(",", "")')
    return Move("It drops all that comes after the first comma.", (edit(path, broken, mended),))


def mend_failure(seen: Conversation, tests: Call) -> Move:
    """Mend what the failing test names."""
    narrow = TOO_NARROW.search(tests.result)
    blamed = [name for name in frames(tests) if not name.startswith("tests/")]
    if narrow is None or not blamed:
        return Move(f"I do not understand this:\n{tests.result}")
    path, amount, width = blamed[-1], narrow[1], narrow[2]
    text = fresh(seen, path)
    if text is None:
        return Move(f"That was hidden until now: {narrow[0]}. I read {path}.", (view(path),))
    old = f"WIDTH = {width}"
    if old not in text:
        return Move("That is mended already. Once more.", (run(TESTS, "Run the tests"),))
    return Move(f"{amount} needs a wider column.", (edit(path, old, f"WIDTH = {2 * int(width)}"),))


def add_entry(seen: Conversation) -> Move | None:
    """Add what was done to the list of changes."""
    if seen.last("edit", "Edited", file_path=CHANGELOG) is not None:
        return None
    text = fresh(seen, CHANGELOG)
    if text is None:
        return Move("I was asked for a line in the changelog, too.", (view(CHANGELOG),))
    if ENTRY in text:
        return None
    heading = "## Unreleased\n\n"
    return Move("It goes below the heading.", (edit(CHANGELOG, heading, f"{heading}{ENTRY}\n"),))


def show(seen: Conversation, path: str) -> Iterator[Move]:
    """Look at the whole change, and say what it is."""
    diff = seen.last("bash", "changed", command="git diff --stat")
    if diff is None or diff.number < seen.last_try("edit"):
        yield Move("This is what I have changed:", (run("git diff --stat", "Show the change"),))
    names = re.findall(r"^ (\S+) +\|", diff.result if diff else "", re.MULTILINE)
    yield Move(f"Done. {path} dropped what followed a comma; the tests pass. Changed: {', '.join(names)}.")


# -- notes -------------------------------------------------------------------------------------------------------------


def write_notes(seen: Conversation) -> Iterator[Move]:
    """List the functions in a file, and commit it."""
    found = seen.last("grep", "Found ")
    if found is None:
        yield Move("I look for functions.", (("grep", {"pattern": "^def ", "path": "tally"}),))
        return
    lines = sorted(f"- `{name}({parameters})`" for name, parameters in DEFINED.findall(found.result))
    content = "\n".join(["# Functions", "", *lines, ""])
    tried, looked = seen.last_try("write", file_path=NOTES), seen.last("view", "file", file_path=NOTES)
    if seen.last("write", "(+", file_path=NOTES) is None:
        if tried >= 0 and (looked is None or looked.number < tried):
            yield Move("Are they written or not?", (view(NOTES),))
        if looked is None or content.strip() not in NUMBERED.sub("", looked.result):
            yield Move(f"There are {len(lines)}.", (("write", {"file_path": NOTES, "content": content}),))
    if not any(seen.last("bash", sign, command=COMMIT) for sign in ("denied", "<cwd>")):
        yield Move("I commit that.", (run(COMMIT, "Commit the notes"),))
    yield Move("Done.")


# -- what moves are made of --------------------------------------------------------------------------------------------


def fresh(seen: Conversation, path: str) -> str | None:
    """The text of a file as it was last read, unless it was tried to change it since."""
    read = seen.last("view", "<file>", file_path=path)
    if read is None or read.number < seen.last_try("edit", file_path=path):
        return None
    return NUMBERED.sub("", read.result)


def last_change(seen: Conversation) -> int:
    """The number of the last call that was to change what is tested; -1 if there was none."""
    changes = [
        call.number
        for call in seen.calls
        if call.name == "edit" and call.arguments.get("file_path", CHANGELOG) != CHANGELOG
    ]
    return max(changes, default=-1)


def frames(tests: Call | None) -> list[str]:
    """The files in the tracebacks of a test run, in order."""
    return FRAME.findall(tests.result) if tests is not None else []


def run(command: str, description: str) -> Wanted:
    """A command."""
    return "bash", {"command": command, "description": description}


def view(path: str) -> Wanted:
    """A look at a file."""
    return "view", {"file_path": path}


def edit(path: str, old: str, new: str) -> Wanted:
    """A replacement."""
    return "edit", {"file_path": path, "old_string": old, "new_string": new}
