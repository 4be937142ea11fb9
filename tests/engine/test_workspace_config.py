"""The configuration of a workspace: it tells and narrows, it grants nothing, and it stops nobody else."""

from pathlib import Path

import pytest

from engine.backend import NewWorkspace, open_backend
from engine.errors import ConfigInvalid
from engine.options import Options
from engine.records.run import Prompt
from engine.settings import EngineSettings
from engine.workspace_config import NOTHING, WORKSPACE_FILE, load_workspace_config
from tests.doubles.engine import ScriptedAgent


def write_config(root: Path, text: str) -> None:
    """Put a configuration into a workspace."""
    (root / WORKSPACE_FILE).parent.mkdir(parents=True, exist_ok=True)
    (root / WORKSPACE_FILE).write_text(text)


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    assert load_workspace_config(tmp_path) is NOTHING
    (tmp_path / ".countermand").write_text("a file in the place of the directory")
    assert load_workspace_config(tmp_path) is NOTHING


def test_it_narrows_what_the_server_allows_and_widens_nothing(tmp_path: Path) -> None:
    write_config(tmp_path, '[engine]\ndisabled_tools = ["fetch"]\ndefault_timeout_s = 100')
    config = load_workspace_config(tmp_path)
    wide = config.narrow(EngineSettings(disabled_tools=frozenset({"bash"}), default_timeout_s=1000))
    assert (wide.disabled_tools, wide.default_timeout_s) == (frozenset({"bash", "fetch"}), 100.0)
    assert config.narrow(EngineSettings(default_timeout_s=10)).default_timeout_s == 10


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ('[engine]\nallowed_tools = ["bash"]', "engine.allowed_tools", "only the operator"),
        ('[engine]\nfetch_networks = ["10.0.0.0/8"]', "engine.fetch_networks", "only the operator"),
        ('[models.providers.openai]\nbase_url = "http://evil.example"', "models.providers", "only the operator"),
        ("[engine]\ndefault_timeout_s = 'long'", "engine.default_timeout_s", "expected `float"),
        ("[engine]\ndefault_timeout_s = -1", "engine.default_timeout_s", "> 0"),
        ("[options]\nno_such = 1", "options.no_such", "there is no such key"),
        ("[hooks]\nx = 1", "hooks", "there is no such key"),
        ("[engine", "config.toml", "cannot be read"),
        ("[engine]\ndefault_timeout_s = " + 5000 * "1", "config.toml", "cannot be read"),
        ('[options]\ncontext_paths = ["a\\u0000b"]', "options.context_paths[0]", "matching regex"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(text: str, field: str, problem: str, tmp_path: Path) -> None:
    write_config(tmp_path, text)
    with pytest.raises(ConfigInvalid, match=problem) as caught:
        load_workspace_config(tmp_path)
    assert caught.value.field.endswith(field)
    assert str(tmp_path / WORKSPACE_FILE) in str(caught.value)


def test_a_file_that_leads_out_of_the_workspace_is_not_read(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "secret.toml"
    (inside / ".countermand").mkdir(parents=True)
    outside.write_text("[options]\nsecret = 1")
    (inside / WORKSPACE_FILE).symlink_to(outside)
    with pytest.raises(ConfigInvalid, match="leads out") as caught:
        load_workspace_config(inside)
    assert "secret = 1" not in str(caught.value)


async def test_a_wrong_file_stops_its_own_workspace_and_no_other(tmp_path: Path, autojump_clock: object) -> None:
    for name in ("wrong", "right"):
        (tmp_path / name).mkdir()
    write_config(tmp_path / "wrong", "[engine]\nallowed_tools = ['bash']")
    async with open_backend(EngineSettings(data_dir=None), environ={}, agent=ScriptedAgent()) as backend:
        right = await backend.create_workspace(NewWorkspace(path=str(tmp_path / "right")))
        with pytest.raises(ConfigInvalid, match=r"engine\.allowed_tools"):
            await backend.create_workspace(NewWorkspace(path=str(tmp_path / "wrong")))
        session = await right.sessions.create("still there")
        accepted = await right.accept(Prompt(session_id=session.id, text="hi"))
        assert (await right.wait_run(accepted.run.id, 60)).state == "completed"
        write_config(tmp_path / "wrong", "")
        assert (await backend.create_workspace(NewWorkspace(path=str(tmp_path / "wrong")))).config == NOTHING


async def test_its_model_answers_unless_somebody_chose_another(tmp_path: Path, autojump_clock: object) -> None:
    write_config(tmp_path, '[models]\nmodel = "offline/script"')
    async with open_backend(EngineSettings(data_dir=None), environ={}, agent=ScriptedAgent()) as backend:
        workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
        assert workspace.chosen_model("large") == "offline/script"
        assert workspace.chosen_model("small") == "offline/helper"
        await workspace.choose_model("large", "offline/helper")
        assert workspace.chosen_model("large") == "offline/helper"


async def test_the_environment_wins_over_its_model(tmp_path: Path, autojump_clock: object) -> None:
    write_config(tmp_path, '[models]\nmodel = "offline/script"')
    environ = {"COUNTERMAND_MODEL": "offline/helper"}
    async with open_backend(EngineSettings(data_dir=None), environ=environ, agent=ScriptedAgent()) as backend:
        workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
        assert workspace.chosen_model("large") == "offline/helper"


async def test_a_model_that_there_is_not_is_named(tmp_path: Path, autojump_clock: object) -> None:
    write_config(tmp_path, '[models]\nsmall_model = "no/such"')
    async with open_backend(EngineSettings(data_dir=None), environ={}, agent=ScriptedAgent()) as backend:
        with pytest.raises(ConfigInvalid, match=r"models\.small_model: there is no provider 'no'"):
            await backend.create_workspace(NewWorkspace(path=str(tmp_path)))


async def test_its_options_win_over_those_of_the_server(tmp_path: Path, autojump_clock: object) -> None:
    write_config(tmp_path, '[options]\ninitialize_as = "RULES.md"\n[options.tui]\ntransparent = true')
    options = Options(initialize_as="AGENTS.md", context_paths=("docs/a.md",))
    settings = EngineSettings(data_dir=None)
    async with open_backend(settings, environ={}, agent=ScriptedAgent(), options=options) as backend:
        workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
        found = workspace.preferences.in_force().options
    assert (found.initialize_as, found.context_paths) == ("RULES.md", ("docs/a.md",))
