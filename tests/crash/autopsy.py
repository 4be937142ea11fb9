"""What a dead server left in its store, and what the next ones have to make of it (R25)."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from engine.records.ids import RunId, WorkspaceId
from engine.records.message import Message, Reasoning, Text
from engine.records.run import OnCrash, RunRecord, RunState
from engine.store.open import DATABASE
from engine.store.protocol import Store
from engine.store.sqlite import open_sqlite_store
from tests.crash.ledger import Ledger, Violation
from tests.crash.scripts import FAILURE
from tests.crash.traces import StoredRequest, read_requests

PAGE = 500  # runs whose messages are read together


class Found(msgspec.Struct, frozen=True):
    """The runs of the workspace, and the messages that each had written."""

    runs: Mapping[RunId, RunRecord]
    messages: Mapping[RunId, list[Message]]
    latest: int  # the number of the last event
    requests: Mapping[str, StoredRequest]

    @property
    def unfinished(self) -> int:
        """Runs that the next server has to take up."""
        return sum(not run.state.is_terminal for run in self.runs.values())


async def examine(data_dir: Path, scratch: Path, workspace_id: WorkspaceId) -> Found:
    """Look into a copy of the store: opening it would do what the next server has to do."""
    copy_database(data_dir, scratch)
    async with open_sqlite_store(scratch, inline=True) as store:
        return await look(store, workspace_id, read_requests(scratch))


def copy_database(data_dir: Path, scratch: Path) -> None:
    """The files of the database, as they are, but for the one that only a running server needs."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-journal"):
        if (data_dir / name).exists():
            shutil.copyfile(data_dir / name, scratch / name)


async def look(store: Store, workspace_id: WorkspaceId, requests: Mapping[str, StoredRequest]) -> Found:
    """What is in a store."""
    runs = {run.id: run for run in await store.runs(workspace_id, limit=1_000_000)}
    messages: dict[RunId, list[Message]] = {run_id: [] for run_id in runs}
    ids = list(runs)
    for at in range(0, len(ids), PAGE):
        messages |= await store.messages_of_runs(workspace_id, ids[at : at + PAGE])
    return Found(runs, messages, (await store.event_range(workspace_id)).latest, requests)


def check_told(found: Found, ledger: Ledger) -> None:
    """Everything that was told is there, at once after the crash (R02, R11, R27)."""
    for run_id, sent in ledger.acknowledged.items():
        run = found.runs.get(RunId(run_id))
        if run is None:
            raise Violation(f"run {run_id} was accepted, and is not stored (R02)")
        if (run.seq, run.session_id, run.prompt.text) != (sent.seq, sent.session_id, sent.text):
            raise Violation(f"run {run_id} is not the one that was accepted: {run} (R02)")
    for run_id in ledger.named:
        run = found.runs[RunId(run_id)]
        if run.cancel_requested_at_us is None:
            raise Violation(f"run {run_id} was named by a cancel, and no cancel is stored (R11)")
    if max(ledger.events, default=0) > found.latest:
        raise Violation(f"event {max(ledger.events)} was published, and the last stored one is {found.latest} (R27)")


def check_prompts(found: Found, ledger: Ledger) -> None:
    """Each prompt that was accepted has one run, a refused one none, and there is no other (R03, R06)."""
    texts = [run.prompt.text for run in found.runs.values()]
    expected = sorted(sent.text for sent in ledger.acknowledged.values())
    if sorted(texts) != expected:
        extra = sorted(set(texts) - set(expected)) or sorted({text for text in texts if texts.count(text) > 1})
        raise Violation(f"prompts and runs do not match: {len(texts)} runs, {len(expected)} prompts; {extra[:3]} (R06)")


def check_failures(found: Found) -> None:
    """A run fails if it was told to, and only then: not of a crash, and not of a fault of ours."""
    for run in found.runs.values():
        if run.state is RunState.FAILED and not (run.error and run.error.title == FAILURE):
            raise Violation(f"run {run.id} has failed: {run}")


