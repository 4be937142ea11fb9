"""Which models there are, and which one answers when nobody names one."""

from pathlib import Path

import pytest
import trio

from engine.errors import ConfigInvalid, ModelError, NotFound
from engine.models.catalog import Models, open_models, parse_model_name
from engine.models.protocol import ModelInfo
from engine.models.settings import ModelSettings
from engine.models.sources import load_catalog
from engine.models.statistics import RequestStatistics
from engine.records.run import Usage
from tests.doubles.openai_server import answer, open_openai_server, refusal, say, stop
from tests.engine.models.asking import ask, request, text_of, user

KEY = "sk-hidden"
OPENAI = {"OPENAI_API_KEY": KEY}
LOCAL = {"base_url": "http://localhost:1/v1", "models": [{"id": "a", "context_window": 7}, {"id": "b"}]}


async def names(environ: dict[str, str], data: object = None) -> tuple[str, str]:
    """The default and the small model."""
    async with open_models(ModelSettings.from_data(data or {}), environ) as models:
        assert models.get() is not None
        assert models.get(models.small_name) is not None
        return models.default_name, models.small_name


@pytest.mark.parametrize(
    ("environ", "data", "default", "small"),
    [
        ({}, {}, "offline/helper", "offline/helper"),
        ({"OPENAI_API_KEY": ""}, {}, "offline/helper", "offline/helper"),
        ({"OPENAI_API_KEY": " \n"}, {}, "offline/helper", "offline/helper"),
        ({"OPENAI_BASE_URL": "http://localhost:1"}, {}, "offline/helper", "offline/helper"),
        (OPENAI, {}, "openai/gpt-6.1-sol", "openai/gpt-5.6-luna"),
        (OPENAI | {"OPENAI_BASE_URL": "http://localhost:1"}, {}, "openai/gpt-6.1-sol", "openai/gpt-6.1-sol"),
        (OPENAI | {"COUNTERMAND_MODEL": "openai/o3"}, {}, "openai/o3", "openai/gpt-5.6-luna"),
        (OPENAI | {"COUNTERMAND_MODEL": "openai/new/one"}, {}, "openai/new/one", "openai/gpt-5.6-luna"),
        (OPENAI | {"COUNTERMAND_MODEL": "offline/script"}, {}, "offline/script", "offline/helper"),
        ({"COUNTERMAND_MODEL": " ollama/llama3.2 "}, {}, "ollama/llama3.2", "ollama/llama3.2"),
        ({"COUNTERMAND_MODEL": "lmstudio/qwen/qwen3"}, {}, "lmstudio/qwen/qwen3", "lmstudio/qwen/qwen3"),
        ({"COUNTERMAND_MODEL": "llamacpp/any"}, {}, "llamacpp/any", "llamacpp/any"),
        ({"COUNTERMAND_MODEL": "vllm/openai/gpt-oss-20b"}, {}, "vllm/openai/gpt-oss-20b", "vllm/openai/gpt-oss-20b"),
        ({"COUNTERMAND_MODEL": "openai/x", "OPENAI_BASE_URL": "http://h"}, {}, "openai/x", "openai/x"),
        ({"ANTHROPIC_API_KEY": KEY}, {}, "anthropic/claude-sonnet-5-5", "anthropic/claude-haiku-5-5"),
        ({"GEMINI_API_KEY": KEY}, {}, "gemini/gemini-3.8-flash", "gemini/gemini-3.5-flash-lite"),
        ({"GOOGLE_API_KEY": KEY}, {}, "gemini/gemini-3.8-flash", "gemini/gemini-3.5-flash-lite"),
        ({"DEEPSEEK_API_KEY": KEY}, {}, "deepseek/deepseek-v4-pro", "deepseek/deepseek-v4-flash"),
        (OPENAI | {"DEEPSEEK_API_KEY": KEY}, {}, "openai/gpt-6.1-sol", "openai/gpt-5.6-luna"),
        ({}, {"providers": {"local": LOCAL}}, "local/a", "local/a"),
        ({}, {"providers": {"local": LOCAL | {"default_model": "b", "small_model": "a"}}}, "local/b", "local/a"),
        (
            {},
            {"providers": {"anthropic": {"default_model": "claude-opus-5-5"}}},
            "anthropic/claude-opus-5-5",
            "anthropic/claude-haiku-5-5",
        ),
        (OPENAI, {"providers": {"local": LOCAL}}, "openai/gpt-6.1-sol", "openai/gpt-5.6-luna"),
        (OPENAI, {"model": "local/b", "providers": {"local": LOCAL}}, "local/b", "local/b"),
        (
            OPENAI,
            {"model": "openai/o3", "small_model": "local/b", "providers": {"local": LOCAL}},
            "openai/o3",
            "local/b",
        ),
        ({"COUNTERMAND_MODEL": "offline/helper"}, {"model": "openai/o3"}, "offline/helper", "offline/helper"),
        (OPENAI, {"providers": {"openai": {"disable": True}}}, "offline/helper", "offline/helper"),
        ({}, {"providers": {"openai": {"api_key": KEY}}}, "openai/gpt-6.1-sol", "openai/gpt-5.6-luna"),
        (
            {"MY_KEY": KEY},
            {"providers": {"openai": {"api_key_env": "MY_KEY"}}},
            "openai/gpt-6.1-sol",
            "openai/gpt-5.6-luna",
        ),
        (OPENAI, {"providers": {"offline": {"disable": True}}}, "openai/gpt-6.1-sol", "openai/gpt-5.6-luna"),
    ],
)
async def test_the_default_model_is_the_first_that_somebody_chose(
    environ: dict[str, str], data: object, default: str, small: str
) -> None:
    assert await names(environ, data) == (default, small)


