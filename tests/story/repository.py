"""The repository that the story is about: a small package with a mistake in it, and another one behind that.

`parse_amount` takes "1,234.50" for 1. As long as it does, no amount is ever too wide for the column of a report; once
it is mended, one is.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

AMOUNTS = '''\
"""Amounts of money, as people write them."""


def parse_amount(text: str) -> float:
    """The amount in a text; there may be commas between the thousands."""
    return float(text.strip().split(",")[0])
'''
AMOUNTS_MENDED = AMOUNTS.replace('.split(",")[0]', '.replace(",", "")')

REPORT = '''\
"""Reports: a line for each entry, and the total."""

from tally.amounts import parse_amount

WIDTH = 6


def line(name: str, amount: float) -> str:
    """One line, in columns."""
    shown = f"{amount:,.2f}"
    if len(shown) > WIDTH:
        raise ValueError(f"{shown} does not fit into a column of {WIDTH}")
    return f"{name:<12}{shown:>{WIDTH}}"


def report(entries: dict[str, str]) -> str:
    """The whole report."""
    amounts = {name: parse_amount(text) for name, text in entries.items()}
    return "\\n".join(line(name, amount) for name, amount in (amounts | {"total": sum(amounts.values())}).items())
'''
REPORT_MENDED = REPORT.replace("WIDTH = 6", "WIDTH = 12")

TEST_AMOUNTS = """\
import unittest

from tally.amounts import parse_amount


class Amounts(unittest.TestCase):
    def test_plain(self):
        self.assertEqual(parse_amount(" 12.50 "), 12.5)

    def test_thousands(self):
        self.assertEqual(parse_amount("1,234.50"), 1234.5)
"""

TEST_REPORT = """\
import unittest

from tally.report import report


class Report(unittest.TestCase):
    def test_small(self):
        self.assertIn("3.50", report({"tea": "1.50", "cake": "2.00"}).splitlines()[-1])

    def test_large(self):
        self.assertIn("1,300.50", report({"rent": "1,234.50", "tea": "66.00"}).splitlines()[-1])
"""

CHANGELOG = """\
# Changes

## Unreleased

- Reports end with a total.
"""

# What a person's scripts do, without meaning any harm: this one does not let itself be interrupted, and what it starts
# forks away. A test may hold it at its gate.
CHECK = """\
# All that is checked before a change goes out. It is not to be interrupted half-way.
trap '' TERM INT HUP
python3 -I -S tools/preview.py
if [ -n "$STORY_GATE" ]; then echo up > "$STORY_GATE/up"; read -r _ < "$STORY_GATE/go"; fi
python3 -m unittest -q && echo "check: all is well"
"""

PREVIEW = '''\
"""Shows reports on a free port of this machine, in the background: whoever starts it gets the prompt back."""

import os
import socket

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with socket.create_server(("127.0.0.1", 0)) as server:
            while True:
                server.accept()[0].close()
'''

FILES: Mapping[str, str] = {
    ".gitignore": "__pycache__/\n",
    "CHANGELOG.md": CHANGELOG,
    "check.sh": CHECK,
    "tally/__init__.py": '"""Adds up what was spent."""\n',
    "tally/amounts.py": AMOUNTS,
    "tally/report.py": REPORT,
    "tests/__init__.py": "",
    "tests/test_amounts.py": TEST_AMOUNTS,
    "tests/test_report.py": TEST_REPORT,
    "tools/preview.py": PREVIEW,
}

GIT_SECONDS = 60.0
NOBODYS = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


class Repository:
    """The directory, and what can be seen of it from outside."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def git(self, *arguments: str) -> str:
        """What git says."""
        return self._run("git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org", *arguments).stdout

    def tests(self) -> subprocess.CompletedProcess[str]:
        """The tests, run once; the caller looks at how they ended."""
        return self._run(sys.executable, "-B", "-m", "unittest", "-v", is_checked=False)

    def restore(self) -> None:
        """Put the files back as they were in the beginning, and take away the texts that came since."""
        for path in self.root.glob("*.md"):
            path.unlink()
        for name, content in FILES.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, "utf-8")

    def read(self, name: str) -> str:
        """What is in a file; empty if it is not there."""
        path = self.root / name
        return path.read_text("utf-8") if path.exists() else ""

    def _run(self, *command: str, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, check=is_checked, capture_output=True, text=True, timeout=GIT_SECONDS,
            env={**os.environ, **NOBODYS},
        )  # fmt: skip


def make_repository(root: Path) -> Repository:
    """Write the files, and commit them."""
    repository = Repository(root)
    repository.restore()
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.git("add", "--all")
    repository.git("commit", "--quiet", "--message=A tally of what was spent")
    return repository


def environment(**more: str) -> dict[str, str]:
    """What commands need: this Python first, so that `python3` is known to be one."""
    return {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **NOBODYS, **more}
