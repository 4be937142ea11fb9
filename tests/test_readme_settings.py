"""The README has every key of the configuration, with its default; and the examples in it can be read."""

import re
import tomllib
from pathlib import Path

from engine.agents.context_files import NAMES
from engine.config import Config, load_config, variable_of
from engine.settings import EngineSettings
from engine.workspace_config import WORKSPACE_FILE, WorkspaceConfig, load_workspace_config
from tests.doubles.transcripts import read_blocks
from tests.settings_in_readme import document, rows_of, settings_of

README = Path(__file__).parent.parent / "README.md"
ELSEWHERE = {"engine.data_dir"}  # a flag


def test_every_key_is_in_the_table_with_its_default() -> None:
    expected = {key: default for key, default in settings_of(Config) if key not in ELSEWHERE}
    assert rows_of(document(README)) == expected


def test_every_key_that_a_workspace_may_set_is_named() -> None:
    text = document(README).partition("### The configuration of a workspace")[2]
    for key, _ in settings_of(WorkspaceConfig):
        assert f"`{key}`" in text or (key.startswith("options.") and "those below `options`" in text), key


def test_the_examples_can_be_read(tmp_path: Path) -> None:
    server, workspace = [block.text for block in read_blocks(README) if block.kind == "toml"]
    (tmp_path / "config.toml").write_text(server)
    assert load_config(tmp_path, {}).engine.max_active_runs == 16
    (tmp_path / WORKSPACE_FILE).parent.mkdir()
    (tmp_path / WORKSPACE_FILE).write_text(workspace)
    assert load_workspace_config(tmp_path).models.model == tomllib.loads(workspace)["models"]["model"]


def test_every_file_that_the_agent_is_told_by_itself_is_named() -> None:
    assert all(f"`{name}`" in document(README) for name in NAMES)


def test_no_variable_stands_for_two_things() -> None:
    named = set(re.findall(r"COUNTERMAND_[A-Z_]+", document(README)))
    others = named - {"COUNTERMAND_MAX_ACTIVE_RUNS", "COUNTERMAND_DATA_DIR"}
    assert others.isdisjoint(variable_of(field) for field in EngineSettings.__struct_fields__)
