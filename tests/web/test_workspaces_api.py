"""Workspaces over HTTP: one for each directory, and what keeps it open (crush-wire, section 6)."""

from pathlib import Path

import trio

from engine.agents.protocol import Turn
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.web.api import CLIENT, NOBODY, OTHER_CLIENT, Api, open_api

HOLD_S, GRACE_S = 30, 10


async def opened(api: Api, path: Path, client: str | None = CLIENT) -> str:
    """A workspace of its own, by its path in the API."""
    await trio.Path(path).mkdir(exist_ok=True)
    more = {"client_id": client} if client else {}
    return f"/v1/workspaces/{(await api.create_workspace(path, **more))['id']}"


async def is_open(api: Api, w: str) -> bool:
    return (await api.client.get(w)).status == 200


async def test_a_directory_is_one_workspace_whatever_it_is_called(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        await trio.Path(tmp_path / "real").mkdir()
        await trio.Path(tmp_path / "link").symlink_to(tmp_path / "real")
        paths = [tmp_path / "real", tmp_path / "link", tmp_path / "real" / ".." / "real"]
        found = [await api.create_workspace(path) for path in paths]
        assert len({each["id"] for each in found}) == 1
        assert {each["path"] for each in found} == {str(tmp_path / "real")}
        listed = (await api.client.get("/v1/workspaces")).json()
        assert sorted(each["path"] for each in listed) == sorted([str(tmp_path), str(tmp_path / "real")])


async def test_a_workspace_has_exactly_these_keys(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        workspace = await api.create_workspace(env=["SECRET=1"], yolo=False, channels=["server:alerts"])
        assert set(workspace) == {"id", "path", "data_dir", "version", "config", "skills"}
        assert (await api.client.get(api.w)).json() == workspace
        assert set(workspace["config"]) == {
            "models", "recent_models", "providers", "options", "permissions", "mcp", "lsp",
        }  # fmt: skip


async def test_a_client_that_never_opens_its_stream_holds_a_workspace_for_thirty_seconds(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        w = await opened(api, tmp_path / "a")
        await trio.sleep(HOLD_S - 1)
        assert await is_open(api, w)
        await trio.sleep(2)
        assert not await is_open(api, w)


async def test_a_client_that_drops_its_stream_has_ten_seconds_to_come_back(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        w = await opened(api, tmp_path / "a")
        for _ in range(3):
            async with api.client.stream("GET", f"{w}/events?client_id={CLIENT}"):
                await trio.sleep(HOLD_S * 2)
                assert await is_open(api, w)
            await trio.sleep(GRACE_S - 1)
            assert await is_open(api, w)
        await trio.sleep(2)
        assert not await is_open(api, w)


async def test_a_client_that_says_goodbye_has_no_grace(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        w = await opened(api, tmp_path / "a")
        async with api.client.stream("GET", f"{w}/events?client_id={CLIENT}"):
            assert (await api.client.delete(f"{w}?client_id={CLIENT}")).status == 200
            assert await is_open(api, w)  # its stream still holds it
        await trio.sleep(0.1)
        assert not await is_open(api, w)


async def test_a_workspace_lives_as_long_as_one_of_its_clients(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        w = await opened(api, tmp_path / "a")
        assert await opened(api, tmp_path / "a", OTHER_CLIENT) == w
        async with api.client.stream("GET", f"{w}/events?client_id={OTHER_CLIENT}"):
            await api.client.delete(f"/v1/clients/{CLIENT}")
            await trio.sleep(HOLD_S * 2)
            assert await is_open(api, w)
            await api.client.delete(f"/v1/clients/{OTHER_CLIENT}")
            await trio.sleep(0.1)
            assert not await is_open(api, w)


async def test_a_workspace_without_a_client_stays_until_it_is_deleted(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        w = await opened(api, tmp_path / "a", None)
        assert await opened(api, tmp_path / "a") == w
        await api.client.delete(f"/v1/clients/{CLIENT}")
        await trio.sleep(3600)
        assert await is_open(api, w)
        assert (await api.client.delete(w)).status == 200
        assert not await is_open(api, w)


async def test_what_is_gone_may_be_let_go_of_again(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        for target in (
            f"/v1/workspaces/{NOBODY}",
            f"/v1/workspaces/{NOBODY}?client_id={CLIENT}",
            f"{api.w}?client_id={CLIENT}",
            f"/v1/clients/{CLIENT}",
        ):
            assert (await api.client.delete(target)).status == 200
        assert await is_open(api, api.w)


async def test_r23_closing_a_workspace_waits_for_the_ends_of_its_runs(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()

    async def respond(turn: Turn) -> None:
        await gate.pass_through()

    async with open_api(tmp_path, agent=ScriptedAgent(respond)) as api:
        await api.send("hi", run_id="r1")
        await gate.reached()
        async with api.client.stream("GET", f"{api.w}/events?cursor=latest") as stream:
            assert (await api.client.delete(api.w)).status == 200
            body = (await stream.read()).decode()
        assert '"run_complete"' in body
        assert '"cancelled":true' in body
        again = await api.create_workspace()
        assert f"/v1/workspaces/{again['id']}" == api.w
        assert (await api.client.get(f"{api.w}/runs/r1")).json()["state"] == "canceled"


async def test_whom_a_session_is_looked_at_by(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:

        async def look(client: str, session_id: str) -> int:
            target = f"{api.w}/current-session?client_id={client}"
            return (await api.client.post(target, {"session_id": session_id})).status

        async def lookers() -> int:
            return int((await api.client.get(f"{api.w}/sessions")).json()[0]["attached_clients"])

        async with api.client.stream("GET", f"{api.w}/events?client_id={CLIENT}"):
            assert await look(CLIENT, api.session_id) == 200
            assert await look(OTHER_CLIENT, api.session_id) == 409
            async with api.client.stream("GET", f"{api.w}/events?client_id={OTHER_CLIENT.upper()}"):
                assert await look(OTHER_CLIENT, api.session_id) == 200
                assert await lookers() == 2
            assert await lookers() == 1
            assert await look(CLIENT, "") == 200
            assert await lookers() == 0
