"""What may be left of a server at rest: nothing."""

from collections.abc import Iterator

from engine.backend import Backend
from engine.workspace import Workspace

WORKSPACE_TASKS = 1  # the flusher


def leftovers(backend: Backend) -> Iterator[str]:
    """Everything that a server at rest still holds: runs, lanes, places, tasks, readers, unwritten words."""
    if used := backend.statistics().slots_used:
        yield f"{used} places for active runs are still taken"
    log = backend.log.statistics()
    if log.waiting or log.writing:
        yield f"{log.waiting + log.writing} changes are left in the log"
    for workspace in backend.workspaces():
        yield from leftovers_of(workspace)


def leftovers_of(workspace: Workspace) -> Iterator[str]:
    """Everything that a workspace at rest still holds."""
    if runs := workspace.lanes.all_runs():
        yield f"handles are left: {runs}"
    if lanes := workspace.lanes.all_lanes():
        yield f"lanes are left: {[lane.statistics() for lane in lanes]}"
    if feeds := workspace.statistics().feeds:
        yield f"{feeds} feeds are left"
    if attached := workspace.claims.statistics().attached:
        yield f"{attached} clients are still attached"
    if messages := workspace._outlet.snapshots():
        yield f"messages are still being written: {[message.id for message in messages]}"
    if dirty := [writer.id for writer in workspace.flusher._dirty if not writer._is_closed]:
        yield f"words are still to be shown: {dirty}"
    if workspace._nursery.cancel_scope.cancel_called:
        return  # it has failed in this moment, and is on its way out
    if waiting := [*workspace.permissions.waiting(), *workspace.questions.waiting()]:
        yield f"requests still wait for an answer: {waiting}"
    if (tasks := len(workspace._nursery.child_tasks)) != WORKSPACE_TASKS:
        names = sorted(task.name for task in workspace._nursery.child_tasks)
        yield f"{tasks - WORKSPACE_TASKS} tasks are left in the workspace: {names}"
