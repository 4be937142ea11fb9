"""A step that is broken off accounts for what it used, and stays broken off whatever comes of that."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from engine.agents.step import Step
from engine.models.offline import HELPER, INFOS
from engine.models.protocol import ModelRequest, ModelStream, UsageReport
from engine.records.run import Usage
from tests.engine.agents.fake_turn import FakeTurn


class Counting:
    """A model that says what it takes, and nothing after that."""

    info = INFOS[HELPER]

    @asynccontextmanager
    async def open_stream(self, request: ModelRequest) -> AsyncIterator[ModelStream]:
        async def stream() -> ModelStream:
            yield (UsageReport(Usage(input_tokens=1)),)
            await trio.sleep_forever()

        yield stream()


class OverTurn(FakeTurn):
    """A turn whose run has ended without its agent."""

    def use(self, usage: Usage) -> None:
        raise RuntimeError("the turn is over")


async def test_a_step_that_is_canceled_in_a_turn_that_is_over_is_canceled(autojump_clock: object) -> None:
    turn: Any = OverTurn()
    with trio.move_on_after(1) as scope:
        await Step(turn, Counting(), ModelRequest(session_id="s", system="", messages=(), tools=())).take()
    assert scope.cancelled_caught
