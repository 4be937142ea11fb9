"""Who may call, and what: hosts, origins, tokens, cookies, and the scope of each route."""

from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from tests.doubles.asgi_client import AsgiClient
from tests.web.api import CLIENT, NOBODY, Api, open_api
from web.auth import COOKIE_S, Caller, Gate, Inbound, TokenStore, WebSettings
from web.problems import Refused
from web.routes.all_routes import ROUTES


def inbound(transport: Any = "tcp", *, peer: str | None = "127.0.0.1", **headers: str) -> Inbound:
    sent = {name.replace("_", "-"): (value,) for name, value in {"host": "localhost", **headers}.items()}
    return Inbound(transport=transport, scheme="http", peer=peer, method="GET", headers=sent)


# Places


@pytest.mark.parametrize(
    ("settings", "transport", "host"),
    [
        ({}, "tcp", "localhost"),
        ({}, "tcp", "LocalHost:2180"),
        ({}, "tcp", "localhost.:2180"),
        ({}, "tcp", "127.0.0.1:2180"),
        ({}, "tcp", "[::1]:2180"),
        ({}, "unix", "api.crush.localhost"),
        ({"allowed_hosts": ("agents.example.org",)}, "tcp", "Agents.Example.org"),
        ({"allowed_hosts": ("10.0.0.7",)}, "tcp", "10.0.0.7:2180"),
        ({"allowed_hosts": ("0.0.0.0",)}, "tcp", "192.168.1.5:2180"),
        ({"allowed_hosts": ("::",)}, "tcp", "[fe80::1]:2180"),
    ],
)
def test_a_name_of_this_server_passes(settings: dict[str, Any], transport: str, host: str) -> None:
    Gate(WebSettings(**settings)).check_place(inbound(transport, host=host))


@pytest.mark.parametrize(
    ("settings", "host", "status"),
    [
        ({}, "evil.example", 403),
        ({}, "localhost.evil.example", 403),
        ({}, "evil-localhost", 403),
        ({}, "192.168.1.5", 403),
        ({}, "0.0.0.0", 403),
        ({}, "[::ffff:127.0.0.1]", 403),
        ({"allowed_hosts": ("0.0.0.0",)}, "evil.example", 403),
        ({"allowed_hosts": ("agents.example.org",)}, "evil.agents.example.org", 403),
        ({}, "localhost:2180:80", 400),
        ({}, "localhost/evil", 400),
        ({}, "a b", 400),
        ({}, "localhost:\u0662\u0661", 400),
        ({}, "", 400),
    ],
)
def test_a_name_of_another_does_not(settings: dict[str, Any], host: str, status: int) -> None:
    with pytest.raises(Refused) as refused:
        Gate(WebSettings(**settings)).check_place(inbound(host=host))
    assert (refused.value.status, refused.value.field) == (status, "Host")


def test_two_hosts_are_one_too_many() -> None:
    twice = Inbound(
        transport="tcp", scheme="http", peer=None, method="GET", headers={"host": ("localhost", "evil.example")}
    )
    with pytest.raises(Refused, match="2 times"):
        Gate(WebSettings()).check_place(twice)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://localhost:2180", "host": "localhost:2180"},
        {"origin": "https://localhost", "host": "localhost"},
        {"origin": "http://127.0.0.1", "host": "127.0.0.1:80"},
        {"origin": "https://console.example.org"},
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},
    ],
)
def test_our_own_pages_and_configured_ones_pass(headers: dict[str, str]) -> None:
    gate = Gate(WebSettings(allowed_origins=("https://Console.example.org/",)))
    gate.check_place(inbound(**headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost:3000", "host": "localhost:2180"},
        {"origin": "http://user@localhost"},
        {"origin": "file://localhost"},
        {"origin": "http://console.example.org"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "no-cors"},
    ],
)
def test_pages_of_others_do_not(headers: dict[str, str]) -> None:
    gate = Gate(WebSettings(allowed_origins=("https://console.example.org",)))
    with pytest.raises(Refused) as refused:
        gate.check_place(inbound(**headers))
    assert refused.value.status == 403


# Callers


