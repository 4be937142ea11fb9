"""The dialects that are spoken, by the `type` of a provider: addresses and headers; the rest is in their folders."""

from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import quote

from engine.models.anthropic.answer import AnthropicAnswer
from engine.models.anthropic.request import anthropic_body
from engine.models.chat.answer import ChatAnswer
from engine.models.chat.request import chat_body
from engine.models.dialect import AnswerReader, Dialect
from engine.models.endpoint import Endpoint
from engine.models.gemini.answer import GeminiAnswer
from engine.models.gemini.request import gemini_body
from engine.models.protocol import ModelInfo, ModelRequest
from engine.models.provider_errors import Blame
from engine.models.responses.answer import ResponsesAnswer
from engine.models.responses.request import responses_body
from engine.models.settings import ProviderType

# The version that everybody speaks who imitates the protocol. The one of October 2026 takes less, and nothing that we
# send is among it.
ANTHROPIC_VERSION = "2023-06-01"


def _bearer(endpoint: Endpoint) -> dict[str, str]:
    return {"Authorization": f"Bearer {endpoint.api_key.reveal()}"} if endpoint.api_key else {}


class ChatCompletions:
    """OpenAI's older protocol, which everybody else speaks."""

    def url(self, endpoint: Endpoint, info: ModelInfo) -> str:
        return endpoint.url("/chat/completions")

    def headers(self, endpoint: Endpoint) -> Mapping[str, str]:
        return _bearer(endpoint)

    def body(self, request: ModelRequest, info: ModelInfo, endpoint: Endpoint) -> dict[str, object]:
        # OpenAI's newer models refuse the old name of the limit, which everybody else knows.
        limit = "max_completion_tokens" if endpoint.host == "api.openai.com" else "max_tokens"
        return chat_body(request, info, max_tokens_field=limit, reasoning_field=endpoint.send_reasoning_as)

    def reader(self, blame: Blame) -> AnswerReader:
        return ChatAnswer(blame)


class Responses:
    """OpenAI's newer protocol."""

    def url(self, endpoint: Endpoint, info: ModelInfo) -> str:
        return endpoint.url("/responses")

    def headers(self, endpoint: Endpoint) -> Mapping[str, str]:
        return _bearer(endpoint)

    def body(self, request: ModelRequest, info: ModelInfo, endpoint: Endpoint) -> dict[str, object]:
        return responses_body(request, info)

    def reader(self, blame: Blame) -> AnswerReader:
        return ResponsesAnswer(blame)


class AnthropicMessages:
    """Anthropic's protocol."""

    def url(self, endpoint: Endpoint, info: ModelInfo) -> str:
        return endpoint.url("/messages", version="/v1")

    def headers(self, endpoint: Endpoint) -> Mapping[str, str]:
        key = {"x-api-key": endpoint.api_key.reveal()} if endpoint.api_key else {}
        return {"anthropic-version": ANTHROPIC_VERSION, **key}

    def body(self, request: ModelRequest, info: ModelInfo, endpoint: Endpoint) -> dict[str, object]:
        return anthropic_body(request, info)

    def reader(self, blame: Blame) -> AnswerReader:
        return AnthropicAnswer(blame)


class GeminiContent:
    """Google's protocol. The model is in the address, the key in a header: an address is logged."""

    def url(self, endpoint: Endpoint, info: ModelInfo) -> str:
        path = info.id if "/" in info.id else f"models/{info.id}"
        return endpoint.url(f"/{quote(path)}:streamGenerateContent", version="/v1beta") + "?alt=sse"

    def headers(self, endpoint: Endpoint) -> Mapping[str, str]:
        return {"x-goog-api-key": endpoint.api_key.reveal()} if endpoint.api_key else {}

    def body(self, request: ModelRequest, info: ModelInfo, endpoint: Endpoint) -> dict[str, object]:
        return gemini_body(request, info)

    def reader(self, blame: Blame) -> AnswerReader:
        return GeminiAnswer(blame)


DIALECTS: Mapping[ProviderType, Dialect] = MappingProxyType(
    {
        "openai": Responses(),
        "openai-compat": ChatCompletions(),
        "anthropic": AnthropicMessages(),
        "gemini": GeminiContent(),
    }
)
