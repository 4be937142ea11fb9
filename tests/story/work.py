"""Whether the work was done: the repository after the story, and what was told, against what was asked for."""

import re
from collections.abc import Iterator

from engine.records.run import RunState
from tests.story import developer
from tests.story.repository import AMOUNTS_MENDED, CHANGELOG, REPORT_MENDED, Repository
from tests.story.telling import Told

FUNCTIONS = ["line(name: str, amount: float)", "parse_amount(text: str)", "report(entries: dict[str, str])"]
NOTES_WRITTEN = "\n".join(["# Functions", "", *(f"- `{function}`" for function in FUNCTIONS), ""])
CHANGELOG_WRITTEN = CHANGELOG.replace("## Unreleased\n\n", f"## Unreleased\n\n{developer.ENTRY}\n")
MENDED = {
    "tally/amounts.py": AMOUNTS_MENDED,
    "tally/report.py": REPORT_MENDED,
    developer.CHANGELOG: CHANGELOG_WRITTEN,
}


def missing(repository: Repository, told: Told) -> Iterator[str]:
    """What is not as it should be, in words."""
    yield from missing_in(repository)
    for name, run in (("mending", told.mending), ("steered", told.steered), ("notes", told.notes)):
        if run.state is not RunState.COMPLETED:
            yield f"the run {name} ended {run.state}: {run.error}"
    if told.steered.steered_into != told.mending.id:
        yield f"what Ann said in between went into {told.steered.steered_into}, and not into {told.mending.id}"
    if not is_at_a_time(told):
        yield "the two sessions did not work at the same time"
    results = [line for who, kind, line in told.lines if (who, kind) == ("mending", "result") and "Ran " in line]
    if not (len(results) >= 3 and "failures=2" in results[0] and "does not fit" in results[1] and "OK" in results[2]):
        yield f"the tests did not go from red to green: {results}"
    if {answer for _, _, answer in told.answers} != {"allow", "allow_session", "deny"}:
        yield f"not every kind of answer was given: {told.answers}"


def missing_in(repository: Repository, *, is_mended: bool = True) -> Iterator[str]:
    """What is not as it should be in the files, once the notes are written, and the mistake is mended or not."""
    wanted = {developer.NOTES: NOTES_WRITTEN, **(MENDED if is_mended else {})}
    for name, content in wanted.items():
        if repository.read(name) != content:
            yield f"{name} holds:\n{repository.read(name)}"
    status = set(re.findall(r"^.. (.*)$", repository.git("status", "--short"), re.MULTILINE))
    if status != set(wanted):
        yield f"changed are {sorted(status)}"


def is_at_a_time(told: Told) -> bool:
    """Whether both runs were active at one moment."""
    mending, notes = told.mending, told.notes
    return (mending.started_at or "") < (notes.ended_at or "") and (notes.started_at or "") < (mending.ended_at or "")
