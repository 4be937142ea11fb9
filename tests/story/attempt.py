"""One attempt at the work: the task is sent, and its session is canceled at a point."""

from collections.abc import Callable

import msgspec
import trio
import trio.testing

from engine.records.ids import RunId, new_run_id
from engine.records.run import Prompt
from tests.story.office import Office
from tests.story.points import Point, first_in_line
from tests.story.processes import Found

ATTEMPT_S = 60.0  # bound of one attempt; it takes a second


class Attempt(msgspec.Struct, kw_only=True):
    """What was done, and what was seen in the moment of the cancel that covered the run."""

    run_id: RunId
    points: list[Point] = []  # where its session was canceled; all but the last covered nothing
    covered: tuple[RunId, ...] = ()
    shown: dict[str, str] = {}  # of each message, what a reader had seen of it
    left: list[Found] = []  # processes, in the moment of the terminal event


async def attempt(office: Office, wanted: Callable[[Point], bool]) -> Attempt:
    """Send the task, and cancel its session at the first point that is wanted, if there is one. A cancel that finds
    nothing to cover, because the run is not registered yet, or has ended, does nothing (R08): then at the next. Returns
    when all runs of the session have ended."""
    made = Attempt(run_id=new_run_id())
    with trio.fail_after(ATTEMPT_S):
        office.gate.reset()
        office.points.watch(wanted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_found, office, made)
            await trio.testing.wait_all_tasks_blocked()
            prompt = Prompt(session_id=office.session_id, text=office.task, run_id=made.run_id)
            nursery.start_soon(office.workspace.accept, prompt)
            await _see_it_end(office, made)
            office.points.look_away()
        for run in office.workspace.lanes.of_session(office.session_id):
            await run.wait_settled()  # what Ann had to say, if it came too late for the turn
    return made


async def _cancel_when_found(office: Office, made: Attempt) -> None:
    with first_in_line():
        while not made.covered and (point := await office.points.found()):
            made.points.append(point)
            made.shown = dict(office.reader.texts)
            made.covered = await office.workspace.cancel_session(office.session_id)


async def _see_it_end(office: Office, made: Attempt) -> None:
    while office.workspace.lanes.find(made.run_id) is None:
        await trio.lowlevel.checkpoint()  # on its way to be registered
    while not (await office.workspace.wait_run(made.run_id, ATTEMPT_S)).state.is_terminal:
        pass
    made.left = office.alive()
