"""Where a search begins: found, and asked for if it is outside."""

import stat
from collections.abc import Mapping
from pathlib import Path

from engine.errors import ToolProblem
from engine.tools.disk import Disk
from engine.tools.path_guard import Place, printable, resolve
from engine.tools.protocol import ToolContext


async def search_place(
    disk: Disk, context: ToolContext, given: str, *, action: str, params: Mapping[str, object]
) -> tuple[Place, str]:
    """The directory to search, and the one file in it to look at, if the path means a file. Raises ToolProblem and
    PermissionDenied."""
    place = await disk.do(resolve, given or ".", context.workspace)
    if not place.is_inside:
        directory = await disk.do(_directory_shown, place)
        asked = {**params, "path": str(place.path)}
        await context.permit(action=action, path=directory, description=f"Search {place.shown}", params=asked)
    return await disk.do(_directory_of, place)


def _directory_shown(place: Place) -> Path:
    """The directory that a person is asked for, and that a grant for the session covers: never a file."""
    try:
        is_file = stat.S_ISREG(place.path.lstat().st_mode)
    except OSError:
        is_file = False
    return place.path.parent if is_file else place.path


def _directory_of(place: Place) -> tuple[Place, str]:
    try:
        mode = place.path.lstat().st_mode
    except FileNotFoundError:
        raise ToolProblem(f"there is no {place.shown}") from None
    if stat.S_ISDIR(mode):
        return place, ""
    if not stat.S_ISREG(mode):
        raise ToolProblem(f"{place.shown} is no directory and no regular file")
    return Place(place.path.parent, place.root), place.path.name


def shown_path(place: Place, found: str) -> str:
    """A path that a search found, as the model is told it. In the workspace it is relative to its root."""
    return printable(found) if place.is_inside else printable(str(Path(place.path) / found))
