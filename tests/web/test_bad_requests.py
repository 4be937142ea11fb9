"""Bad requests, each with the right status and a body that names the fault (R03), and none that leaves a trace."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.asgi_client import Response
from tests.web.api import CLIENT, NOBODY, Api, filled, open_api
from web.auth import TokenStore, WebSettings

MAX_BODY = 64 * 1024
GOOD = {"session_id": "{S}", "prompt": "hi"}


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def attached(**attachment: Any) -> dict[str, Any]:
    """A good prompt with one attachment that is not."""
    return {**GOOD, "attachments": [{"file_name": "a", "mime_type": "text/plain", "content": b64(b"hi"), **attachment}]}


@dataclass(frozen=True)
class Bad:
    """A request, and what must be said of it. `{W}`, `{S}` and `{R}` stand for a workspace's path, a session, a run."""

    name: str
    method: str
    target: str | bytes
    status: int
    says: str
    json: Any = None
    body: bytes | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    field_named: str | None = None
    type: str | None = None
    over: str = "unix"  # or `tcp`, or `tcp` with a token of a scope: `read`, `run`, `admin`


def post(name: str, target: str, status: int, says: str, json: Any = None, **more: Any) -> Bad:
    return Bad(name, "POST", target, status, says, json=json, **more)


def get(name: str, target: str | bytes, status: int, says: str, **more: Any) -> Bad:
    return Bad(name, "GET", target, status, says, **more)


BROKEN_BODIES = [
    ("broken_json", b'{"session_id": "{S}", "prompt": ', "failed to decode request: "),
    ("no_json_at_all", b"session_id=1&prompt=hi", "failed to decode request: "),
    ("bad_utf8", b'{"session_id": "\xff\xfe", "prompt": "hi"}', "not valid UTF-8"),
    ("half_a_surrogate_pair", b'{"session_id": "{S}", "prompt": "\\ud800"}', "failed to decode request: "),
    ("a_raw_nul", b'{"session_id": "{S}", "prompt": "a\x00b"}', "failed to decode request: "),
    ("two_documents", b'{"session_id": "{S}", "prompt": "hi"} {}', "failed to decode request: "),
    ("a_byte_order_mark", b'\xef\xbb\xbf{"session_id": "{S}", "prompt": "hi"}', "failed to decode request: "),
    ("very_deep_json", b'{"x":' * 12_000, "nested too deeply"),
    ("very_deep_arrays", b"[" * 50_000, "nested too deeply"),
    ("an_array", b"[]", "body: expected `object`"),
    ("a_number", b"17", "body: expected `object`"),
    ("a_string", b'"prompt"', "body: expected `object`"),
    ("nan", b'{"session_id": "{S}", "prompt": "hi", "timeout_s": NaN}', "failed to decode request: "),
]

