"""What a terminal shows, and does nothing else with."""

import re

# What moves the cursor or turns the direction of writing could make a text look like another one.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text without what a terminal would do something else with than show it."""
    return _CONTROL.sub("", text)
