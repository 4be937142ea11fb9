"""`crush run` against a real server, request by request in its client's order (crush-wire.md 1.6, 1.8, 10.1)."""

import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio

from engine.settings import EngineSettings
from tests.doubles.live_server import MODEL_VARIABLES
from tests.http.go_client import (
    AGENT_INFO,
    CONFIG,
    MESSAGE,
    SELECTED,
    SESSION,
    VERSION,
    WORKSPACE,
    GoClient,
    ListOf,
    open_go_client,
    segment,
)
from web.auth import WebSettings
from web.control import ServerControl
from web.serve import ServerSettings, open_server

TEST_S = 30.0
SECRET = "sk-the-secret-of-whoever-called"
KINDS = pytest.mark.parametrize("kind", ["tcp", "unix"])


@pytest.fixture(autouse=True)
def _no_model_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(MODEL_VARIABLES):
            monkeypatch.delenv(name)


@dataclass
class Server:
    """A server that nobody has called yet."""

    addresses: dict[str, str]
    project: Path


@asynccontextmanager
async def open_fresh_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server on TCP and on a Unix socket at once, as `countermand serve` starts it."""
    project = tmp_path / "project"
    project.mkdir()
    with trio.fail_after(TEST_S), tempfile.TemporaryDirectory(prefix="cm") as directory:
        settings = ServerSettings(
            engine=EngineSettings(data_dir=tmp_path / "data", drain_s=0),
            hosts=("tcp://127.0.0.1:0", f"unix://{directory}/s"),
            web=WebSettings(open_loopback=True),
        )
        control = ServerControl()
        async with open_server(settings, control):
            tcp, unix = control.addresses
            yield Server({"tcp": tcp, "unix": unix}, project)


class Crush:
    """`crush run`: what one process knows."""

    def __init__(self, client: GoClient, kind: str, project: Path) -> None:
        self.client = client
        self.kind = kind
        self.client_id = str(uuid4())
        self.create = {
            "id": "",
            "path": str(project),
            "debug": True,
            "version": "v0.99.0",
            "client_id": self.client_id,
            "env": ["HOME=/home/ann", f"PWD={project}", f"SECRET_KEY={SECRET}"],
        }
        self.w = ""
        self.workspace: dict[str, Any] = {}

    async def ok(self, method: str, path: str, body: Any = None, *, kind: Any = None) -> Any:
        """A call that must be answered with exactly 200."""
        status, found = await self.client.call(method, path, body, kind=kind)
        assert status == 200, (method, path, status, found)
        return found

    async def find_server(self) -> None:
        """Steps 1 to 4: on a Unix socket it is looked at before it is used."""
        if self.kind == "tcp":
            return
        await self.client.probe()
        version = await self.ok("GET", "/v1/version", kind=VERSION)
        assert version["version"]
        assert version["build_id"]
        status, problem = await self.client.call(
            "POST", "/v1/control", {"command": "shutdown_if_idle"}, content_type="text/plain"
        )
        assert status == 409, "anything else makes the client put a server of its own in the place of this one"
        assert problem
        async with self.client.open("GET", "/v1/health") as health:
            assert (health.status, (await health.read()).body) == (200, b"")

    async def create_workspace(self) -> None:
        """Steps 5 and 6."""
        self.workspace = await self.ok("POST", "/v1/workspaces", self.create, kind=WORKSPACE)
        self.w = f"/v1/workspaces/{self.workspace['id']}"
        config = self.workspace["config"]
        assert any(not provider["disable"] for provider in config["providers"].values()), "IsConfigured is false"
        await self.ok("POST", f"{self.w}/agent/init", {"interactive": False})

    async def wait_for_agent(self) -> None:
        """Steps 9 and 10."""
        assert (await self.ok("GET", f"{self.w}/agent", kind=AGENT_INFO))["is_ready"]
        await self.ok("POST", f"{self.w}/agent/update")

    async def new_session(self) -> str:
        """Step 11."""
        session = await self.ok("POST", f"{self.w}/sessions", {"id": "", "title": "non-interactive"}, kind=SESSION)
        assert session["id"]
        assert session["parent_session_id"] == ""
        return str(session["id"])

    async def ask(self, session_id: str, prompt: str, *, meanwhile: Any = None) -> dict[str, Any]:
        """Steps 13 to 15: the stream, the prompt, and everything up to the end of the run; nothing to warn of."""
        run_id = str(uuid4())
        async with self.client.events(f"{self.w}/events?client_id={self.client_id}") as events:
            if meanwhile is not None:
                await meanwhile()
            body = {"session_id": session_id, "run_id": run_id, "prompt": prompt}
            status, _ = await self.client.call("POST", f"{self.w}/agent", body)
            assert status == 202
            while True:
                event = await events.next_event()
                assert event is not None, "the stream ended before the run"
                type_, _, payload = event
                if type_ == "agent_event" and payload["error"]:
                    assert payload["run_id"] not in ("", run_id), payload
                if type_ == "run_complete" and payload["run_id"] == run_id:
                    assert events.warnings == []
                    return payload

    async def leave(self) -> None:
        """Step 16."""
        await self.ok("DELETE", f"/v1/clients/{self.client_id}")


def printed(done: dict[str, Any]) -> str:
    """What `crush run` prints: the text, if there is a message to it."""
    assert not done["error"] or done["cancelled"]
    return str(done["text"]).lstrip(" \t") if done["message_id"] else ""


@asynccontextmanager
async def open_crush(server: Server, kind: str) -> AsyncIterator[Crush]:
    """A `crush run` that has its workspace."""
    async with open_go_client(server.addresses[kind]) as client:
        crush = Crush(client, kind, server.project)
        await crush.find_server()
        await crush.create_workspace()
        yield crush


@KINDS
async def test_crush_run_from_its_first_byte_to_its_last(tmp_path: Path, kind: str) -> None:
    async with open_fresh_server(tmp_path) as server, open_crush(server, kind) as crush:
        await crush.wait_for_agent()
        session_id = await crush.new_session()
        done = await crush.ask(session_id, "Rename the parser")
        assert "Rename the parser" in printed(done)
        assert done["session_id"] == session_id
        await crush.leave()
        status, _ = await crush.client.call("POST", "/v1/workspaces", crush.create, kind=WORKSPACE)
        assert status == 409, "a client that said goodbye cannot come back"


@KINDS
async def test_what_the_client_reads_of_a_new_workspace_without_looking(tmp_path: Path, kind: str) -> None:
    async with open_fresh_server(tmp_path) as server, open_crush(server, kind) as crush:
        async with crush.client.open("POST", "/v1/workspaces", crush.create) as answer:
            body = json.loads((await answer.read()).body)
        assert isinstance(body["config"]["providers"], dict)
        assert isinstance(body["config"]["options"], dict)
        assert isinstance(body["config"]["options"]["tui"], dict)
        assert body["config"]["options"]["disable_metrics"] is True
        assert body["path"] == str(server.project)
        assert SECRET not in json.dumps(body)
        assert crush.workspace["id"] == body["id"], "a second create of a path finds the first"
        assert answer.body.endswith(b"\n")


@KINDS
async def test_crush_run_with_a_model(tmp_path: Path, kind: str) -> None:
    async with open_fresh_server(tmp_path) as server, open_crush(server, kind) as crush:
        config = await crush.ok("GET", f"{crush.w}/config", kind=CONFIG)
        provider_id, provider = next(iter(config["providers"].items()))
        model = {"model": provider["models"][0]["id"], "provider": provider_id}
        choice = {"scope": 1, "model_type": "large", "model": model}
        await crush.ok("POST", f"{crush.w}/config/model", choice)
        small = await crush.ok(
            "GET", f"{crush.w}/agent/default-small-model?provider_id={segment(provider_id)}", kind=SELECTED
        )
        await crush.ok("POST", f"{crush.w}/config/model", {"scope": 1, "model_type": "small", "model": small})
        await crush.ok("POST", f"{crush.w}/agent/update")
        await crush.wait_for_agent()
        assert printed(await crush.ask(await crush.new_session(), "hi"))
        await crush.leave()


@KINDS
async def test_crush_run_in_a_session_that_is_there(tmp_path: Path, kind: str) -> None:
    async with open_fresh_server(tmp_path) as server:
        async with open_crush(server, kind) as first:
            session_id = await first.new_session()
            await first.ask(session_id, "one")
            await first.leave()
        async with open_crush(server, kind) as crush:
            found = await crush.ok("GET", f"{crush.w}/sessions/{segment(session_id)}", kind=SESSION)
            assert (found["id"], found["parent_session_id"]) == (session_id, "")
            status, _ = await crush.client.call("GET", f"{crush.w}/sessions/{segment('0f$$ a/ü%')}", kind=SESSION)
            assert status != 200, "or the client takes what it was told for a whole id, and does not look for a hash"
            sessions = await crush.ok("GET", f"{crush.w}/sessions", kind=ListOf(SESSION))
            assert max(sessions, key=lambda session: session["updated_at"])["id"] == session_id
            messages = await crush.ok("GET", f"{crush.w}/sessions/{session_id}/messages", kind=ListOf(MESSAGE))
            assert [message["role"] for message in messages] == ["user", "assistant"]
            assert messages[-1]["provider"] in crush.workspace["config"]["providers"]
            assert not messages[-1]["is_summary_message"]
            assert "two" in printed(await crush.ask(session_id, "two"))
            await crush.leave()


@KINDS
async def test_an_event_between_the_200_of_the_stream_and_the_prompt_is_not_missed(tmp_path: Path, kind: str) -> None:
    """And what others do in the workspace does not confuse: their ends are told, and are not ours."""
    async with (
        open_fresh_server(tmp_path) as server,
        open_crush(server, kind) as crush,
        open_crush(server, kind) as other,
    ):
        theirs = await other.new_session()

        async def ask_too() -> None:
            body = {"session_id": theirs, "run_id": "theirs", "prompt": "hello from elsewhere"}
            assert (await other.client.call("POST", f"{other.w}/agent", body))[0] == 202
            assert (await other.client.call("POST", f"{other.w}/current-session?client_id={crush.client_id}", {}))[
                0
            ] == 200

        assert "mine" in printed(await crush.ask(await crush.new_session(), "mine", meanwhile=ask_too))


@KINDS
async def test_a_canceled_run_tells_the_client_to_leave_without_an_error(tmp_path: Path, kind: str) -> None:
    async with open_fresh_server(tmp_path) as server, open_crush(server, kind) as crush:
        session_id = await crush.new_session()
        script = '```script\n[[{"text":"begun"},{"hang":true}]]\n```'
        choice = {"scope": 1, "model_type": "large", "model": {"model": "script", "provider": "offline"}}
        await crush.ok("POST", f"{crush.w}/config/model", choice)
        async with crush.client.events(f"{crush.w}/events?client_id={crush.client_id}") as events:
            body = {"session_id": session_id, "run_id": "r1", "prompt": script}
            assert (await crush.client.call("POST", f"{crush.w}/agent", body))[0] == 202
            payload: dict[str, Any] = {}
            while payload.get("run_id") != "r1":
                event = await events.next_event()
                assert event is not None
                type_, _, payload = event
                if type_ == "message" and any(part["data"].get("text") == "begun" for part in payload["parts"]):
                    await crush.ok("POST", f"{crush.w}/agent/sessions/{session_id}/cancel")
            assert (payload["run_id"], payload["cancelled"], payload["text"]) == ("r1", True, "begun")
            assert events.warnings == []


@KINDS
async def test_a_prompt_without_a_run_id_is_taken_as_crush_takes_it(tmp_path: Path, kind: str) -> None:
    """The terminal's prompts have none: they are answered 202, and end under an id that we gave."""
    async with open_fresh_server(tmp_path) as server, open_crush(server, kind) as crush:
        session_id = await crush.new_session()
        async with crush.client.events(f"{crush.w}/events?client_id={crush.client_id}") as events:
            body = {"session_id": session_id, "prompt": "hi", "attachments": []}
            assert (await crush.client.call("POST", f"{crush.w}/agent", body))[0] == 202
            while (event := await events.next_event()) is not None and event[0] != "run_complete":
                pass
            assert event is not None
            assert event[2]["run_id"]