WRONG_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("session_id_a_number", {**GOOD, "session_id": 7}, "session_id"),
    ("session_id_missing", {"prompt": "hi"}, "session_id"),
    ("session_id_null", {**GOOD, "session_id": None}, "session_id"),
    ("session_id_empty", {**GOOD, "session_id": ""}, "session_id"),
    ("prompt_a_list", {**GOOD, "prompt": ["hi"]}, "prompt"),
    ("prompt_missing", {"session_id": "{S}"}, "prompt"),
    ("prompt_empty", {**GOOD, "prompt": ""}, "prompt"),
    ("prompt_blank", {**GOOD, "prompt": " \n\t"}, "prompt"),
    ("run_id_a_number", {**GOOD, "run_id": 1}, "run_id"),
    ("run_id_too_long", {**GOOD, "run_id": "r" * 129}, "run_id"),
    ("run_id_with_a_newline", {**GOOD, "run_id": "a\nb"}, "run_id"),
    ("run_id_with_a_nul", {**GOOD, "run_id": "a\0"}, "run_id"),
    ("run_id_with_a_slash", {**GOOD, "run_id": "../x"}, "run_id"),
    ("if_busy_unknown", {**GOOD, "if_busy": "shout"}, "if_busy"),
    ("if_busy_empty", {**GOOD, "if_busy": ""}, "if_busy"),
    ("if_busy_a_bool", {**GOOD, "if_busy": True}, "if_busy"),
    ("on_crash_unknown", {**GOOD, "on_crash": "ignore"}, "on_crash"),
    ("timeout_negative", {**GOOD, "timeout_s": -1}, "timeout_s"),
    ("timeout_zero", {**GOOD, "timeout_s": 0}, "timeout_s"),
    ("timeout_a_string", {**GOOD, "timeout_s": "60"}, "timeout_s"),
    ("timeout_beyond_the_limit", {**GOOD, "timeout_s": 86_401}, "timeout_s"),
    ("timeout_beyond_any_number", {**GOOD, "timeout_s": 1e300}, "timeout_s"),
    ("model_a_number", {**GOOD, "model": 4}, "model"),
    ("attachments_an_object", {**GOOD, "attachments": {}}, "attachments"),
    ("attachments_of_null", {**GOOD, "attachments": [None]}, "attachments[0]"),
    ("attachment_content_a_number", attached(content=1), "attachments[0].content"),
    ("attachment_image_no_base64", attached(mime_type="image/png", content="a"), "attachments[0].content"),
    ("attachment_no_base64", attached(content="!!!"), "attachments[0].content"),
    ("attachment_base64_without_padding", attached(content="aGk"), "attachments[0].content"),
    ("attachment_base64_with_newlines", attached(content="aG\nk="), "attachments[0].content"),
    (
        "attachment_base64_of_the_url_kind",
        attached(content=b64(b"\xfb\xff").replace("+", "-")),
        "attachments[0].content",
    ),
    ("attachment_text_that_is_no_utf8", attached(content=b64(b"\xff\xfe\x00")), "attachments[0].content"),
    ("attachment_no_png", attached(mime_type="image/png", content=b64(b"GIF89a...")), "attachments[0].content"),
    ("attachment_no_pdf", attached(mime_type="Application/PDF", content=b64(b"PK")), "attachments[0].content"),
    ("attachment_without_a_type", attached(mime_type=""), "attachments[0].mime_type"),
    ("attachment_with_half_a_type", attached(mime_type="text"), "attachments[0].mime_type"),
    ("too_many_attachments", {**GOOD, "attachments": attached()["attachments"] * 101}, "attachments"),
    (
        "second_attachment_wrong",
        {**GOOD, "attachments": [*attached()["attachments"], *attached(content="?")["attachments"]]},
        "attachments[1].content",
    ),
]