@pytest.mark.parametrize(
    ("environ", "data", "field", "problem"),
    [
        ({"COUNTERMAND_MODEL": "gpt-5"}, {}, "COUNTERMAND_MODEL", "not of the form provider/model"),
        ({"COUNTERMAND_MODEL": "openai/"}, {}, "COUNTERMAND_MODEL", "not of the form"),
        ({"COUNTERMAND_MODEL": "nobody/x"}, {}, "COUNTERMAND_MODEL", "no provider 'nobody'; there are: offline"),
        (
            {"COUNTERMAND_MODEL": "offline/x"},
            {},
            "COUNTERMAND_MODEL",
            "no offline model 'x'; there are: helper, script",
        ),
        ({}, {"model": "nobody/x"}, "model", "no provider"),
        ({}, {"small_model": "nobody/x"}, "small_model", "no provider"),
        ({}, {"model": "openai/x", "providers": {"openai": {"disable": True}}}, "model", "no provider 'openai'"),
        ({}, {"providers": {"offline": {"disable": True}}}, "model", "no model is chosen"),
        ({}, {"providers": {"mine": {}}}, "providers.mine.base_url", "is missing"),
        ({}, {"providers": {"mine": {"base_url": "nowhere"}}}, "providers.mine", "must look like"),
        ({"OPENAI_API_KEY": f"{KEY}\x07"}, {}, "providers.openai", "the key has characters"),
    ],
)
async def test_a_choice_that_cannot_be_used_is_refused_at_the_start(
    environ: dict[str, str], data: object, field: str, problem: str
) -> None:
    with pytest.raises(ConfigInvalid, match=problem) as caught:
        await names(environ, data)
    assert caught.value.field == field
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a/b", ("a", "b")), ("a/b/c:d", ("a", "b/c:d")), (" a/b\n", ("a", "b"))],
)
def test_a_model_name_has_a_provider_and_an_id(name: str, parts: tuple[str, str]) -> None:
    assert parse_model_name(name) == parts


