"""A workspace may name more files that tell its agent about it."""

from pathlib import Path

from engine.agents.coder import CoderAgent
from engine.agents.context_files import read_context_files
from engine.backend import NewWorkspace, open_backend
from engine.models.offline import HELPER
from engine.records.run import Prompt
from engine.settings import EngineSettings
from engine.workspace_config import WORKSPACE_FILE
from tests.doubles.coder import RecordingModel


def test_r32_files_that_are_named_are_read_inside_the_workspace_alone(tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (tmp_path / "secret.md").write_text("secret")
    (root / "rules.md").write_text("Use tabs.")
    found = read_context_files(root, ("rules.md", "../secret.md", str(tmp_path / "secret.md"), "nothing.md"))
    assert [(file.name, file.text) for file in found] == [("rules.md", "Use tabs.")]


async def test_the_files_of_a_workspace_are_told_to_its_agent_and_to_no_other(
    tmp_path: Path, autojump_clock: object
) -> None:
    for name in ("one", "other"):
        (tmp_path / name / ".countermand").mkdir(parents=True)
        (tmp_path / name / "rules.md").write_text(f"The rules of {name}.")
    (tmp_path / "one" / WORKSPACE_FILE).write_text('[options]\ncontext_paths = ["rules.md"]')
    model = RecordingModel()
    async with open_backend(EngineSettings(data_dir=None), environ={}) as backend:
        assert isinstance(backend._agent, CoderAgent)
        backend.models._offline_models[HELPER] = model
        for name in ("one", "other"):
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path / name)))
            session = await workspace.sessions.create("")
            accepted = await workspace.accept(Prompt(session_id=session.id, text="hello"))
            await workspace.wait_run(accepted.run.id, 60)
        told = [request.system for request in model.requests if "project in" in request.system]
    assert ["The rules of one." in system for system in told] == [True, False]
    assert not any("The rules of other." in system for system in told)
