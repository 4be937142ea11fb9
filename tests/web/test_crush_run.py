"""What `crush run` and the terminal client of Crush do, request by request, against the whole service.

The client here reads what Crush's client reads, in its order, and ends as it ends.
"""

import base64
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from tests.doubles.asgi_client import AsgiClient, Stream
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.web.api import CLIENT, OTHER_CLIENT, open_api
from web.auth import WebSettings

RUN_ID = "9a0e5b1c-0a3c-4f0e-8f37-0a6f4f0c9d11"


class CrushRun:
    """`crush run`, as far as the wire knows it."""

    def __init__(self, app: Any, client_id: str = CLIENT) -> None:
        self.client_id = client_id
        self.http = AsgiClient(app, headers={"Host": "api.crush.localhost", "User-Agent": "Go-http-client/1.1"})
        self.w = ""
        self.session_id = ""

    async def ok(self, method: str, path: str, json: Any = None) -> Any:
        """A call that must succeed with exactly 200."""
        answer = await self.http.request(method, path, json=json, headers={"Content-Type": "application/json"})
        assert answer.status == 200, answer
        return answer.json() if answer.body else None

    async def start(self, path: str, env: list[str]) -> None:
        """Steps 2 to 11."""
        version = await self.ok("GET", "/v1/version")
        assert isinstance(version["version"], str)
        assert isinstance(version["build_id"], str)
        await self.ok("GET", "/v1/health")
        workspace = await self.ok(
            "POST",
            "/v1/workspaces",
            {"id": "", "path": path, "debug": True, "version": "v0.99.0", "client_id": self.client_id, "env": env},
        )
        check_config(workspace["config"])
        assert "env" not in workspace
        self.w = f"/v1/workspaces/{workspace['id']}"
        await self.ok("POST", f"{self.w}/agent/init", {"interactive": False})
        assert (await self.ok("GET", f"{self.w}/agent"))["is_ready"] is True
        await self.ok("POST", f"{self.w}/agent/update")
        self.session_id = (await self.ok("POST", f"{self.w}/sessions", {"title": "non-interactive"}))["id"]

    async def prompt(self, text: str, run_id: str = RUN_ID) -> int:
        """Step 14."""
        body = {"session_id": self.session_id, "run_id": run_id, "prompt": text}
        return (await self.http.post(f"{self.w}/agent", body)).status

    async def wait(self, stream: Stream, run_id: str = RUN_ID) -> tuple[str, str]:
        """Step 15: what it prints, and the error it exits with."""
        with trio.fail_after(60):
            while True:
                event = await stream.receive_event()
                payload = event["payload"]["payload"]
                if event["type"] == "message":
                    assert "parts" in payload
                elif event["type"] == "agent_event":
                    assert "message" not in payload
                    if payload.get("error") and payload.get("run_id") in ("", None, run_id):
                        return "", payload["error"]
                elif event["type"] == "run_complete" and payload.get("run_id") == run_id:
                    if payload.get("error") and not payload.get("cancelled"):
                        return "", payload["error"]
                    return (payload.get("text", "") if payload["message_id"] else ""), ""


def check_config(config: dict[str, Any]) -> None:
    """What the client uses without looking whether it is there (1.7)."""
    assert any(not each.get("disable") for each in config["providers"].values())
    assert isinstance(config["options"]["tui"], dict)
    assert isinstance(config["options"]["data_directory"], str)
    assert config["options"]["disable_metrics"] is True
    for provider in config["providers"].values():
        assert {"api_key", "oauth", "extra_headers"}.isdisjoint(provider)
    for size in ("large", "small"):
        assert {"model", "provider"} <= set(config["models"][size])


