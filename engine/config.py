"""The configuration file: `config.toml` in the data directory, or the one that `COUNTERMAND_CONFIG` names.

[engine]                      # EngineSettings by name; times in seconds
max_active_runs = 16
default_timeout_s = 600.0

[models]
model = "local/llama3.2"      # COUNTERMAND_MODEL wins over it

[models.providers.local]
base_url = "http://127.0.0.1:11434/v1"
api_key_env = "LOCAL_KEY"     # the variable that holds the key
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from engine.errors import ConfigInvalid
from engine.models.settings import ModelSettings, decode_secret
from engine.settings import EngineSettings

CONFIG_ENV = "COUNTERMAND_CONFIG"
CONFIG_FILE = "config.toml"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says. The engine's settings without the data directory, in which the file may lie itself."""

    engine: EngineSettings = EngineSettings()
    models: ModelSettings = ModelSettings()

    def engine_in(self, data_dir: Path, **given: float | None) -> EngineSettings:
        """The engine's settings for a data directory; what is given and not None wins over the file."""
        said = {name: value for name, value in given.items() if value is not None}
        return msgspec.structs.replace(self.engine, data_dir=data_dir, **said)


def load_config(data_dir: Path, environ: Mapping[str, str]) -> Config:
    """Read the configuration; the defaults if there is no file. Raises ConfigInvalid, naming the file and the field."""
    named = environ.get(CONFIG_ENV)
    path = Path(named) if named else data_dir / CONFIG_FILE
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigInvalid(CONFIG_ENV, f"there is no file {str(path)!r}") from None
        return Config()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigInvalid(str(path), f"cannot be read: {error}") from None
    if isinstance(engine := data.get("engine"), dict) and "data_dir" in engine:
        raise ConfigInvalid(str(path), "engine.data_dir cannot be set in the file; use --data-dir")
    try:
        return msgspec.convert(data, Config, dec_hook=decode_secret)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(str(path), str(error)) from None