ROWS: list[Bad] = [
    *[post(name, "{W}/agent", 400, says, body=body) for name, body, says in BROKEN_BODIES],
    *[post(n, "{W}/agent", 400, f, body, field_named=f) for n, body, f in WRONG_FIELDS],
    # bodies elsewhere
    post("create_without_a_path", "/v1/workspaces", 400, "path", {}, field_named="path"),
    post("create_with_an_empty_path", "/v1/workspaces", 400, "path", {"path": ""}, field_named="path"),
    post("create_with_no_body", "/v1/workspaces", 400, "path", field_named="path"),
    post("create_path_a_number", "/v1/workspaces", 400, "path", {"path": 1}, field_named="path"),
    post("create_relative_path", "/v1/workspaces", 400, "absolute", {"path": "proj"}, field_named="path"),
    post("create_relative_pwd", "/v1/workspaces", 400, "PWD", {"path": "p", "env": ["PWD=x"]}, field_named="path"),
    post("create_path_with_a_nul", "/v1/workspaces", 400, "NUL", {"path": "/tmp\0/etc"}, field_named="path"),
    post("create_path_too_long", "/v1/workspaces", 400, "path", {"path": "/" + "a" * 5000}, field_named="path"),
    post("create_path_of_nothing", "/v1/workspaces", 400, "/nowhere", {"path": "/nowhere/at/all"}, field_named="path"),
    post("create_path_of_a_file", "/v1/workspaces", 400, "directory", {"path": __file__}, field_named="path"),
    post("create_bad_client", "/v1/workspaces", 400, "client_id", {"path": "/", "client_id": "me"}),
    post("create_env_a_string", "/v1/workspaces", 400, "env", {"path": "/", "env": "PWD=/"}, field_named="env"),
    post("create_env_of_numbers", "/v1/workspaces", 400, "env[1]", {"path": "/", "env": ["A=1", 2]}),
    post("session_title_a_number", "{W}/sessions", 400, "title", {"title": 5}, field_named="title"),
    post("session_title_too_long", "{W}/sessions", 400, "title", {"title": "t" * 1001}, field_named="title"),
    Bad("save_wrong_todos", "PUT", "{W}/sessions/{S}", 400, "todos[0]", json={"todos": [{"content": "x"}]}),
    Bad(
        "save_wrong_status", "PUT", "{W}/sessions/{S}", 400, "status", json={"todos": [{"content": "", "status": "?"}]}
    ),
    Bad(
        "save_another_session",
        "PUT",
        "{W}/sessions/{S}",
        400,
        "id",
        json={"id": NOBODY, "title": "x"},
        field_named="id",
    ),
    Bad("save_unknown_session", "PUT", f"{{W}}/sessions/{NOBODY}", 404, NOBODY, json={"title": "x"}),
    post("model_type_unknown", "{W}/config/model", 400, "model_type", {"model_type": "huge", "model": {}}),
    post(
        "model_without_a_provider",
        "{W}/config/model",
        400,
        "provider",
        {"model_type": "small", "model": {"model": "m"}},
    ),
    post(
        "model_of_nobody",
        "{W}/config/model",
        404,
        "nobody",
        {"model_type": "large", "model": {"model": "m", "provider": "nobody"}},
        type="provider_not_found",
    ),
    post(
        "model_scope_unknown",
        "{W}/config/model",
        400,
        "scope",
        {"model_type": "large", "scope": 2, "model": {"model": "m", "provider": "p"}},
    ),
    get("small_model_of_nobody", "{W}/agent/default-small-model?provider_id=nobody", 404, "nobody"),
    post("control_unknown", "/v1/control", 400, "command", {"command": "explode"}, field_named="command"),
    post("control_without_a_command", "/v1/control", 400, "command", {}, field_named="command"),
    post("control_while_in_use", "/v1/control", 409, "in use", {"command": "shutdown_if_idle"}, type="not_idle"),
    post("current_session_of_nobody", "{W}/current-session", 400, "client_id", {"session_id": "{S}"}),
    post("current_session_bad_client", "{W}/current-session?client_id=1", 400, "client_id", {"session_id": "{S}"}),
    post("current_session_unattached", f"{{W}}/current-session?client_id={CLIENT}", 409, CLIENT, {"session_id": ""}),
    post("current_session_a_list", f"{{W}}/current-session?client_id={CLIENT}", 400, "session_id", {"session_id": []}),
    post("sign_in_without_a_token", "/v1/sign-in", 400, "token", {}, field_named="token"),
    post(
        "sign_in_with_a_wrong_token", "/v1/sign-in", 401, "not known", {"token": "cmd_nothing"}, type="unauthenticated"
    ),
    # ids of nothing
    post(
        "prompt_to_unknown_session", "{W}/agent", 404, NOBODY, {**GOOD, "session_id": NOBODY}, type="session_not_found"
    ),
    post(
        "prompt_to_unknown_workspace", f"/v1/workspaces/{NOBODY}/agent", 404, NOBODY, GOOD, type="workspace_not_found"
    ),
    get("unknown_workspace", f"/v1/workspaces/{NOBODY}", 404, NOBODY, type="workspace_not_found"),
    get("events_of_unknown_workspace", f"/v1/workspaces/{NOBODY}/events", 404, NOBODY),
    get("config_of_unknown_workspace", f"/v1/workspaces/{NOBODY}/config", 404, NOBODY),
    get("unknown_session", f"{{W}}/sessions/{NOBODY}", 404, NOBODY, type="session_not_found"),
    get("messages_of_unknown_session", f"{{W}}/sessions/{NOBODY}/messages", 404, NOBODY),
    Bad("delete_unknown_session", "DELETE", f"{{W}}/sessions/{NOBODY}", 404, NOBODY, type="session_not_found"),
    get("unknown_run", "{W}/runs/nothing", 404, "nothing", type="run_not_found"),
    get("events_of_unknown_run", "{W}/runs/nothing/events", 404, "nothing", type="run_not_found"),
    post("cancel_unknown_run", "{W}/runs/nothing/cancel", 404, "nothing", type="run_not_found"),
    Bad("retire_no_uuid", "DELETE", "/v1/clients/me", 400, "UUID", field_named="client_id"),
    # queries and headers
    get("wait_negative", "{W}/runs/{R}?wait_s=-1", 400, "wait_s", field_named="wait_s"),
    get("wait_too_long", "{W}/runs/{R}?wait_s=61", 400, "wait_s", field_named="wait_s"),
    get("wait_nan", "{W}/runs/{R}?wait_s=nan", 400, "wait_s", field_named="wait_s"),
    get("wait_words", "{W}/runs/{R}?wait_s=long", 400, "wait_s", field_named="wait_s"),
    get("limit_zero", "{W}/runs?limit=0", 400, "limit", field_named="limit"),
    get("limit_huge", "{W}/runs?limit=201", 400, "limit", field_named="limit"),
    get("before_beyond_any_number", "{W}/runs?before=9223372036854775808", 400, "before", field_named="before"),
    get("state_unknown", "{W}/runs?state=active&state=asleep", 400, "state[1]", field_named="state[1]"),
    get("cursor_words", "{W}/events?cursor=newest", 400, "cursor", field_named="cursor"),
    get("cursor_negative", "{W}/events?cursor=-1", 400, "cursor", field_named="cursor"),
    get("cursor_beyond_any_number", "{W}/events?cursor=9999999999999999999", 400, "cursor", field_named="cursor"),
    get("deltas_maybe", "{W}/events?deltas=maybe", 400, "deltas", field_named="deltas"),
    get("events_bad_client", "{W}/events?client_id=1234", 400, "client_id", field_named="client_id"),
    get("last_event_id_words", "{W}/events", 400, "Last-Event-ID", headers={"Last-Event-ID": "x"}),
    get("last_event_id_beyond", "{W}/events", 400, "Last-Event-ID", headers={"Last-Event-ID": "9" * 30}),
    get("query_bad_utf8", "{W}/runs?session_id=%ff", 400, "UTF-8", type="bad_query"),
    get("query_raw_bytes", b"/v1/workspaces?x=\xff", 400, "percent-encoded"),
    get("query_of_too_many_fields", "{W}/runs?" + "a=1&" * 150, 400, "fields", type="bad_query"),
    post("key_too_long", "{W}/agent", 400, "Idempotency-Key", GOOD, headers={"Idempotency-Key": "k" * 256}),
    post("key_empty", "{W}/agent", 400, "Idempotency-Key", GOOD, headers={"Idempotency-Key": ""}),
    post("key_not_ascii", "{W}/agent", 400, "Idempotency-Key", GOOD, headers={"Idempotency-Key": "é"}),
    # methods and paths
    get("no_such_path", "/v1/nothing", 404, "/v1/nothing", type="path_not_found"),
    get("no_such_path_in_a_workspace", "{W}/nothing", 404, "nothing", type="path_not_found"),
    get("a_slash_too_many", "//v1/health", 404, "", type="path_not_found"),
    get("a_slash_in_the_middle", "/v1//health", 404, "", type="path_not_found"),
    get("a_slash_at_the_end", "/v1/health/", 404, "", type="path_not_found"),
    get("dots", "/v1/workspaces/../../etc/passwd", 404, "", type="path_not_found"),
    get("escaped_dots", "/v1/workspaces/%2e%2e/config", 404, "'..'", type="workspace_not_found"),
    get(
        "escaped_slashes",
        "/v1/workspaces/..%2f..%2fetc%2fpasswd",
        404,
        "'../../etc/passwd'",
        type="workspace_not_found",
    ),
    get("doubly_escaped", "/v1/workspaces/%252e%252e", 404, "'%2e%2e'", type="workspace_not_found"),
    get("an_escaped_nul", "/v1/workspaces/%00", 404, "\\x00", type="workspace_not_found"),
    get("an_escaped_newline", "{W}/runs/a%0ab", 404, "\\n", type="run_not_found"),
    get("bad_utf8_in_the_path", "/v1/workspaces/%ff%fe", 400, "UTF-8", type="invalid_target"),
    get("a_very_long_path", "/v1/workspaces/" + "a" * 9000, 414, "8192", type="target_too_long"),
    get("a_long_id", "/v1/workspaces/" + "a" * 5000, 404, "…", type="workspace_not_found"),
    get("no_path", b"", 400, "path", type="invalid_target"),
    get("no_path_but_a_query", b"?x=1", 400, "path", type="invalid_target"),
    get("a_target_of_another_kind", b"ftp://localhost/v1/health", 400, "path", type="invalid_target"),
    Bad("an_asterisk", "OPTIONS", b"*", 400, "path", type="invalid_target"),
    Bad("delete_health", "DELETE", "/v1/health", 405, "GET", type="method_not_allowed"),
    Bad("patch_session", "PATCH", "{W}/sessions/{S}", 405, "PUT", type="method_not_allowed"),
    Bad("options", "OPTIONS", "/v1/health", 405, "GET", type="method_not_allowed"),
    Bad("a_method_of_nobody", "BREW", "/v1/version", 405, "GET", type="method_not_allowed"),
    get("get_a_cancel", "{W}/agent/sessions/{S}/cancel", 405, "POST", type="method_not_allowed"),
    # bodies that are too large
    post("a_huge_prompt", "{W}/agent", 413, str(MAX_BODY), {**GOOD, "prompt": "x" * MAX_BODY}, type="body_too_large"),
    post(
        "a_huge_body_nobody_reads",
        "{W}/agent",
        413,
        str(MAX_BODY),
        {**GOOD, "x": "x" * MAX_BODY},
        type="body_too_large",
    ),
    post(
        "a_body_that_says_it_is_huge",
        "{W}/agent",
        413,
        str(MAX_BODY),
        GOOD,
        headers={"Content-Length": "99999999999"},
        type="body_too_large",
    ),
    # hosts and origins
    get("host_of_another", "/v1/health", 403, "evil.example", headers={"Host": "evil.example"}, field_named="Host"),
    get("host_that_looks_like_ours", "/v1/health", 403, "localhost.", headers={"Host": "localhost.evil.example"}),
    get("host_with_a_user", "/v1/health", 400, "Host", headers={"Host": "localhost@evil.example"}, field_named="Host"),
    get("host_of_a_strange_address", "/v1/health", 403, "10.1.2.3", headers={"Host": "10.1.2.3:2180"}, over="tcp"),
    get("host_empty", "/v1/health", 400, "Host", headers={"Host": ""}, field_named="Host"),
    get("host_missing", "/v1/health", 400, "Host", headers={"Host": None}, field_named="Host"),
    get("host_for_unix_over_tcp", "/v1/health", 403, "crush", headers={"Host": "api.crush.localhost"}, over="tcp"),
    get("another_host_in_the_target", b"http://evil.example/v1/health", 403, "evil.example", type="host_not_allowed"),
    post("origin_of_another", "{W}/agent", 403, "evil", GOOD, headers={"Origin": "https://evil.example"}),
    post("origin_of_another_port", "{W}/agent", 403, "3000", GOOD, headers={"Origin": "http://localhost:3000"}),
    post("origin_null", "{W}/agent", 403, "null", GOOD, headers={"Origin": "null"}, field_named="Origin"),
    post("origin_of_nonsense", "{W}/agent", 403, "[", GOOD, headers={"Origin": "http://["}, field_named="Origin"),
    get("image_on_another_page", "/v1/health", 403, "other sites", headers={"Sec-Fetch-Site": "cross-site"}),
    # tokens
    get("no_token", "/v1/version", 401, "Bearer", over="tcp", type="unauthenticated"),
    get("no_token_for_a_path_of_nothing", "/v1/nothing", 401, "Bearer", over="tcp"),
    get("wrong_token", "/v1/version", 401, "not known", over="tcp", headers={"Authorization": "Bearer cmd_wrong"}),
    get("another_scheme", "/v1/version", 401, "Bearer", over="tcp", headers={"Authorization": "Basic cmVhZDpyZWFk"}),
    get("a_scheme_alone", "/v1/version", 401, "Bearer", over="tcp", headers={"Authorization": "Bearer "}),
    get("a_token_in_the_query", "/v1/version?token={T:admin}", 401, "Bearer", over="tcp"),
    get("a_cookie_of_nobody", "/v1/version", 401, "Bearer", over="tcp", headers={"Cookie": "countermand=abc"}),
    get("a_token_as_a_cookie", "/v1/version", 401, "Bearer", over="tcp", headers={"Cookie": "countermand={T:admin}"}),
    post("read_may_not_prompt", "{W}/agent", 403, "'run'", GOOD, over="read", type="scope_too_narrow"),
    post("read_may_not_cancel", "{W}/agent/sessions/{S}/cancel", 403, "'run'", over="read", type="scope_too_narrow"),
    get("read_may_not_claim", f"{{W}}/events?client_id={CLIENT}", 403, "'run'", over="read", type="scope_too_narrow"),
    Bad("run_may_not_close", "DELETE", "{W}", 403, "'admin'", over="run", type="scope_too_narrow"),
    post("run_may_not_shut_down", "/v1/control", 403, "'admin'", {"command": "shutdown"}, over="run"),
    post("run_may_not_configure", "{W}/config/model", 403, "'admin'", {}, over="run", type="scope_too_narrow"),
    post("nobody_is_told_of_a_body_that_is_wrong", "{W}/agent", 401, "Bearer", body=b"{", over="tcp"),
]