@pytest.mark.parametrize(
    ("request_", "is_owner"),
    [
        (inbound("unix", peer=None), True),
        (inbound(peer="127.0.0.1"), True),
        (inbound(peer="127.8.8.8"), True),
        (inbound(peer="::1"), True),
        (inbound(peer="::ffff:127.0.0.1"), True),
        (inbound(peer="10.0.0.1"), False),
        (inbound(peer="::ffff:10.0.0.1"), False),
        (inbound(peer="testclient"), False),
        (inbound(peer=None), False),
        (inbound(peer="127.0.0.1", x_forwarded_for="10.0.0.1"), False),
        (inbound(peer="127.0.0.1", forwarded="for=10.0.0.1"), False),
    ],
)
def test_open_loopback_is_for_this_machine_alone(request_: Inbound, is_owner: bool) -> None:
    caller = Gate(WebSettings(open_loopback=True)).caller(request_)
    assert (caller == Caller("owner", "admin")) is is_owner


def test_loopback_needs_a_token_unless_it_was_opened() -> None:
    assert Gate(WebSettings()).caller(inbound()) is None
    assert Gate(WebSettings()).caller(inbound("unix", peer=None)) == Caller("owner", "admin")


async def test_a_cookie_stands_for_its_token_until_one_of_them_ends(tmp_path: Path, autojump_clock: object) -> None:
    tokens = TokenStore(tmp_path / "tokens.json")
    gate = Gate(WebSettings(token_file=tmp_path / "tokens.json"))
    secret = tokens.create("ann", "run", now_us=0)

    caller, cookie = gate.sign_in(secret)
    _, second = gate.sign_in(secret)
    assert caller == Caller("ann", "run")
    assert cookie != second
    assert secret not in cookie
    assert gate.caller(inbound(cookie=f"a=b; countermand={cookie}; c=d")) == Caller("ann", "run")

    gate.sign_out(inbound(cookie=f"countermand={cookie}"))
    assert gate.caller(inbound(cookie=f"countermand={cookie}")) is None
    assert gate.caller(inbound(cookie=f"countermand={second}")) == Caller("ann", "run")

    tokens.revoke("ann")
    assert gate.caller(inbound(cookie=f"countermand={second}")) is None

    _, third = gate.sign_in(tokens.create("bob", "read", now_us=0))
    await trio.sleep(COOKIE_S + 1)
    assert gate.caller(inbound(cookie=f"countermand={third}")) is None


def test_a_header_counts_before_a_cookie_and_a_wrong_one_is_no_nobody(tmp_path: Path) -> None:
    gate = Gate(WebSettings(token_file=tmp_path / "tokens.json"))
    with pytest.raises(Refused) as refused:
        gate.caller(inbound(authorization="Bearer cmd_x", cookie="countermand=y"))
    assert refused.value.headers["WWW-Authenticate"] == 'Bearer realm="countermand", error="invalid_token"'


# Routes

OPEN = {"health", "ready", "openapi", "docs", "root", "sign_in", "sign_out"}
ADMIN = {
    "control", "choose_model", "set_config", "remove_config", "set_compact", "set_provider_key", "import_copilot",
    "refresh_oauth", "enable_docker_mcp", "disable_docker_mcp",
}  # fmt: skip
CHANGES = {"POST", "PUT", "DELETE"}


def test_reading_needs_read_changing_needs_run_and_what_concerns_everybody_needs_admin() -> None:
    for route in ROUTES:
        if route.name in OPEN:
            assert route.access == "open", route.name
        elif route.name in ADMIN:
            assert route.access == "admin", route.name
        else:
            assert route.access == ("run" if route.method in CHANGES else "read"), route.name


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    store = TokenStore(tmp_path / "tokens.json")
    return {scope: store.create(f"the-{scope}", scope, now_us=0) for scope in ("read", "run", "admin")}


def path_of(path: str, api: Api) -> str:
    ids = {"sid": api.session_id, "rid": "r1", "client_id": NOBODY, "name": "none"}
    return path.replace("/v1/workspaces/{id}", api.w).format(**ids)