@pytest.mark.parametrize("name", ["", "a", "/a", "a/", "/"])
def test_another_form_is_no_model(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        parse_model_name(name)
    assert (caught.value.kind, caught.value.id) == ("model", name)


async def test_models_are_found_by_name() -> None:
    async with open_models(ModelSettings.from_data({"providers": {"local": LOCAL}}), OPENAI) as models:
        known = models.get("openai/gpt-4.1").info
        assert (known.provider, known.name, known.context_window) == ("openai", "GPT-4.1", 1_047_576)
        assert known.cost_of(Usage(1_000_000, 1_000_000, 1_000_000)) == pytest.approx(2 + 8 + 0.5)
        assert models.get("local/a").info.context_window == 7
        assert models.get("local/x/y").info == ModelInfo(id="x/y", provider="local", name="x/y")
        assert models.get().info.id == models.get(None).info.id == models.get("").info.id == "gpt-6.1-sol"
        for name, kind, wanted in [
            ("nobody/x", "provider", "nobody"),
            ("deepseek/deepseek-chat", "provider", "deepseek"),
            ("offline/x", "model", "offline/x"),
            ("x", "model", "x"),
        ]:
            with pytest.raises(NotFound) as caught:
                models.get(name)
            assert (caught.value.kind, caught.value.id) == (kind, wanted)


async def test_providers_are_told_without_their_keys() -> None:
    data = {"providers": {"local": LOCAL | {"api_key": KEY, "name": "Mine"}, "openai": {"models": [{"id": "ft:1"}]}}}
    async with open_models(ModelSettings.from_data(data), OPENAI) as models:
        told = {provider.id: provider for provider in models.providers()}
    assert list(told) == ["openai", "local", "offline"]
    assert [model.id for model in told["offline"].models] == ["helper", "script"]
    assert told["local"].name == "Mine"
    assert told["local"].default_model == "a"
    assert {"gpt-4.1", "ft:1"} <= {model.id for model in told["openai"].models}
    assert KEY not in repr(told)


async def test_the_default_models_provider_comes_first() -> None:
    async with open_models(ModelSettings(model="offline/helper"), OPENAI) as models:
        assert [provider.id for provider in models.providers()] == ["offline", "openai"]


async def test_a_disabled_offline_model_is_not_there() -> None:
    async with open_models(ModelSettings.from_data({"providers": {"offline": {"disable": True}}}), OPENAI) as models:
        assert [provider.id for provider in models.providers()] == ["openai"]
        assert models.statistics() == {"openai": RequestStatistics()}
        with pytest.raises(NotFound):
            models.get("offline/helper")


def test_the_catalog_names_only_models_that_it_has() -> None:
    catalog = load_catalog()
    assert next(iter(catalog)) == "openai"
    for provider in catalog.values():
        ids = {model.id for model in provider.models}
        assert len(ids) == len(provider.models)
        if ids:
            assert {provider.default_model, provider.small_model} <= ids
        assert all((model.context_window or 0) > (model.default_max_tokens or 0) > 0 for model in provider.models)


# -- the offline script of the environment -----------------------------------------------------------------------------


async def test_a_script_file_is_the_default_model(tmp_path: Path) -> None:
    path = tmp_path / "script.toml"
    path.write_text('steps = [[{ text = "from the file" }]]', "utf-8")
    environ = OPENAI | {"COUNTERMAND_OFFLINE_SCRIPT": str(path)}
    async with open_models(ModelSettings(), environ) as models:
        assert (models.default_name, models.small_name) == ("offline/script", "offline/helper")
        assert text_of(await ask(models.get())) == "from the file"
        assert "You asked" in text_of(await ask(models.get("offline/helper"), request(user())))
        assert models.statistics()["offline"] == RequestStatistics(opened=2, closed=2)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot read the script"), (b"\xff", "cannot read the script"), (b'[[{"text": 1}]]', "step 1, action 1")],
)
async def test_a_script_file_that_is_no_good_is_refused_at_the_start(
    content: bytes | None, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "script.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=problem) as caught:
        await names({"COUNTERMAND_OFFLINE_SCRIPT": str(path)})
    assert caught.value.field == "COUNTERMAND_OFFLINE_SCRIPT"


# -- a provider chosen by the environment alone ------------------------------------------------------------------------


async def answers(models: Models) -> str:
    return text_of(await ask(models.get()))


@pytest.mark.slow
async def test_the_environment_alone_reaches_a_server() -> None:
    with trio.fail_after(20):
        async with open_openai_server() as server:
            server.enqueue(answer(say("Hello"), stop()))
            environ = OPENAI | {"OPENAI_BASE_URL": server.base_url, "COUNTERMAND_MODEL": "openai/mine"}
            async with open_models(ModelSettings(), environ) as models:
                assert await answers(models) == "Hello"
                assert models.statistics()["openai"] == RequestStatistics(opened=1, closed=1)
            assert server.requests[0].body["model"] == "mine"
            assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.slow
async def test_a_refused_key_says_where_keys_are_set() -> None:
    with trio.fail_after(20):
        async with open_openai_server() as server:
            server.enqueue(refusal(401, {"error": {"message": "no key"}}))
            environ = {"OPENAI_BASE_URL": server.base_url, "COUNTERMAND_MODEL": "openai/mine"}
            async with open_models(ModelSettings(), environ) as models:
                with pytest.raises(ModelError, match="OPENAI_API_KEY"):
                    await answers(models)