def test_there_are_at_least_eighty_rows_and_their_names_differ() -> None:
    assert len(ROWS) >= 80
    assert len({row.name for row in ROWS}) == len(ROWS)


async def test_r03_a_bad_request_is_refused_and_its_fault_is_named(
    tmp_path: Path, autojump_clock: object, subtests: pytest.Subtests
) -> None:
    """All against one server: what one of them left behind, the next would meet."""
    tokens = TokenStore(tmp_path / "tokens.json")
    secrets = {scope: tokens.create(scope, scope, now_us=0) for scope in ("read", "run", "admin")}
    web = WebSettings(token_file=tmp_path / "tokens.json", max_body_bytes=MAX_BODY)
    async with open_api(tmp_path, web=web) as api:
        accepted = (await api.send("a prompt that is good")).json()
        run = await api.ended(accepted["run_id"])
        words = {"{W}": api.w, "{S}": api.session_id, "{R}": run["id"], "{T:admin}": secrets["admin"]}
        for row in ROWS:
            with subtests.test(row.name):
                before = (await api.client.get(f"{api.w}/runs")).json()
                client = api.client if row.over == "unix" else api.tcp(secrets.get(row.over))
                answer = await client.request(
                    row.method,
                    filled(row.target, words),
                    json=filled(row.json, words),
                    body=filled(row.body, words),
                    headers=filled(row.headers, words),
                )
                _assert_says(row, answer)
                assert (await api.client.get(f"{api.w}/runs")).json() == before  # nothing of it is left
                _assert_consistent(api)


def _assert_says(row: Bad, answer: Response) -> None:
    assert answer.status == row.status, answer
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) <= {"message", "type", "field"}
    assert body["type"]
    assert row.says in body["message"], body
    assert row.field_named in (None, body.get("field"))
    assert row.type in (None, body["type"])
    assert ("allow" in answer.headers) == (row.status == 405)
    assert ("www-authenticate" in answer.headers) == (row.status == 401 or body["type"] == "scope_too_narrow")


def _assert_consistent(api: Api) -> None:
    assert all(each.active == each.waiting == each.feeds == 0 for each in api.backend.statistics().workspaces.values())