async def test_crush_run_gets_its_answer(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        crush = CrushRun(api.app)
        await crush.start(str(tmp_path), ["HOME=/root", f"PWD={tmp_path}", "OPENAI_API_KEY=sk-secret"])
        async with crush.http.stream("GET", f"{crush.w}/events?client_id={CLIENT}") as stream:
            assert stream.status == 200
            assert await crush.prompt("hello") == 202
            assert await crush.wait(stream) == ("You said: hello", "")
        await crush.ok("DELETE", f"/v1/clients/{CLIENT}")
        await crush.ok("DELETE", f"/v1/clients/{CLIENT}")
        again = await crush.http.post("/v1/workspaces", {"path": str(tmp_path), "client_id": CLIENT})
        assert (again.status, again.json()["type"]) == (409, "client_retired")


async def test_a_relative_directory_is_taken_from_where_the_client_stood(
    tmp_path: Path, autojump_clock: object
) -> None:
    await trio.Path(tmp_path / "proj").mkdir()
    async with open_api(tmp_path) as api:
        crush = CrushRun(api.app)
        await crush.start("proj", [f"PWD={tmp_path}"])
        assert (await crush.ok("GET", crush.w))["path"] == str(tmp_path / "proj")


async def test_crush_run_fails_when_the_run_fails(tmp_path: Path, autojump_clock: object) -> None:
    async def respond(turn: Turn) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("boom")

    async with open_api(tmp_path, agent=ScriptedAgent(respond)) as api:
        crush = CrushRun(api.app)
        await crush.start(str(tmp_path), [])
        async with crush.http.stream("GET", f"{crush.w}/events?client_id={CLIENT}") as stream:
            await crush.prompt("hello")
            printed, error = await crush.wait(stream)
    assert printed == ""
    assert error


async def test_crush_run_ends_well_when_another_client_cancels(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()

    async def respond(turn: Turn) -> None:
        turn.say("as far as I got")
        await gate.pass_through()

    async with open_api(tmp_path, agent=ScriptedAgent(respond)) as api:
        crush, other = CrushRun(api.app), CrushRun(api.app, OTHER_CLIENT)
        await crush.start(str(tmp_path), [])
        await other.start(str(tmp_path), [])
        assert other.w == crush.w
        async with crush.http.stream("GET", f"{crush.w}/events?client_id={CLIENT}") as stream:
            await crush.prompt("hello")
            await gate.reached()
            await other.ok("POST", f"{crush.w}/agent/sessions/{crush.session_id}/cancel")
            assert await crush.wait(stream) == ("as far as I got", "")


async def test_every_starting_client_leaves_the_others_work_alone(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()

    async def respond(turn: Turn) -> None:
        await gate.pass_through()
        turn.say("done")

    async with open_api(tmp_path, agent=ScriptedAgent(respond)) as api:
        crush = CrushRun(api.app)
        await crush.start(str(tmp_path), [])
        async with crush.http.stream("GET", f"{crush.w}/events?client_id={CLIENT}") as stream:
            await crush.prompt("hello")
            await gate.reached()
            await CrushRun(api.app, OTHER_CLIENT).start(str(tmp_path), [])  # agent/init and agent/update
            assert (await crush.ok("GET", f"{crush.w}/agent"))["is_busy"] is True
            gate.open()
            assert await crush.wait(stream) == ("done", "")


async def test_the_model_flags_of_crush_run(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        crush = CrushRun(api.app)
        await crush.start(str(tmp_path), [])
        config = await crush.ok("GET", f"{crush.w}/config")
        assert {each["id"] for each in config["providers"]["offline"]["models"]} == {"helper", "script"}
        chosen = {
            "scope": 1,
            "model_type": "large",
            "model": {"model": "script", "provider": "offline", "think": False},
        }
        async with crush.http.stream("GET", f"{crush.w}/events?client_id={CLIENT}") as stream:
            await crush.ok("POST", f"{crush.w}/config/model", chosen)
            assert (await stream.receive_event())["type"] == "config_changed"
        small = await crush.ok("GET", f"{crush.w}/agent/default-small-model?provider_id=offline")
        assert (small["provider"], small["model"]) == ("offline", "helper")
        assert await crush.ok("GET", f"{crush.w}/agent/default-small-model") == small
        agent = await crush.ok("GET", f"{crush.w}/agent")
        assert (agent["model"]["id"], agent["model_cfg"]["model"]) == ("script", "script")
        assert set(agent["model"]) >= {"context_window", "default_max_tokens", "supports_attachments", "can_reason"}
        assert (await crush.ok("GET", f"{crush.w}/providers"))[0]["id"] == "offline"
        assert await crush.ok("GET", "/v1/config") == {}


async def test_sessions_as_the_terminal_client_uses_them(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        crush = CrushRun(api.app)
        await crush.start(str(tmp_path), [])
        one = await crush.ok("GET", f"{crush.w}/sessions/{crush.session_id}")
        assert one["parent_session_id"] == ""
        # It renames by sending the whole session back; what it cannot know better is not taken from it.
        renamed = await crush.ok("PUT", f"{crush.w}/sessions/{one['id']}", {**one, "title": "new", "prompt_tokens": 9})
        assert (renamed["title"], renamed["prompt_tokens"]) == ("new", 0)
        todos = [{"content": "Write tests", "status": "in_progress", "active_form": "Writing tests"}]
        saved = await crush.ok("PUT", f"{crush.w}/sessions/{one['id']}", {"id": one["id"], "todos": todos})
        assert (saved["title"], saved["todos"]) == ("new", todos)
        assert crush.session_id in {each["id"] for each in await crush.ok("GET", f"{crush.w}/sessions")}
        assert (await crush.ok("GET", f"{crush.w}/agent/sessions/{one['id']}"))["is_busy"] is False
        await crush.ok("DELETE", f"{crush.w}/sessions/{one['id']}")
        assert (await crush.http.get(f"{crush.w}/sessions/{one['id']}")).status == 404


async def test_messages_of_a_turn_with_an_attachment(tmp_path: Path, autojump_clock: object) -> None:
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()
    async with open_api(tmp_path) as api:
        attachment = {"file_path": "a/b.png", "file_name": "b.png", "mime_type": "image/png", "content": png}
        sent = await api.send("look", attachments=[attachment])
        await api.ended(sent.json()["run_id"])
        user, assistant = (await api.client.get(f"{api.w}/sessions/{api.session_id}/messages")).json()
        assert [part["type"] for part in user["parts"]] == ["text", "binary", "finish"]
        assert user["parts"][1]["data"]["MIMEType"] == "image/png"
        assert user["parts"][1]["data"]["Data"] == png
        assert user["parts"][2]["data"] == {"reason": "stop", "time": 0}
        assert (assistant["role"], assistant["parts"][-1]["data"]["reason"]) == ("assistant", "end_turn")
        for path in (f"sessions/{api.session_id}/messages/user", "messages/user"):
            assert [each["id"] for each in (await api.client.get(f"{api.w}/{path}")).json()] == [user["id"]]


async def test_the_queue_can_be_read_and_cleared(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()

    async def respond(turn: Turn) -> None:
        await gate.pass_through()

    async with open_api(tmp_path, agent=ScriptedAgent(respond)) as api:
        queue = f"{api.w}/agent/sessions/{api.session_id}/prompts"
        assert (await api.client.get(f"{queue}/list")).json() == []
        await api.send("first", run_id="r1")
        await gate.reached()
        for number in (2, 3):
            await api.send(f"prompt {number}", run_id=f"r{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert (await api.client.get(f"{queue}/list")).json() == ["prompt 2", "prompt 3"]
        assert (await api.client.get(f"{queue}/queued")).json() == 2
        assert sorted((await api.client.post(f"{queue}/clear")).json()["canceled"]) == ["r2", "r3"]
        assert (await api.client.get(f"{queue}/queued")).json() == 0
        assert (await api.ended("r3"))["state"] == "canceled"
        gate.open()
        assert (await api.ended("r1"))["state"] == "completed"


async def test_a_server_that_was_told_to_stay_is_not_replaced_by_crushs_own(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path, web=WebSettings(leave_when_idle=False)) as api:
        await api.client.delete(api.w)
        answer = await api.client.post("/v1/control", {"command": "shutdown_if_idle"})
        assert (answer.status, answer.json()["type"]) == (409, "told_to_stay")
        assert not api.control.is_shutdown_requested


@pytest.mark.parametrize("command", ["shutdown", "shutdown_if_idle"])
async def test_a_server_is_told_to_leave_only_when_nothing_is_open(
    tmp_path: Path, autojump_clock: object, command: str
) -> None:
    async with open_api(tmp_path) as api:
        busy = await api.client.post("/v1/control", {"command": command})
        assert (busy.status, api.control.is_shutdown_requested) == (409, False)
        await api.client.delete(api.w)
        idle = await api.client.post("/v1/control", {"command": command}, headers={"Content-Type": "text/plain"})
        assert (idle.status, api.control.is_shutdown_requested) == (200, True)


async def test_crushs_terminal_gets_an_answer_to_everything_it_asks_at_its_start(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        crush = CrushRun(api.app)
        await crush.start(str(tmp_path), [])
        sid = crush.session_id
        await crush.ok("POST", f"{crush.w}/agent/init", {"interactive": True})
        assert await crush.ok("GET", f"{crush.w}/permissions/skip") == {"skip": False}
        assert await crush.ok("GET", f"{crush.w}/project/needs-init") == {"needs_init": True}
        async with crush.http.stream("GET", f"{crush.w}/events?client_id={CLIENT}"):
            assert await crush.ok("POST", f"{crush.w}/current-session?client_id={CLIENT}", {"session_id": sid}) is None
        nothing: list[tuple[str, object]] = [
            ("skills", []),
            ("messages/user", []),
            ("lsps", {}),
            ("mcp/states", {}),
            ("mcp/prompts", []),
            ("mcp/pending-auth", []),
            (f"sessions/{sid}/messages", []),
            (f"sessions/{sid}/messages/user", []),
            (f"sessions/{sid}/history", []),
            (f"sessions/{sid}/filetracker/files", []),
            (f"agent/sessions/{sid}/prompts/list", []),
        ]
        for path, empty in nothing:
            assert await crush.ok("GET", f"{crush.w}/{path}") == empty, path
        assert (await crush.ok("GET", f"{crush.w}/agent/sessions/{sid}"))["is_busy"] is False
        for path in ("lsps/stop", "lsps/start", "project/init", f"agent/sessions/{sid}/prompts/clear"):
            await crush.ok("POST", f"{crush.w}/{path}", {"path": "a.py"})


async def test_a_project_is_to_be_described_until_a_file_does_or_the_person_was_asked(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:

        async def needs_init() -> bool:
            needed: bool = (await api.client.get(f"{api.w}/project/needs-init")).json()["needs_init"]
            return needed

        assert await needs_init()
        await api.client.post(f"{api.w}/config/set", {"key": "options.initialize_as", "value": "RULES.md", "scope": 1})
        prompt = (await api.client.get(f"{api.w}/project/init-prompt")).json()["prompt"]
        assert "`RULES.md`" in prompt
        await trio.Path(tmp_path / "RULES.md").write_text("Use tabs.")
        assert not await needs_init()
        await trio.Path(tmp_path / "RULES.md").unlink()
        assert await needs_init()
        await api.client.post(f"{api.w}/project/init")
        assert not await needs_init()


@pytest.mark.parametrize(
    ("method", "path", "body", "type"),
    [
        ("GET", "lsps/gopls/diagnostics", None, "lsp_not_found"),
        ("POST", "skills/read", {"skill_id": "pdf"}, "skill_not_found"),
        ("GET", "mcp/auth-url?name=x", None, "mcp_not_found"),
        ("POST", "mcp/auth", {"name": "x"}, "mcp_not_found"),
        ("POST", "mcp/refresh-tools", {"name": "x"}, "mcp_not_found"),
        ("POST", "mcp/refresh-prompts", {"name": "x"}, "mcp_not_found"),
        ("POST", "mcp/refresh-resources", {"name": "x"}, "mcp_not_found"),
        ("POST", "mcp/read-resource", {"name": "x", "uri": "a://b"}, "mcp_not_found"),
        ("POST", "mcp/get-prompt", {"client_id": "x", "prompt_id": "y", "args": {}}, "mcp_not_found"),
    ],
)
async def test_what_there_is_none_of_is_not_found_by_any_name(
    method: str, path: str, body: Any, type: str, tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.client.request(method, f"{api.w}/{path}", json=body)
        assert (answer.status, answer.json()["type"]) == (404, type)
