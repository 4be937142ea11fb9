"""The configuration over the API: what is set is kept and given back, and what is the operator's is refused."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engine.backend import NewWorkspace, open_backend
from engine.settings import EngineSettings
from tests.doubles.engine import ScriptedAgent
from tests.web.api import Api, open_api, read_until
from web.auth import TokenStore, WebSettings

RECENT = [{"model": "big-1", "provider": "local", "max_tokens": 8192, "provider_options": {"a": [1, {"b": None}]}}]


async def config_of(api: Api) -> dict[str, Any]:
    """The configuration as a client reads it."""
    config: dict[str, Any] = (await api.client.get(f"{api.w}/config")).json()
    return config


async def put(api: Api, key: str, value: Any, scope: int = 1) -> int:
    """Set something; the status."""
    body = {"scope": scope, "key": key, "value": value}
    return (await api.client.post(f"{api.w}/config/set", body)).status


async def test_what_crushs_terminal_sets_is_given_back_and_told(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events?cursor=latest") as stream:
        assert await put(api, "options.tui.transparent", True, scope=0) == 200
        told = (await read_until(stream, "config_changed"))[-1]
        assert told["payload"]["payload"] == {"workspace_id": api.w.rpartition("/")[2]}
        assert await put(api, "options.notifications", "bell", scope=0) == 200
        assert await put(api, "recent_models.large", RECENT, scope=0) == 200
        assert (await api.client.post(f"{api.w}/config/compact", {"scope": 0, "enabled": True})).status == 200
        config = await config_of(api)
    assert config["options"]["tui"] == {"transparent": True, "compact_mode": True}
    assert config["options"]["notifications"] == "bell"
    assert config["recent_models"] == {"large": RECENT}
    assert config["mcp"] == config["lsp"] == {}


async def test_a_workspace_wins_over_the_server_and_is_forgotten_alone(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        await put(api, "options.tui.scrollbar", "always", scope=0)
        await put(api, "options.tui", {"scrollbar": "never", "completions": {"max_depth": 3}})
        assert (await config_of(api))["options"]["tui"] == {"scrollbar": "never", "completions": {"max_depth": 3}}
        await put(api, "options.tui.completions.max_items", 9)
        await api.client.post(f"{api.w}/config/remove", {"scope": 1, "key": "options.tui.scrollbar"})
        tui = (await config_of(api))["options"]["tui"]
        assert tui == {"scrollbar": "always", "completions": {"max_depth": 3, "max_items": 9}}
        await api.client.post(f"{api.w}/config/remove", {"scope": 1, "key": "options"})
        assert (await config_of(api))["options"]["tui"] == {"scrollbar": "always"}


async def test_what_was_set_is_there_after_a_restart(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    with trio.fail_after(30):
        for number in range(2):
            settings = EngineSettings(data_dir=tmp_path / "data")
            async with open_backend(settings, environ={}, agent=ScriptedAgent()) as backend:
                workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path / "project")))
                if number == 0:
                    await workspace.preferences.put("options.progress", False)
                    await workspace.preferences.put("options.initialize_as", "RULES.md", everywhere=True)
                options = workspace.preferences.in_force().options
                assert (options.progress, options.initialize_as) == (False, "RULES.md")


@pytest.mark.parametrize(
    "key",
    [
        "providers.openai.api_key",
        "providers.openai.base_url",
        "permissions.allowed_tools",
        "engine.allowed_tools",
        "mcp.x.command",
        "hooks",
        "env.PATH",
    ],
)
async def test_what_gives_rights_is_refused_by_name(key: str, tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        before = await config_of(api)
        for path, body in (("set", {"key": key, "value": "x"}), ("remove", {"key": key})):
            answer = await api.client.post(f"{api.w}/config/{path}", {"scope": 0, **body})
            assert (answer.status, answer.json()["type"], answer.json()["field"]) == (403, "config_refused", "key")
            assert key in answer.json()["message"]
        assert await config_of(api) == before


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("options.no_such", 1, "value"),
        ("options.tui.scrollbar", "sometimes", "value"),
        ("options.tui", "dark", "value"),
        ("options", None, "value"),
        ("recent_models.large", [{"model": "m"}], "value"),
        ("recent_models.huge", [], "value"),
        ("options.context_paths", ["x" * 900] * 80, "value"),
        ("options..tui", 1, "key"),
        ("nonsense", 1, "key"),
        ("options." + "x" * 250, 1, "key"),
    ],
)
async def test_what_cannot_stand_there_is_refused(
    key: str, value: Any, field: str, tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        before = await config_of(api)
        answer = await api.client.post(f"{api.w}/config/set", {"scope": 1, "key": key, "value": value})
        assert (answer.status, answer.json()["field"]) == (400, field), answer
        assert await config_of(api) == before


async def test_keys_and_sign_ins_of_providers_are_answered_honestly(tmp_path: Path, autojump_clock: object) -> None:
    secret = "sk-not-to-be-kept"
    async with open_api(tmp_path) as api:
        body = {"scope": 0, "provider_id": "openai", "kind": "string", "api_key": secret}
        refused = await api.client.post(f"{api.w}/config/provider-key", body)
        assert (refused.status, refused.json()["type"]) == (403, "config_refused")
        assert secret not in refused.body.decode()
        assert secret not in msgspec.json.encode(await config_of(api)).decode()
        imported = await api.client.post(f"{api.w}/config/import-copilot")
        assert (imported.status, imported.json()) == (200, {"token": None, "success": False})
        unknown = await api.client.post(f"{api.w}/config/refresh-oauth", {"provider_id": "no"})
        assert (unknown.status, unknown.json()["type"]) == (404, "provider_not_found")
        known = await api.client.post(f"{api.w}/config/refresh-oauth", {"provider_id": "offline"})
        assert (known.status, known.json()["type"]) == (400, "no_oauth")


async def test_only_an_admin_sets_anything(tmp_path: Path, autojump_clock: object) -> None:
    tokens = TokenStore(tmp_path / "tokens.json")
    secret = tokens.create("ann", "run", now_us=0)
    async with open_api(tmp_path, web=WebSettings(token_file=tmp_path / "tokens.json")) as api:
        for name in ("set", "remove", "compact", "provider-key", "import-copilot", "refresh-oauth"):
            answer = await api.tcp(secret).post(f"{api.w}/config/{name}", {})
            assert (answer.status, answer.json()["type"]) == (403, "scope_too_narrow"), name


async def test_a_wrong_file_of_a_workspace_is_told_with_its_field(tmp_path: Path, autojump_clock: object) -> None:
    wrong = tmp_path / "wrong" / ".countermand"
    wrong.mkdir(parents=True)
    (wrong / "config.toml").write_text("[engine]\nallowed_tools = ['bash']")
    async with open_api(tmp_path) as api:
        answer = await api.client.post("/v1/workspaces", {"path": str(wrong.parent)})
        assert (answer.status, answer.json()["type"]) == (400, "invalid_config")
        assert answer.json()["field"] == "engine.allowed_tools"
