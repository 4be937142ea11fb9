"""The configuration file: read, checked, and wrong in ways that are said."""

import os
from pathlib import Path

import pytest

from engine.config import CONFIG_ENV, SMALL_MODEL_ENV, Config, load_config
from engine.errors import ConfigInvalid

GOOD = """
[engine]
max_active_runs = 3
default_timeout_s = 600
[models]
model = "local/small"
[models.providers.local]
base_url = "http://127.0.0.1:9/v1"
api_key = "sk-not-to-be-shown"
"""


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_config(tmp_path, {}) == Config()


def test_the_file_in_the_data_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(GOOD)
    config = load_config(tmp_path, {})
    assert config.engine_in(tmp_path, drain_s=None).max_active_runs == 3
    assert config.engine_in(tmp_path, drain_s=1.0).drain_s == 1.0
    assert config.models.model == "local/small"
    assert "sk-not" not in repr(config)


def test_the_named_file_wins_and_must_be_there(tmp_path: Path) -> None:
    named = tmp_path / "other.toml"
    with pytest.raises(ConfigInvalid, match="there is no file"):
        load_config(tmp_path, {CONFIG_ENV: str(named)})
    named.write_text(GOOD)
    assert load_config(tmp_path, {CONFIG_ENV: str(named)}).engine.max_active_runs == 3


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[engine", "cannot be read"),
        ("[engine]\nmax_active_runs = 'many'", r"config\.toml: engine\.max_active_runs: expected `int`"),
        ("[engine]\nunknown = 1", r"engine\.unknown: there is no such key"),
        ("[options.tui]\nscrollbar = 'none'", r"options\.tui\.scrollbar: invalid enum value"),
        ("[engine]\ndata_dir = '/tmp'", "--data-dir"),
        ("[models]\nmodle = 'x/y'", "modle"),
        ("[models.providers.p]\nbase_url = 1", "base_url"),
    ],
)
def test_what_is_wrong_is_named(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigInvalid, match=fault):
        load_config(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("COUNTERMAND_MAX_ACTIVE_RUNS", "5", "max_active_runs", 5),
        ("COUNTERMAND_DEFAULT_TIMEOUT_S", "1.5", "default_timeout_s", 1.5),
        ("COUNTERMAND_IDLE_TIMEOUT_S", "60", "idle_timeout_s", 60.0),
        ("COUNTERMAND_DISABLED_TOOLS", "write, bash,", "disabled_tools", frozenset({"write", "bash"})),
        ("COUNTERMAND_FETCH_NETWORKS", "10.1.0.0/16", "fetch_networks", ("10.1.0.0/16",)),
        ("COUNTERMAND_MAX_ACTIVE_RUNS", " ", "max_active_runs", 3),
        ("COUNTERMAND_DATA_DIR", "/elsewhere", "data_dir", None),
    ],
)
def test_the_environment_wins_over_the_file(name: str, text: str, field: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(GOOD)
    assert getattr(load_config(tmp_path, {name: text}).engine, field) == value


@pytest.mark.parametrize(("name", "text"), [("COUNTERMAND_MAX_ACTIVE_RUNS", "many"), ("COUNTERMAND_EVENT_KEEP", "1")])
def test_a_variable_that_cannot_be_used_is_named(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=f"^{name}: ") as caught:
        load_config(tmp_path, {name: text})
    assert caught.value.field == name


def test_the_small_model_is_named_in_the_environment_too(tmp_path: Path) -> None:
    assert load_config(tmp_path, {SMALL_MODEL_ENV: "local/tiny"}).models.small_model == "local/tiny"


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(ConfigInvalid, match="is no file"):
        load_config(tmp_path, {})
