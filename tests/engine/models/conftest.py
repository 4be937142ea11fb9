"""A provider on a local server, for the tests that go over real sockets."""

from collections.abc import AsyncIterator

import pytest
import trio

from engine.models.openai import OpenAIModel, OpenAIProvider, open_openai
from tests.doubles.openai_server import OpenAIServer, open_openai_server
from tests.engine.models.asking import INFO, endpoint


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    """A running server; the whole test has 20 seconds."""
    with trio.fail_after(20):
        async with open_openai_server() as running:
            yield running


@pytest.fixture
async def provider(server: OpenAIServer) -> AsyncIterator[OpenAIProvider]:
    """Our client of that server."""
    async with open_openai(endpoint(server.base_url)) as opened:
        yield opened


@pytest.fixture
def model(provider: OpenAIProvider) -> OpenAIModel:
    """One of its models."""
    return provider.model(INFO)
