"""A cancel at every place of the story, found by watching the loop: `make cancels` goes through every point."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tests.story.everywhere import cancel_everywhere
from tests.story.office import AT_THE_GATE, open_office
from tests.story.points import Place
from tests.story.telling import NOTES_TASK, TASK

pytestmark = pytest.mark.slow

TEST_S = 120.0


def is_in_a_tool(place: Place) -> bool:
    """Whether the place is in a tool, or a tool's command has come to it."""
    return place == AT_THE_GATE or is_below(place, "tools/")


def is_below(place: Place, path: str) -> bool:
    """Whether one of its lines is in these files."""
    return any(line.startswith(path) for line in place)


WHERE: dict[str, Callable[[Place], bool]] = {
    "the loop": lambda place: not is_in_a_tool(place),
    "the tools": is_in_a_tool,
    "write": lambda place: is_below(place, "tools/write.py"),
}


@pytest.mark.parametrize(
    ("task", "where", "places_min"),
    [(TASK, "the loop", 15), (TASK, "the tools", 30), (NOTES_TASK, "write", 8)],
    ids=["in the loop", "in the tools", "in the tool of the other session"],
)
async def test_r10_a_cancel_at_any_place_leaves_nothing_half_done_and_the_work_goes_on(
    task: str, where: str, places_min: int, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Far fewer places than there are would mean that they were not seen."""
    with trio.fail_after(TEST_S):
        async with open_office(tmp_path, task=task) as office:
            canceled = await cancel_everywhere(office, is_meant=WHERE[where], around=subtests.test)
    assert len(canceled) >= places_min
    assert (AT_THE_GATE in canceled) == (where == "the tools")
