"""Model settings are checked, and keys stay secret."""

import pickle

import msgspec
import pytest

from engine.errors import ConfigInvalid
from engine.models.settings import MASK, ModelSettings, ProviderSettings, Secret, decode_secret, encode_secret

KEY = "sk-hidden"


def test_settings_are_read_from_plain_data() -> None:
    entry = {"id": "m", "name": "M", "context_window": 8192, "cost_in": 1, "supports_attachments": True}
    settings = ModelSettings.from_data(
        {"model": "local/m", "providers": {"local": {"base_url": "http://x", "api_key": KEY, "models": [entry]}}}
    )
    provider = settings.providers["local"]
    assert settings.model == "local/m"
    assert provider.api_key == Secret(KEY)
    info = provider.models[0].as_info("local")
    assert (info.id, info.provider, info.name, info.context_window, info.cost_in) == ("m", "local", "M", 8192, 1.0)
    assert info.supports_attachments


def test_a_model_without_a_name_is_called_by_its_id() -> None:
    settings = ModelSettings.from_data({"providers": {"x": {"models": [{"id": "m"}]}}})
    assert settings.providers["x"].models[0].as_info("x").name == "m"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ([], "Expected `object`"),
        ({"modle": "x"}, "unknown field `modle`"),
        ({"model": 1}, r"`\$.model`"),
        ({"providers": {"x": {"type": "smoke-signals"}}}, "smoke-signals"),
        ({"providers": {"x": {"models": [{}]}}}, "missing required field `id`"),
        ({"providers": {"x": {"api_key": 7}}}, "api_key"),
        ({"providers": {"x": {"read_timeout_s": 0}}}, "> 0"),
        ({"providers": {"x": {"models": [{"id": "m", "cost_in": -1}]}}}, ">= 0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_with_their_place(data: object, problem: str) -> None:
    with pytest.raises(ConfigInvalid, match=problem) as caught:
        ModelSettings.from_data(data)
    assert caught.value.field == "models"


def test_a_secret_shows_nothing() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    settings = ModelSettings(providers={"x": ProviderSettings(api_key=secret)})
    assert KEY not in f"{secret}{secret!r}{[secret]}{settings}{settings!r}%s" % secret
    assert (
        msgspec.json.decode(msgspec.json.encode(settings, enc_hook=encode_secret))["providers"]["x"]["api_key"] == MASK
    )
    assert msgspec.to_builtins(secret, enc_hook=encode_secret) == MASK
    with pytest.raises(TypeError):
        msgspec.json.encode(settings)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)


def test_secrets_are_compared_by_what_they_hide() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a")
    assert not Secret("")


def test_a_key_is_hidden_in_a_text() -> None:
    assert Secret(KEY).hide_in(f"a {KEY} b {KEY}") == f"a {MASK} b {MASK}"
    assert Secret("").hide_in("text") == "text"


@pytest.mark.parametrize(("hook", "arguments"), [(decode_secret, (int, "x")), (encode_secret, (object(),))])
def test_the_hooks_leave_other_types_alone(hook: object, arguments: tuple[object, ...]) -> None:
    assert callable(hook)
    with pytest.raises(NotImplementedError):
        hook(*arguments)
