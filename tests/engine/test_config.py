"""The configuration file: read, checked, and wrong in ways that are said."""

from pathlib import Path

import pytest

from engine.config import CONFIG_ENV, Config, load_config
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
        ("[engine]\nmax_active_runs = 'many'", r"\$\.engine\.max_active_runs"),
        ("[engine]\nunknown = 1", "unknown"),
        ("[engine]\ndata_dir = '/tmp'", "--data-dir"),
        ("[models]\nmodle = 'x/y'", "modle"),
        ("[models.providers.p]\nbase_url = 1", "base_url"),
    ],
)
def test_what_is_wrong_is_named(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigInvalid, match=fault):
        load_config(tmp_path, {})
