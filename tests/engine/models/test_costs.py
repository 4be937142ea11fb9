"""What an answer costs: the tokens as each protocol counts them, at the prices of the catalog or of the settings."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from engine.models.dialects import DIALECTS
from engine.models.protocol import ModelInfo, UsageReport
from engine.models.provider_errors import Blame
from engine.models.settings import ModelSettings, ProviderType
from engine.models.sources import find_sources
from tests.doubles import anthropic_server as anthropic
from tests.doubles import gemini_server as gemini
from tests.doubles import openai_server as chat
from tests.doubles import responses_server as responses

BLAME = Blame(provider="Test", model="m", base_url="http://test", key_hint="the key")
PRICES = {"cost_in": 1, "cost_out": 1_000, "cost_in_cached": 1_000_000, "cost_out_cached": 1_000_000_000}
LONG = {"over": 100, "cost_in": 2, "cost_out": 2_000, "cost_in_cached": 2_000_000, "cost_out_cached": 2_000_000_000}
MILLION = 1_000_000

Events = list[Mapping[str, object]]


def chat_usage(prompt: int, read: int, written: int, output: int) -> Events:
    """Chat completions count all of the prompt together."""
    told = chat.used(prompt, output)
    told["usage"] = {
        "prompt_tokens": prompt, "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    }  # fmt: skip
    return [chat.say("x"), chat.stop(), told]


def deepseek_usage(prompt: int, read: int, written: int, output: int) -> Events:
    """DeepSeek has a name of its own for what was cached."""
    told = chat.used(prompt, output)
    told["usage"] = {"prompt_tokens": prompt, "completion_tokens": output, "prompt_cache_hit_tokens": read}
    return [chat.say("x"), chat.stop(), told]


def responses_usage(prompt: int, read: int, written: int, output: int) -> Events:
    """Responses do so too, and count thoughts as output."""
    usage = responses.used(prompt, output, cached=read, written=written, reasoning=output - 1)
    return [*responses.text(0, "x"), responses.stop(usage=usage)]


def anthropic_usage(prompt: int, read: int, written: int, output: int) -> Events:
    """Anthropic counts each kind apart, and the output at the end."""
    begun = anthropic.start(
        input_tokens=prompt - read - written, cache_read_input_tokens=read, cache_creation_input_tokens=written
    )
    return [begun, *anthropic.text(0, "x"), *anthropic.stop(output_tokens=output)]


def gemini_usage(prompt: int, read: int, written: int, output: int) -> Events:
    """Gemini counts thoughts apart, and what it has cached with the rest."""
    return [gemini.say("x"), gemini.stop(prompt=prompt, candidates=1, thoughts=output - 1, cached=read)]


COUNTING = [
    ("openai-compat", chat_usage, True),
    ("openai-compat", deepseek_usage, False),
    ("openai", responses_usage, True),
    ("anthropic", anthropic_usage, True),
    ("gemini", gemini_usage, False),
]


def info(**said: Any) -> ModelInfo:
    """A model with prices from the settings."""
    data = {"providers": {"mine": {"base_url": "http://h", "models": [{"id": "m", **said}]}}}
    [source] = find_sources(ModelSettings.from_data(data).providers, {}, frozenset())
    return source.info.model("m")


def cost(spoken: ProviderType, events: Events, model: ModelInfo) -> float:
    """What a model's answer costs, in millionths of a dollar."""
    reader = DIALECTS[spoken].reader(BLAME)
    chunks = reader.read([msgspec.json.encode(event) for event in events])
    chunks += [] if reader.is_over else reader.end()
    return model.cost_of([chunk.usage for chunk in chunks if isinstance(chunk, UsageReport)][-1]) * MILLION


@pytest.mark.parametrize(("spoken", "usage", "tells_writes"), COUNTING)
def test_each_kind_of_token_has_its_price(spoken: ProviderType, usage: Any, tells_writes: bool) -> None:
    written = 20 if tells_writes else 0
    fresh = 100 - 30 - written
    wanted = fresh + 7 * 1_000 + written * 1_000_000 + 30 * 1_000_000_000
    assert cost(spoken, usage(100, 30, written, 7), info(**PRICES)) == pytest.approx(wanted)


@pytest.mark.parametrize(("spoken", "usage", "tells_writes"), COUNTING)
def test_the_cached_tokens_count_for_the_length_of_a_prompt(
    spoken: ProviderType, usage: Any, tells_writes: bool
) -> None:
    model = info(**PRICES, long_prompt=LONG)
    assert cost(spoken, usage(100, 100, 0, 7), model) == pytest.approx(7 * 1_000 + 100 * 1_000_000_000)
    assert cost(spoken, usage(101, 101, 0, 7), model) == pytest.approx(7 * 2_000 + 101 * 2_000_000_000)


@pytest.mark.parametrize("spoken", ["openai-compat", "openai"])
def test_what_a_provider_says_it_costs_is_what_it_costs(spoken: ProviderType) -> None:
    usage = responses.used(100, 7) | {"cost": 0.25}
    told: Events = [*responses.text(0, "x"), responses.stop(usage=usage)]
    if spoken == "openai-compat":
        counted = chat.used(100, 7)
        counted["usage"] = {"prompt_tokens": 100, "completion_tokens": 7, "cost": 0.25}
        told = [chat.say("x"), chat.stop(), counted]
    for model in (info(**PRICES), info()):
        assert cost(spoken, told, model) == pytest.approx(250_000)