def check_taken_up(before: Found, after: Found, *, is_at_rest: bool, max_attempts: int) -> None:
    """What became of each run that a crash found unfinished, as the next crash found it, or after the last server has
    ended everything: then it is at rest (R25)."""
    for run_id, run in before.runs.items():
        now, old, new = after.runs[run_id], before.messages[run_id], after.messages[run_id]
        if run.state.is_terminal:
            if (now, new) != (run, old):
                raise Violation(f"run {run_id} had ended, and changed: {run} became {now} (R18)")
            continue
        if now.state.is_terminal or is_at_rest:
            check_ending(run, before, now, max_attempts=max_attempts)
        if run.steered_into is None:
            if now.state.is_terminal:
                check_attempts(run, now, is_again=begins_again(run, before, max_attempts))
            check_kept(run, old, new)


def check_ending(run: RunRecord, before: Found, now: RunRecord, *, max_attempts: int) -> None:
    """It has ended as it had to (R25)."""
    is_begun = run.state is RunState.ACTIVE and not begins_again(run, before, max_attempts)
    if run.cancel_requested_at_us is not None:
        wanted = {RunState.CANCELED}
    elif is_begun:
        wanted = {RunState.INTERRUPTED}
    elif was_canceled_since(now, before):
        wanted = {RunState.COMPLETED, RunState.FAILED, RunState.CANCELED}
    else:
        wanted = {RunState.COMPLETED, RunState.FAILED}
    if now.state not in wanted:
        raise Violation(f"run {run.id} was {run.state} at the crash, and is {now}; not {sorted(wanted)} (R25)")
    if now.state is RunState.INTERRUPTED and not (now.error and now.error.details):
        raise Violation(f"run {run.id} was interrupted without an explanation (R25)")


def begins_again(run: RunRecord, crash: Found, max_attempts: int) -> bool:
    """Whether a run that was active begins again: as it was told to, or because the turn that it had joined was
    canceled alone (R12)."""
    if run.steered_into is None:
        return run.prompt.on_crash is OnCrash.RETRY and run.attempt < max_attempts
    is_host_canceled = crash.runs[run.steered_into].cancel_requested_at_us is not None
    return is_host_canceled or run.prompt.on_crash is OnCrash.RETRY


def was_canceled_since(run: RunRecord, crash: Found) -> bool:
    """Whether a client canceled it after the crash, or a prompt interrupted it that was sent after the crash, or sent
    again."""
    interrupted_by = (run.cancel_reason or "").removeprefix("interrupted by run ")
    return run.cancel_requested_at_us is not None and interrupted_by not in crash.runs


def check_attempts(run: RunRecord, now: RunRecord, *, is_again: bool) -> None:
    """Only what was active and is to be retried begins again, and that does unless it was canceled."""
    is_retry = run.state is RunState.ACTIVE and is_again
    if is_retry and now.attempt <= run.attempt and now.cancel_requested_at_us is None:
        raise Violation(f"run {run.id} was to be retried, and has no other attempt: {now} (R25)")
    if run.prompt.on_crash is OnCrash.INTERRUPT and now.attempt != run.attempt:
        raise Violation(f"run {run.id} was not to be retried: {now} (R25)")


def check_kept(run: RunRecord, old: list[Message], new: list[Message]) -> None:
    """What had been written is still there, word for word."""
    by_id = {message.id: message for message in new}
    for message in old:
        now = by_id.get(message.id)
        if now is None or said(now) != said(message):
            raise Violation(f"run {run.id} had said {message}, and now {now} (R25)")


def said(message: Message) -> list[str]:
    """The words of a message."""
    words = [
        part.text if isinstance(part, Text) else part.thinking
        for part in message.parts
        if isinstance(part, Text | Reasoning)
    ]
    return [*words, *(call.id for call in message.tool_calls), *(result.content for result in message.tool_results)]