@KINDS
async def test_a_stream_ends_properly_when_its_workspace_is_closed_and_the_next_is_a_404(
    tmp_path: Path, kind: str
) -> None:
    """Any other end makes the client read the dead stream for ever."""
    async with open_fresh_server(tmp_path) as server, open_crush(server, kind) as crush:
        async with crush.client.events(f"{crush.w}/events?client_id={crush.client_id}") as events:
            assert (await crush.client.call("DELETE", crush.w))[0] == 200
            assert await events.next_event() is None
            assert events.answer.has_ended_properly
        async with crush.client.open("GET", f"{crush.w}/events?client_id={crush.client_id}") as answer:
            assert answer.status == 404
            assert json.loads((await answer.read()).body)["message"]
        await crush.create_workspace()
        assert printed(await crush.ask(await crush.new_session(), "hi again"))


async def test_a_relative_directory_is_the_callers(tmp_path: Path) -> None:
    """`--cwd sub` goes out as it was typed."""
    async with open_fresh_server(tmp_path) as server, open_go_client(server.addresses["tcp"]) as client:
        (server.project / "sub").mkdir()
        crush = Crush(client, "tcp", server.project)
        crush.create["path"] = "sub"
        await crush.create_workspace()
        assert crush.workspace["path"] == str(server.project / "sub")


async def test_a_proxy_in_the_environment_makes_no_difference_on_a_unix_socket(tmp_path: Path) -> None:
    """Go then writes the target in its absolute form."""
    async with open_fresh_server(tmp_path) as server, open_go_client(server.addresses["unix"]) as client:
        status, version = await client.call("GET", "http://api.crush.localhost/v1/version", kind=VERSION)
        assert (status, bool(version["version"])) == (200, True)


@KINDS
async def test_every_connection_but_the_streams_is_used_again(tmp_path: Path, kind: str) -> None:
    async with open_fresh_server(tmp_path) as server, open_crush(server, kind) as crush:
        for number in range(5):
            await crush.wait_for_agent()
            await crush.ask(await crush.new_session(), f"prompt {number}")
        assert len(crush.client.connections) == 1 + 5 + (kind == "unix")
