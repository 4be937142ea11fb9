"""A title is found by the small model, with as little thinking as it can."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.agents.title import MAX_TOKENS, ModelTitler
from engine.models.catalog import OFFLINE, Models
from engine.models.offline import HELPER, OfflineModel
from engine.models.protocol import ModelInfo, ModelRequest, ModelStream
from engine.records.ids import SessionId
from engine.records.run import Prompt

LEVELS = ("low", "high")


class Asked(OfflineModel):
    """The offline model as another one; it keeps what it was asked."""

    def __init__(self, info: ModelInfo) -> None:
        super().__init__(HELPER)
        self._info = info
        self.request: ModelRequest | None = None

    @asynccontextmanager
    async def open_stream(self, request: ModelRequest) -> AsyncIterator[ModelStream]:
        self.request = request
        async with super().open_stream(request) as stream:
            yield stream


@pytest.mark.parametrize(
    ("info", "limit", "effort"),
    [
        (ModelInfo(id=HELPER, provider="offline", name=""), MAX_TOKENS, None),
        (ModelInfo(id=HELPER, provider="offline", name="", can_reason=True, reasoning_levels=LEVELS), 4096, "low"),
        (ModelInfo(id=HELPER, provider="offline", name="", can_reason=True, reasoning_levels=LEVELS,
                   thinks_by="budget"), 4096, None),
    ],
    ids=["thinks not", "thinks", "counts"],
)  # fmt: skip
async def test_a_model_that_thinks_has_room_for_it(info: ModelInfo, limit: int, effort: str | None) -> None:
    model, name = Asked(info), f"offline/{HELPER}"
    models = Models({OFFLINE.id: OFFLINE}, {}, {HELPER: model}, default_name=name, small_name=name)
    title = await ModelTitler(models, lambda: models.small_name).title(
        Prompt(session_id=SessionId("s"), text="Count the sheep")
    )
    assert title.text == "Count the sheep"
    assert model.request is not None
    assert (model.request.max_tokens, model.request.reasoning_effort) == (limit, effort)
