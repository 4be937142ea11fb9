"""What the tools of dead servers may have left: files that are whole, and requests whose answer is known."""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from engine.records.ids import RunId
from engine.records.message import Message
from engine.records.run import IfBusy, RunRecord, RunState
from engine.store.open import DATABASE
from tests.crash.ledger import Ledger, Violation
from tests.crash.scripts import FILES, VERSIONS, content

TEMPORARY = ".countermand-"  # the beginning of a file's name while it is written
DONE = re.compile(rf"(Created|Wrote) (?:\S*/)?{FILES}/(\S+)")


class StoredRequest(msgspec.Struct, frozen=True):
    """What a tool asked a person, and what became of it; None: it waits."""

    run_id: str
    decision: str | None


def read_requests(data_dir: Path) -> dict[str, StoredRequest]:
    """Every request of a store that nobody writes to, by its id."""
    with sqlite3.connect(data_dir / DATABASE) as db:
        rows = db.execute("SELECT id, run_id, decision FROM requests").fetchall()
    db.close()
    return {id: StoredRequest(run_id, decision) for id, run_id, decision in rows}


def check_requests(requests: Mapping[str, StoredRequest], runs: Mapping[RunId, RunRecord], ledger: Ledger) -> None:
    """What waits is asked by a run that is going on (R10); what an answer was told to have decided, it has (R31)."""
    for request_id, request in requests.items():
        run = runs[RunId(request.run_id)]
        if request.decision is None and run.state is not RunState.ACTIVE:
            raise Violation(f"request {request_id} waits, and its run is {run} (R10)")
    for request_id, decision in ledger.decided.items():
        answered = requests.get(request_id)
        if answered is None or answered.decision != decision:
            raise Violation(f"request {request_id} was answered {decision}, and is stored as {answered} (R31)")


def check_files(workspace: Path, messages: Mapping[RunId, list[Message]], runs: Mapping[RunId, RunRecord]) -> None:
    """Each file is one version of itself or the other, whole; and if a write is on record as done, it was."""
    found = {path.name: path.read_text() for path in (workspace / FILES).iterdir()}
    for name, text in found.items():
        if not name.startswith(TEMPORARY) and text not in {content(name, version) for version in VERSIONS}:
            raise Violation(f"file {name} is neither its old version nor its new one: {text!r}")
    for run_id, written in messages.items():
        # Another attempt, or a turn of its own after that of its host, writes the old version again.
        is_only_one = runs[run_id].attempt == 1 and runs[run_id].prompt.if_busy is not IfBusy.STEER
        for done, name in (each for message in written for each in writes_done(message)):
            if name not in found:
                raise Violation(f"run {run_id} has written file {name}, and it is not there")
            is_its_own = name.partition(".")[0] == runs[run_id].prompt.text.split()[0]  # not that of one it took in
            if done == "Wrote" and is_only_one and is_its_own and found[name] != content(name, VERSIONS[1]):
                raise Violation(f"run {run_id} has replaced file {name}, and it is {found[name]!r}")


def writes_done(message: Message) -> Iterator[tuple[str, str]]:
    """What a message tells of files that were written: how, and which."""
    for result in message.tool_results:
        told = DONE.match(result.content)
        if told and result.name == "write" and not result.is_error:
            yield told[1], told[2]
