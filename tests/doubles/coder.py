"""The built-in agent over the offline model, with gates in its way and every request on record."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from engine.agents.coder import CoderAgent
from engine.models.catalog import OFFLINE, Models
from engine.models.offline import HELPER, SCRIPT, OfflineModel
from engine.models.protocol import ModelRequest, ModelStream
from engine.models.settings import ModelSettings
from tests.doubles.gate import Gate


class RecordingModel(OfflineModel):
    """The offline model; it keeps what it was asked."""

    def __init__(self, *, gates: Mapping[str, Gate] | None = None) -> None:
        super().__init__(SCRIPT, gates={name: gate.pass_through for name, gate in (gates or {}).items()})
        self.requests: list[ModelRequest] = []

    @asynccontextmanager
    async def open_stream(self, request: ModelRequest) -> AsyncIterator[ModelStream]:
        self.requests.append(request)
        async with super().open_stream(request) as stream:
            yield stream

    @property
    def last_seen(self) -> str:
        """The latest request as one text."""
        return msgspec.json.encode(self.requests[-1].messages).decode()


def coder(model: OfflineModel) -> dict[str, Any]:
    """What `open_watched` takes to run the built-in agent over this model."""
    name = f"offline/{SCRIPT}"
    models = Models({OFFLINE.id: OFFLINE}, {}, {SCRIPT: model, HELPER: model}, default_name=name, small_name=name)
    return {"agent": CoderAgent(models, in_thread=False), "model_settings": ModelSettings(model=name)}


def script(*steps: Sequence[Mapping[str, object]], say: str = "Do this:") -> str:
    """A prompt with a script for the offline model in it."""
    return f"{say}\n```script\n{msgspec.json.encode(steps).decode()}\n```"