async def test_each_route_lets_in_its_scope_and_wider_ones_and_no_other(
    tmp_path: Path, tokens: dict[str, str], autojump_clock: object
) -> None:
    levels = {"open": 0, "read": 1, "run": 2, "admin": 3}
    async with open_api(tmp_path, web=WebSettings(token_file=tmp_path / "tokens.json")) as api:
        clients = {"open": api.tcp(), **{scope: api.tcp(secret) for scope, secret in tokens.items()}}
        for route in ROUTES:
            for scope, client in clients.items():
                # A body that is no JSON is refused with 400 only by those who read it, so nothing is done here.
                async with client.stream(route.method, path_of(route.path, api), body=b"{") as stream:
                    let_in = stream.status not in {401, 403}
                wanted = levels[scope] >= levels[route.access]
                if route.name == "delete_workspace":  # giving up a claim needs `run`, closing needs `admin`
                    wanted = scope == "admin"
                assert let_in == wanted, (route.name, scope, stream.status)


async def test_a_token_that_is_revoked_stops_working_at_once(
    tmp_path: Path, tokens: dict[str, str], autojump_clock: object
) -> None:
    async with open_api(tmp_path, web=WebSettings(token_file=tmp_path / "tokens.json")) as api:
        client = api.tcp(tokens["read"])
        assert (await client.get("/v1/version")).status == 200
        TokenStore(tmp_path / "tokens.json").revoke("the-read")
        assert (await client.get("/v1/version")).status == 401


async def test_a_browser_signs_in_works_and_signs_out(
    tmp_path: Path, tokens: dict[str, str], autojump_clock: object
) -> None:
    async with open_api(tmp_path, web=WebSettings(token_file=tmp_path / "tokens.json")) as api:
        page = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
        visitor = AsgiClient(api.app, transport="tcp", peer="10.0.0.9", headers=page)
        assert (await visitor.get("/v1/sign-in")).status == 401

        answer = await visitor.post("/v1/sign-in", {"token": tokens["run"]})
        assert answer.json() == {"name": "the-run", "scope": "run"}
        cookie, *attributes = answer.headers["set-cookie"].split("; ")
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
        assert tokens["run"] not in answer.headers["set-cookie"]

        visitor.headers["Cookie"] = cookie
        assert (await visitor.get("/v1/sign-in")).json() == {"name": "the-run", "scope": "run"}
        assert (await visitor.post(f"{api.w}/sessions", {"title": "x"})).status == 200
        elsewhere = {**page, "Origin": "https://evil.example"}
        assert (await visitor.post(f"{api.w}/sessions", {"title": "x"}, headers=elsewhere)).status == 403
        assert (await visitor.delete(api.w)).status == 403

        gone = await visitor.delete("/v1/sign-in")
        assert "Max-Age=0" in gone.headers["set-cookie"]
        assert (await visitor.get("/v1/sign-in")).status == 401


async def test_a_claim_needs_run_and_watching_needs_read(
    tmp_path: Path, tokens: dict[str, str], autojump_clock: object
) -> None:
    async with open_api(tmp_path, web=WebSettings(token_file=tmp_path / "tokens.json")) as api:
        for target, statuses in {
            f"{api.w}/events": (200, 200),
            f"{api.w}/events?client_id={CLIENT}": (403, 200),
        }.items():
            for scope, status in zip(("read", "run"), statuses, strict=True):
                async with api.tcp(tokens[scope]).stream("GET", target) as stream:
                    assert stream.status == status


async def test_no_log_line_has_a_secret_in_it(tmp_path: Path, tokens: dict[str, str], autojump_clock: object) -> None:
    secrets = [*tokens.values(), "env-secret-4711", "prompt-secret-4712"]
    web = WebSettings(token_file=tmp_path / "tokens.json")
    with capture_logs() as lines:
        async with open_api(tmp_path, web=web) as api:
            client = api.tcp(tokens["admin"])
            await client.get(f"/v1/version?token={tokens['run']}")
            await client.get("/v1/version", headers={"Authorization": f"Bearer {tokens['read']}x"})
            await client.post("/v1/sign-in", {"token": tokens["admin"]})
            sent = {"path": str(tmp_path), "env": ["OPENAI_API_KEY=env-secret-4711"]}
            created = await client.post("/v1/workspaces", sent)
            assert b"env-secret-4711" not in created.body
            await client.post(f"{api.w}/agent", {"session_id": NOBODY, "prompt": "prompt-secret-4712"})
    assert {"version", "sign_in", "create_workspace", "send_prompt"} <= {line.get("route") for line in lines}
    assert not [secret for secret in secrets if secret in str(lines)]
