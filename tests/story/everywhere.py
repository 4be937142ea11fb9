"""Cancels at every place of the story, one after another: the work is asked for again and again, and canceled wherever
it was not canceled before, until it is done without one more such place."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from engine.records.run import RunState
from tests.doubles.invariants import check_invariants
from tests.story.aftermath import Aftermath
from tests.story.attempt import Attempt, attempt
from tests.story.office import AT_THE_GATE, Office
from tests.story.points import Place, Point, shown
from tests.story.telling import TASK
from tests.story.work import missing_in

Around = Callable[[str], AbstractContextManager[object]]  # the checks after a cancel, with the points of it


async def cancel_everywhere(
    office: Office, *, is_meant: Callable[[Place], bool] = bool, around: Around = nullcontext
) -> set[Place]:
    """Cancel at every place that is meant, and check after each. The places; raises AssertionError."""
    canceled: set[Place] = set()

    def is_new(point: Point) -> bool:
        is_new = is_meant(point[0]) and point[0] not in canceled
        canceled.update([point[0]] if is_new else [])
        return is_new

    aftermath = Aftermath(office)
    is_over = False
    while not is_over:
        await office.begin_work()
        is_over = True
        while (made := await attempt(office, is_new)).points:
            is_over = False
            with around(" and ".join(map(shown, made.points))):
                await aftermath.check(made)
                check_command(office, made)
        await check_done(office, aftermath, made)
    await office.end_notes()
    await check_invariants(office.backend, office.workspace)
    assert not list(missing_in(office.repository, is_mended=office.task == TASK))
    return canceled


async def check_done(office: Office, aftermath: Aftermath, made: Attempt) -> None:
    """An attempt that was not canceled has done the work, whatever there was before."""
    await aftermath.check(made)
    assert (await office.workspace.run(made.run_id)).state is RunState.COMPLETED
    assert office.task != TASK or office.repository.tests().returncode == 0


def check_command(office: Office, made: Attempt) -> None:
    """The command that stood at its gate was one that is hard to end: it ignores SIGTERM, and has a child that forked
    away."""
    if made.points[-1][0] != AT_THE_GATE:
        return
    commands = {found.command: found for found in office.standing}
    shell, preview = commands["bash check.sh"], commands["python3 -I -S tools/preview.py"]
    assert shell.ignores_sigterm
    assert preview.session not in {shell.session, shell.pid}
