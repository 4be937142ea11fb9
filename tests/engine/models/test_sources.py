"""From the catalog, the settings and the environment to providers: whose word counts, and where keys come from."""

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigInvalid
from engine.models.protocol import ModelInfo
from engine.models.settings import ModelSettings, Secret
from engine.models.sources import Source, find_sources, load_catalog
from engine.records.run import Usage

KEY = "sk-hidden"
MILLION = 1_000_000


def sources(providers: dict[str, Any], environ: dict[str, str] | None = None) -> dict[str, Source]:
    """The providers for these settings and this environment, by name."""
    settings = ModelSettings.from_data({"providers": providers})
    found = find_sources(settings.providers, environ or {}, frozenset())
    return {source.info.id: source for source in found}


def model(provider: dict[str, Any], model_id: str, *, provider_id: str = "mine") -> ModelInfo:
    """What is known of a model."""
    return sources({provider_id: {"base_url": "http://h", **provider}})[provider_id].info.model(model_id)


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}-file\n")
    return path


def test_a_key_in_the_settings_wins_over_a_file_and_a_file_over_the_environment(key_file: Path) -> None:
    environ = {"ANTHROPIC_API_KEY": f"{KEY}-env", "MINE": f" {KEY}-mine\n"}
    said: dict[str, Any] = {"api_key": KEY, "api_key_file": str(key_file), "api_key_env": "MINE"}
    for name, wanted in (("api_key", "file"), ("api_key_file", "mine"), ("api_key_env", "env")):
        del said[name]
        assert sources({"anthropic": said}, environ)["anthropic"].endpoint.api_key == Secret(f"{KEY}-{wanted}")
    assert sources({"anthropic": {"api_key": KEY}}, environ)["anthropic"].endpoint.api_key == Secret(KEY)


def test_the_first_variable_that_is_set_holds_the_key() -> None:
    environ = {"GEMINI_API_KEY": " ", "GOOGLE_API_KEY": f"{KEY}-google"}
    assert sources({}, environ)["gemini"].endpoint.api_key == Secret(f"{KEY}-google")
    environ["GEMINI_API_KEY"] = KEY
    assert sources({}, environ)["gemini"].endpoint.api_key == Secret(KEY)


def test_a_home_directory_may_be_meant(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(key_file.parent))
    [source] = sources({"anthropic": {"api_key_file": "~/key"}}).values()
    assert source.endpoint.api_key == Secret(f"{KEY}-file")


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read: No such file"), (b" \n", "is empty"), (b"\xff", "holds no text")]
)
def test_a_key_file_that_is_no_good_is_refused(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=problem) as caught:
        sources({"anthropic": {"api_key_file": str(path)}})
    assert caught.value.field == "providers.anthropic.api_key_file"


def test_a_key_file_has_one_place_wherever_the_server_was_started() -> None:
    with pytest.raises(ConfigInvalid, match="must be an absolute path"):
        sources({"anthropic": {"api_key_file": "key"}})


def test_who_has_no_key_is_told_of_every_place_for_one() -> None:
    hint = sources({"anthropic": {}})["anthropic"].endpoint.key_hint
    assert hint == "`providers.anthropic.api_key` or the environment variable ANTHROPIC_API_KEY"
    assert "MINE" in sources({"anthropic": {"api_key_env": "MINE"}})["anthropic"].endpoint.key_hint
    assert sources({"mine": {"base_url": "http://h"}})["mine"].endpoint.key_hint == "`providers.mine.api_key`"


def test_no_secret_is_in_what_is_shown_of_a_provider() -> None:
    said = {"base_url": "http://h", "api_key": KEY, "extra_headers": {"X-Other": f"{KEY}-other"}}
    source = sources({"mine": said})["mine"]
    assert source.endpoint.secrets == (Secret(KEY), Secret(f"{KEY}-other"))
    assert KEY not in repr(source)


# -- what is said and what is known ------------------------------------------------------------------------------------


def test_a_provider_of_the_catalog_needs_a_key_and_nothing_else() -> None:
    found = sources({}, {"ANTHROPIC_API_KEY": KEY})
    assert list(found) == ["anthropic"]
    endpoint = found["anthropic"].endpoint
    assert (endpoint.type, endpoint.base_url, endpoint.name) == ("anthropic", "https://api.anthropic.com", "Anthropic")


def test_the_settings_win_over_the_environment_and_that_over_the_catalog() -> None:
    environ = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "http://proxy"}
    assert sources({}, environ)["anthropic"].endpoint.base_url == "http://proxy"
    said = {"base_url": "http://own", "type": "openai-compat", "name": "Own"}
    endpoint = sources({"anthropic": said}, environ)["anthropic"].endpoint
    assert (endpoint.base_url, endpoint.type, endpoint.name) == ("http://own", "openai-compat", "Own")


def test_a_provider_of_ones_own_speaks_what_most_speak_unless_it_says_otherwise() -> None:
    assert sources({"mine": {"base_url": "http://h"}})["mine"].endpoint.type == "openai-compat"
    assert sources({"mine": {"base_url": "http://h", "type": "anthropic"}})["mine"].endpoint.type == "anthropic"


