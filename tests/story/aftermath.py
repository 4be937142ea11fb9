"""What must hold after an attempt at the work, wherever it was canceled (R07, R10, R18, R19, R27, R31)."""

from collections import defaultdict

import trio

from engine.errors import PermissionDenied
from engine.records.event import Event, MessageCreated, MessageUpdated
from engine.records.message import Message
from engine.records.run import RunRecord, RunState
from engine.runs.outcome import canceled, why_no_result
from tests.doubles import record
from tests.doubles.file_tools import leftovers
from tests.doubles.invariants import ALL
from tests.story import developer
from tests.story.attempt import Attempt
from tests.story.office import Office
from tests.story.repository import FILES
from tests.story.work import MENDED, NOTES_WRITTEN

GONE_S = 10.0  # how long the model's server may take to see that nobody reads any more
CANCELED = why_no_result(canceled(""))
DENIED = str(PermissionDenied(by_person=True))
NOT_THERE = f"There is no file {developer.NOTES}."
CONTENTS = {
    name: {FILES.get(name, ""), content} for name, content in {developer.NOTES: NOTES_WRITTEN, **MENDED}.items()
}


class Aftermath:
    """Looks at what each attempt has left. What an earlier one left was looked at then."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._seen = 0  # the number of the last event that was looked at

    async def check(self, made: Attempt) -> None:
        """Raise AssertionError unless everything holds."""
        office = self._office
        assert not made.left, f"processes outlived their run: {made.left}"
        check_files(office)
        await self._check_states(made)
        await self._check_record(made)
        with trio.fail_after(GONE_S):
            while office.model.requests:  # each was answered, or nobody reads its answer any more
                request = office.model.requests.pop()
                await first_of(request.gone, request.answered)

    async def _check_states(self, made: Attempt) -> None:
        """What was covered is canceled, what was not is not, and nobody is asked in vain."""
        workspace = self._office.workspace
        for run_id in made.covered:
            run = await workspace.run(run_id)
            assert run.state is RunState.CANCELED, f"{run_id} was covered by a cancel, and is {run.state}: {run.error}"
        if made.run_id not in made.covered:
            state = (await workspace.run(made.run_id)).state
            assert state is RunState.COMPLETED, f"{made.run_id} was not canceled, and is {state}"
        other = await workspace.run(self._office.notes_run)
        assert other.state is RunState.ACTIVE, f"the run beside it is {other.state}"
        waiting = [request for request in workspace.permissions.waiting() if request.run_id != other.id]
        assert not waiting, f"requests outlived their run: {waiting}"

    async def _check_record(self, made: Attempt) -> None:
        """The turns and the log of this attempt, against each other."""
        office, store = self._office, self._office.backend.store
        events = await store.events_after(office.workspace.id, self._seen, limit=ALL)
        record.check_numbers([*events])
        assert [event.seq for event in events][:1] in ([], [self._seen + 1]), "numbers have a gap (R27)"
        self._seen = events[-1].seq or 0
        by_run: defaultdict[str | None, list[Event]] = defaultdict(list)
        for event in events:
            by_run[event.run_id].append(event)
        messages: dict[str, Message] = {message.id: message for message in await self._messages(by_run)}
        runs: dict[str, RunRecord]
        runs = {run.id: run for run in [await office.workspace.run(run_id) for run_id in by_run if run_id]}
        for run in runs.values():
            if run.session_id == office.session_id:
                check_run(run, by_run[run.id], messages, runs)
        record.check_order(record.begun(events))
        for message_id, text in made.shown.items():
            if message_id in messages:
                stored = messages[message_id].text
                assert stored.startswith(text), f"shown was {text!r}, stored is {stored!r} (R10)"

    async def _messages(self, by_run: dict[str | None, list[Event]]) -> list[Message]:
        store, workspace_id = self._office.backend.store, self._office.workspace.id
        found: list[Message] = []
        for run_id in by_run:
            if run_id is not None:
                found += await store.run_messages(workspace_id, (await self._office.workspace.run(run_id)).id)
        return found


def check_run(run: RunRecord, events: list[Event], messages: dict[str, Message], runs: dict[str, RunRecord]) -> None:
    """It has one ending, its last event; its turn is whole, and is what the log tells; each call has one result, and
    those that a cancel cut off say so."""
    record.check_story(run, events)
    record.check_ending(run, events, messages)
    own = [message for message in messages.values() if message.run_id == run.id]
    record.check_told(
        [e for e in events if isinstance(e.body, MessageCreated | MessageUpdated)], {m.id: m for m in own}
    )
    if run.steered_into is not None:
        record.check_steered(run, own, runs)
        return
    record.check_turn(run, own)
    results = [result for message in own for result in message.tool_results]
    errors = {result.content for result in results if result.is_error and not result.content.startswith(NOT_THERE)}
    allowed = {DENIED} | ({CANCELED} if run.state is RunState.CANCELED else set())
    assert errors <= allowed, f"{run.state}: {errors}"


def check_files(office: Office) -> None:
    """Each file is the old one or the new one, and nothing lies beside them."""
    for name, contents in CONTENTS.items():
        assert office.repository.read(name) in contents, f"{name} holds:\n{office.repository.read(name)}"
    assert not leftovers(office.repository.root)


async def first_of(*events: trio.Event) -> None:
    """Return when one of these is set."""
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)
