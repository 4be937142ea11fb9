"""What every benchmark shares: its options, its numbers, its table, and what it says of where it ran.

A benchmark is a module with a docstring, `add_arguments(parser)` and `async measure(options, report)`. Absolute numbers
move with the machine and with what else it does: **ratios within one run** are the result, and the tables say them.
"""

import argparse
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import trio

ROOT = Path(__file__).resolve().parents[1]
Cell = str | int | float | None


@dataclass
class Table:
    """Rows under a title."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]] = field(default_factory=list)

    def add(self, *cells: Cell) -> None:
        """A row."""
        assert len(cells) == len(self.columns), (cells, self.columns)
        self.rows.append(cells)

    def __str__(self) -> str:
        lines = [self.columns, *(tuple(map(_written, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [self._line(line, widths) for line in lines]
        return "\n".join([self.title, text[0], "-" * len(text[0]), *text[1:]])

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        first, *others = (
            cell.ljust(width) if not at else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join((first, *others)).rstrip()


@dataclass(frozen=True)
class Check:
    """Something that must hold, and whether it did."""

    what: str
    holds: bool
    found: str = ""


@dataclass
class Report:
    """What a benchmark found. It fails if a check does not hold; a table alone cannot fail."""

    name: str
    question: str
    settings: dict[str, Any]
    tables: list[Table] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether every check does."""
        return all(check.holds for check in self.checks)

    def table(self, title: str, *columns: str) -> Table:
        """Begin a table."""
        self.tables.append(Table(title, columns))
        return self.tables[-1]

    def check(self, what: str, holds: bool, found: object = "") -> None:
        """Say whether something that must hold does."""
        self.checks.append(Check(what, holds, str(found)))

    def check_none(self, what: str, found: Iterable[object]) -> None:
        """Nothing of this kind may have been found; the first few of what was are shown."""
        listed = list(found)
        shown = ", ".join(map(str, listed[:5])) + (", …" if len(listed) > 5 else "")
        self.check(what, not listed, f"{len(listed)}: {shown}" if listed else "0")

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        head = f"{self.name}: {self.question}\n{settings}\n" if settings else f"{self.name}: {self.question}\n"
        checks = "\n".join(
            f"{'ok  ' if check.holds else 'FAIL'} {check.what}{f': {check.found}' if check.found else ''}"
            for check in self.checks
        )
        return "\n\n".join(part for part in (head.rstrip(), *map(str, self.tables), checks) if part)


class Bell:
    """Wakes whoever waits for something to become true."""

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Something changed."""
        self._rung.set()
        self._rung = trio.Event()

    async def wait_until(self, condition: Callable[[], object], within_s: float) -> bool:
        """Wait until it is true, but not for ever; says whether it is."""
        with trio.move_on_after(within_s):
            await trio.lowlevel.checkpoint()
            while not condition():
                await self._rung.wait()
        return bool(condition())


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that this share of all is not above; NaN of none."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def ms(seconds: float) -> float:
    """Seconds as milliseconds, for a table."""
    return round(seconds * 1000, 2) if math.isfinite(seconds) else math.nan


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """p50, p99 and the largest, in milliseconds."""
    return ms(percentile(values, 0.5)), ms(percentile(values, 0.99)), ms(max(values, default=math.nan))


def ratio(part: float, whole: float) -> float:
    """One number as a share of another."""
    return round(part / whole, 2) if whole else math.nan


def _written(cell: Cell) -> str:
    match cell:
        case None:
            return "–"
        case float() if math.isnan(cell):
            return "–"
        case float():
            return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.2f}"
        case int():
            return f"{cell:,}"
        case _:
            return cell


def where() -> dict[str, Any]:
    """Where this ran: enough to tell two runs apart, nothing that names a machine."""
    return {"commit": commit(), "cpus": os.cpu_count(), "python": platform.python_version()}


def commit() -> str:
    """The checkout's commit, with a `+` if something in it is changed."""
    git = ("git", "-C", str(ROOT))
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return found.stdout.strip() + ("+" if changed.stdout.strip() else "") or "unknown"


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every benchmark has."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")


def run(module: ModuleType, arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and print what it found; the exit code."""
    question, _, more = (module.__doc__ or "").strip().partition("\n")
    name = module.__name__.rpartition(".")[2]
    if name == "__main__":
        name = Path(str(module.__file__)).stem
    parser = argparse.ArgumentParser(
        prog=f"python -m bench.{name}", description=f"{question}\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    module.add_arguments(parser)
    add_common_arguments(parser)
    options = parser.parse_args(arguments)
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    report = Report(name, question, settings)
    trio.run(module.measure, options, report)
    if options.json:
        print(msgspec.json.encode({**where(), **asdict(report), "holds": report.holds}).decode())
    else:
        place = where()
        print(f"{report}\n\ncommit {place['commit']}, {place['cpus']} CPUs, Python {place['python']}\n", flush=True)
    return 0 if report.holds else 1


def run_script(name: str) -> None:
    """Run the benchmark that was started as a script, and leave with its exit code."""
    sys.exit(run(sys.modules[name]))
