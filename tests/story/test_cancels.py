"""A cancel at every place of the story, found by watching the loop: `make cancels` goes through every point."""

from pathlib import Path

import pytest
import trio

from tests.story.everywhere import cancel_everywhere
from tests.story.office import AT_THE_GATE, open_office
from tests.story.points import Place

pytestmark = pytest.mark.slow

TEST_S = 120.0


def is_in_a_tool(place: Place) -> bool:
    """Whether the place is in a tool, or a tool's command has come to it."""
    return place == AT_THE_GATE or any(line.startswith("tools/") for line in place)


@pytest.mark.parametrize(("where", "places_min"), [("the loop", 15), ("the tools", 35)])
async def test_r10_a_cancel_at_any_place_leaves_nothing_half_done_and_the_work_goes_on(
    where: str, places_min: int, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """Far fewer places than there are would mean that they were not seen."""
    with trio.fail_after(TEST_S):
        async with open_office(tmp_path) as office:
            canceled = await cancel_everywhere(
                office, is_meant=lambda place: is_in_a_tool(place) == (where == "the tools"), around=subtests.test
            )
    assert len(canceled) >= places_min
    assert (AT_THE_GATE in canceled) == (where == "the tools")