@pytest.mark.parametrize(
    ("said", "environ", "spoken"),
    [
        ({}, {}, "openai"),
        ({"base_url": "https://api.openai.com/v1/"}, {}, "openai"),
        ({"type": "openai-compat"}, {}, "openai-compat"),
        ({}, {"OPENAI_BASE_URL": "http://localhost:8000/v1"}, "openai-compat"),
        ({"base_url": "http://localhost:8000/v1"}, {}, "openai-compat"),
        ({"base_url": "http://localhost:8000/v1", "type": "openai"}, {}, "openai"),
    ],
)
def test_openai_speaks_responses_and_who_stands_in_for_it_what_most_speak(
    said: dict[str, str], environ: dict[str, str], spoken: str
) -> None:
    source = sources({"openai": said}, environ)["openai"]
    assert source.endpoint.type == source.info.type == spoken


def test_a_slash_at_the_end_makes_no_other_server() -> None:
    assert sources({"openai": {"base_url": "https://api.openai.com/v1/"}})["openai"].info.small_model
    assert not sources({"openai": {"base_url": "https://elsewhere/v1/"}})["openai"].info.small_model


def test_a_body_of_ones_own_is_laid_over_that_of_the_catalog() -> None:
    assert sources({"openrouter": {}})["openrouter"].endpoint.body == {"usage": {"include": True}}
    said = {"openrouter": {"extra_body": {"provider": {"sort": "price"}}}}
    assert sources(said)["openrouter"].endpoint.body == {"usage": {"include": True}, "provider": {"sort": "price"}}


def test_thoughts_go_back_as_the_catalog_or_the_settings_say() -> None:
    assert sources({"deepseek": {}})["deepseek"].endpoint.send_reasoning_as == "reasoning_content"
    off = {"deepseek": {"send_reasoning_as": ""}}
    assert sources(off)["deepseek"].endpoint.send_reasoning_as == ""


# -- models ------------------------------------------------------------------------------------------------------------


def test_what_is_said_of_a_known_model_leaves_the_rest_as_it_is_known() -> None:
    said = {"models": [{"id": "claude-sonnet-5-5", "default_reasoning_effort": "low", "supports_attachments": False}]}
    known = next(entry for entry in load_catalog()["anthropic"].models if entry.id == "claude-sonnet-5-5")
    info = sources({"anthropic": said})["anthropic"].info.model("claude-sonnet-5-5")
    assert (info.default_reasoning_effort, info.supports_attachments) == ("low", False)
    assert (info.name, info.context_window, info.cost_out) == (known.name, known.context_window, known.cost_out)


def test_a_model_that_nobody_knows_is_taken_at_its_word() -> None:
    assert model({}, "new") == ModelInfo(id="new", provider="mine", name="new")


def test_at_a_flat_rate_nothing_costs_anything() -> None:
    spent = Usage(MILLION, MILLION, cost=3.0)
    priced = {"models": [{"id": "m", "cost_in": 1, "cost_out": 2}]}
    for model_id in ("m", "new"):
        assert model({**priced, "flat_rate": True}, model_id).cost_of(spent) == 0.0
    assert model(priced, "m").cost_of(spent) == 3.0
    assert model(priced, "m").cost_of(Usage(MILLION, MILLION)) == 3.0


def test_a_long_prompt_has_prices_of_its_own_for_all_of_its_request() -> None:
    long_prompt = {"over": 100, "cost_in": 10, "cost_out": 20, "cost_in_cached": 30, "cost_out_cached": 40}
    info = model({"models": [{"id": "m", "cost_in": 1, "cost_out": 2, "long_prompt": long_prompt}]}, "m")
    assert info.cost_of(Usage(100, MILLION)) == pytest.approx(2.0001)
    assert info.cost_of(Usage(100, MILLION, 1)) * MILLION == pytest.approx(1_000 + 20 * MILLION + 40)
    assert info.cost_of(Usage(0, 0, 0, 101)) * MILLION == pytest.approx(3_030)


@pytest.mark.parametrize(
    ("said", "asked", "effort"),
    [
        ({"can_reason": True, "reasoning_levels": ["low", "high"], "default_reasoning_effort": "low"}, None, "low"),
        ({"can_reason": True, "reasoning_levels": ["low", "high"], "default_reasoning_effort": "low"}, "high", "high"),
        ({"can_reason": True, "reasoning_levels": ["low", "high"], "default_reasoning_effort": "low"}, "max", "low"),
        ({"can_reason": True}, "max", "max"),
        ({"can_reason": True}, None, ""),
        ({"default_reasoning_effort": "low"}, "high", ""),
    ],
)
def test_an_effort_is_one_that_the_model_knows(said: dict[str, Any], asked: str | None, effort: str) -> None:
    assert model({"models": [{"id": "m", **said}]}, "m").effort_for(asked) == effort


def test_the_catalog_says_only_what_fits_together() -> None:
    for provider in load_catalog().values():
        for entry in provider.models:
            info = entry.as_info(provider.id)
            assert not info.default_reasoning_effort or info.default_reasoning_effort in info.reasoning_levels
            assert info.can_reason or not info.reasoning_levels
            if info.long_prompt:
                assert info.context_window > info.long_prompt.over
                assert info.long_prompt.cost_in > info.cost_in > 0
                assert info.long_prompt.cost_out > info.cost_out > 0
                assert info.long_prompt.cost_out_cached > info.cost_out_cached > 0
