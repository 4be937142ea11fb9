"""The configuration of a server: flags, environment variables, and a file; the first that says something wins.

The file is `config.toml` in the data directory, or the one that `COUNTERMAND_CONFIG` names.

[engine]                      # EngineSettings by name; times in seconds
max_active_runs = 16          # COUNTERMAND_MAX_ACTIVE_RUNS wins over it

[models]
model = "local/llama3.2"      # COUNTERMAND_MODEL wins over it

[models.providers.local]
base_url = "http://127.0.0.1:11434/v1"
api_key_env = "LOCAL_KEY"     # the variable that holds the key

[options]
context_paths = ["docs/RULES.md"]

What one workspace says for itself stands in `engine/workspace_config.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import get_origin, get_type_hints

import msgspec

from engine.errors import ConfigInvalid
from engine.models.settings import ModelSettings
from engine.options import Options
from engine.settings import EngineSettings
from engine.toml_file import convert, read_toml

CONFIG_ENV = "COUNTERMAND_CONFIG"
CONFIG_FILE = "config.toml"
PREFIX = "COUNTERMAND_"
SMALL_MODEL_ENV = "COUNTERMAND_SMALL_MODEL"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says. The engine's settings without the data directory, in which the file may lie itself."""

    engine: EngineSettings = EngineSettings()
    models: ModelSettings = ModelSettings()
    options: Options = Options()

    def engine_in(self, data_dir: Path, **given: float | None) -> EngineSettings:
        """The engine's settings for a data directory; what is given and not None wins over the file."""
        said = {name: value for name, value in given.items() if value is not None}
        return msgspec.structs.replace(self.engine, data_dir=data_dir, **said)


def load_config(data_dir: Path, environ: Mapping[str, str]) -> Config:
    """Read the configuration; the defaults where nothing is said. Raises ConfigInvalid, naming the file and the field,
    or the variable."""
    named = environ.get(CONFIG_ENV)
    path = Path(named) if named else data_dir / CONFIG_FILE
    data = read_toml(path)
    if data is None and named:
        raise ConfigInvalid(CONFIG_ENV, f"there is no file {str(path)!r}")
    data = data or {}
    if isinstance(engine := data.get("engine"), dict) and "data_dir" in engine:
        raise ConfigInvalid("engine.data_dir", "cannot be set in the file; use --data-dir", file=str(path))
    return _overridden(convert(data, Config, str(path)), environ)


def variable_of(field: str) -> str:
    """The environment variable that wins over a field of `[engine]`."""
    return PREFIX + field.upper()


def _overridden(config: Config, environ: Mapping[str, str]) -> Config:
    engine, models = config.engine, config.models
    for field, kind in get_type_hints(EngineSettings, include_extras=True).items():
        text = environ.get(variable_of(field), "").strip()
        if not text or field == "data_dir":  # the command line has a word in that one
            continue
        is_list = get_origin(kind) in (tuple, frozenset)
        given = [each.strip() for each in text.split(",") if each.strip()] if is_list else text
        try:
            value = msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigInvalid(variable_of(field), f"{str(error)[:1].lower()}{str(error)[1:]}") from None
        engine = msgspec.structs.replace(engine, **{field: value})
    if small := environ.get(SMALL_MODEL_ENV, "").strip():
        models = msgspec.structs.replace(models, small_model=small)
    return msgspec.structs.replace(config, engine=engine, models=models)
