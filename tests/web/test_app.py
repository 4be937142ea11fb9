"""The application as a whole: errors, bodies, heads, targets, and what it writes down."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from engine.backend import Backend
from engine.errors import NotFound, StoreUnavailable
from tests.doubles.asgi_client import AsgiClient
from tests.web.api import NOBODY, open_api
from web import app as web_app
from web.auth import WebSettings
from web.auth.front import split_target, unescape_segment
from web.problems import Refused
from web.routes.call import Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable

# Errors


def application(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, handler: Callable[[Call[Nothing, Nothing]], Awaitable[Reply]]
) -> AsgiClient:
    """A client of an application whose one route does what the test says."""
    table = RouteTable("test")
    table.get("/v1/test", query=Nothing, access="open", answer=None)(handler)
    monkeypatch.setattr(web_app, "ROUTES", tuple(table.routes))
    return AsgiClient(web_app.create_app(backend, WebSettings()))


async def test_what_nobody_expected_is_an_answer_without_a_word_of_it_and_a_line_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, autojump_clock: object
) -> None:
    async def handler(call: Call[Nothing, Nothing]) -> Reply:
        await trio.lowlevel.checkpoint()
        raise ValueError("the secret of the house")

    client = application(monkeypatch, backend, handler)
    with capture_logs() as lines:
        answer = await client.get("/v1/test")
    assert (answer.status, answer.json()) == (500, {"message": "internal server error", "type": "internal"})
    (line,) = [each for each in lines if each["event"] == "request_failed"]
    assert (line["route"], line["log_level"]) == ("handler", "error")
    assert isinstance(line["exc_info"], ValueError)
    assert line["exc_info"].__traceback__ is not None


async def test_a_group_of_one_is_as_good_as_the_one(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, autojump_clock: object
) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise NotFound("run", "r1")

    async def handler(call: Call[Nothing, Nothing]) -> Reply:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(fail)
        return Reply()

    answer = await application(monkeypatch, backend, handler).get("/v1/test")
    assert (answer.status, answer.json()["type"]) == (404, "run_not_found")


async def test_several_errors_at_once_are_nobodys_fault_but_ours(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, autojump_clock: object
) -> None:
    async def handler(call: Call[Nothing, Nothing]) -> Reply:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("two", [NotFound("run", "r1"), ValueError("x")])

    with capture_logs() as lines:
        answer = await application(monkeypatch, backend, handler).get("/v1/test")
    assert answer.status == 500
    assert isinstance(lines[0]["exc_info"], ExceptionGroup)


async def test_a_failure_while_the_caller_hangs_up_is_logged_and_the_cancellation_goes_on(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, autojump_clock: object
) -> None:
    entered = trio.Event()
    was_answered = False

    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while unwinding")

    async def handler(call: Call[Nothing, Nothing]) -> Reply:
        nonlocal was_answered
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_at_the_end)
            nursery.start_soon(trio.sleep_forever)
            entered.set()
        was_answered = True
        return Reply()

    client = application(monkeypatch, backend, handler)
    with capture_logs() as lines, trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.get, "/v1/test")
            await entered.wait()
            nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    assert not was_answered
    (line,) = [each for each in lines if each["event"] == "request_failed"]
    assert "while unwinding" in repr(line["exc_info"])


async def test_what_a_handler_opened_is_left_however_the_response_ends(
    monkeypatch: pytest.MonkeyPatch, backend: Backend, autojump_clock: object
) -> None:
    left: list[str] = []

    async def handler(call: Call[Nothing, Nothing]) -> Reply:
        call.resources.callback(left.append, "left")
        await trio.lowlevel.checkpoint()
        if call.inbound.header("x-fail"):
            raise StoreUnavailable("full")
        return json_reply({"open": not left})

    client = application(monkeypatch, backend, handler)
    assert (await client.get("/v1/test")).json() == {"open": True}
    assert (await client.get("/v1/test", headers={"x-fail": "1"})).status == 503
    assert left == ["left", "left"]


# Bodies


async def send_slowly(client: AsgiClient, target: str) -> tuple[int, dict[str, Any]]:
    async with client.stream("POST", target, body=None) as stream:
        return stream.status, msgspec.json.decode(await stream.read())


async def test_a_body_that_does_not_arrive_is_not_waited_for_for_ever(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path, web=WebSettings(body_timeout_s=30)) as api:
        started = trio.current_time()
        status, body = await send_slowly(api.client, f"{api.w}/agent")
        assert (status, body["type"]) == (408, "body_too_slow")
        assert trio.current_time() - started == 30


async def test_a_body_that_nobody_needs_is_not_waited_for_at_all(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path, web=WebSettings(body_timeout_s=30)) as api:
        started = trio.current_time()
        status, _ = await send_slowly(api.client, f"{api.w}/agent/sessions/{api.session_id}/cancel")
        assert (status, trio.current_time()) == (200, started)
        status, _ = await send_slowly(api.tcp(), f"{api.w}/agent")
        assert (status, trio.current_time()) == (401, started)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
async def test_json_is_read_whatever_it_is_called(
    tmp_path: Path, autojump_clock: object, content_type: str | None
) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.client.post(f"{api.w}/sessions", {"title": "x"}, headers={"Content-Type": content_type})
        assert (answer.status, answer.json()["title"]) == (200, "x")


@pytest.mark.parametrize(
    "path", ["agent/init", "agent/update", "sessions", "agent/sessions/{S}/cancel", "agent/sessions/{S}/prompts/clear"]
)
async def test_an_empty_body_is_fine_where_crush_sends_none(tmp_path: Path, autojump_clock: object, path: str) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.client.post(f"{api.w}/{path}".replace("{S}", api.session_id))
        assert answer.status == 200, answer


async def test_nulls_and_unknown_keys_are_as_good_as_nothing(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        nulls = {"run_id": None, "attachments": None, "if_busy": None, "timeout_s": None, "model": None}
        answer = await api.send("hi", **nulls, colour="green")
        assert answer.status == 202, answer


# Heads and targets


async def test_head_is_answered_as_get_without_the_body(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        for target in ("/v1/version", api.w, f"{api.w}/config", "/v1/docs", "/metrics"):
            whole, head = await api.client.get(target), await api.client.request("HEAD", target)
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-type"] == whole.headers["content-type"]
            if target != "/metrics":  # counts the requests between
                assert head.headers["content-length"] == str(len(whole.body))
        missing = await api.client.request("HEAD", "/v1/workspaces/none")
        assert (missing.status, missing.body) == (404, b"")
        refused = await api.client.request("HEAD", "/v1/version", headers={"Host": "evil.example"})
        assert (refused.status, refused.body) == (403, b"")


async def test_an_absolute_target_is_as_good_as_its_path(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        for place in ("localhost", "api.crush.localhost", "127.0.0.1:2180"):
            answer = await api.client.get(f"http://{place}{api.w}/runs?limit=3")
            assert answer.json() == {"runs": [], "next": None}


@pytest.mark.parametrize("run_id", ["a b", "100%", "a$$b", "a%2Fb", "ümlaut?", "a#b", ";,:@&=+"])
async def test_a_runs_location_leads_to_it_whatever_its_id(tmp_path: Path, autojump_clock: object, run_id: str) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.send("hi", run_id=run_id)
        if not run_id.isascii():
            assert answer.status == 400
            return
        assert (await api.client.get(answer.headers["location"] + "?wait_s=60")).json()["id"] == run_id


@pytest.mark.parametrize(
    ("raw", "place", "segments"),
    [
        (b"/", None, ["", ""]),
        (b"/v1/a%20b/c", None, ["", "v1", "a b", "c"]),
        (b"/a%2Fb/%2e%2e/%25", None, ["", "a/b", "..", "%"]),
        (b"/a%252Fb", None, ["", "a%2Fb"]),
        (b"/%E2%82%AC", None, ["", "€"]),
        (b"http://host:1/v1/x", "host:1", ["", "v1", "x"]),
        (b"https://host", "host", ["", ""]),
    ],
)
def test_segments_are_decoded_one_by_one(raw: bytes, place: str | None, segments: list[str]) -> None:
    found, path = split_target(raw)
    assert found == place
    assert [unescape_segment(segment) for segment in path.split("/")] == segments


@pytest.mark.parametrize("raw", [b"", b"*", b"x", b"ftp://host/", b"http:///x", b"/%ff", b"/\xff"])
def test_a_target_that_is_none_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused) as refused:
        split_target(raw)
    assert refused.value.status == 400


async def test_a_websocket_is_closed_and_leaves_no_trace(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            await trio.lowlevel.checkpoint()
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            sent.append(message)

        await api.app({"type": "websocket", "path": "/v1/health", "headers": []}, receive, send)
        assert sent == [{"type": "websocket.close", "code": 1008}]


# What is written down


async def test_failures_are_always_logged_and_of_the_rest_every_nth(tmp_path: Path, autojump_clock: object) -> None:
    for every, expected in ((1, 6), (3, 2), (0, 0)):
        async with open_api(tmp_path, web=WebSettings(access_log_every=every)) as api:
            with capture_logs() as lines:
                for _ in range(6):
                    await api.client.get("/v1/health")
                await api.client.get(f"{api.w}/runs/none")
            told = [each for each in lines if each["event"] == "request"]
            assert sum(each["route"] == "health" for each in told) == expected
            (failure,) = [each for each in told if each["route"] == "get_run"]
            assert (failure["status"], failure["method"], failure["caller"], failure["transport"]) == (
                *(404, "GET"),
                *("owner", "unix"),
            )


async def test_a_caller_that_went_away_is_logged_as_gone(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        with capture_logs() as lines:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_slowly, api.client, f"{api.w}/agent")
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
        (line,) = [each for each in lines if each["event"] == "request"]
        assert (line["status"], line["ms"]) == (499, 1000.0)


async def test_metrics_tell_of_runs_and_requests(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send("hi")).json()["run_id"])
        await api.client.get(f"/v1/workspaces/{NOBODY}")
        answer = await api.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = answer.body.decode().splitlines()
        assert 'countermand_runs{stage="active"} 0.0' in lines
        assert "countermand_workspaces 1.0" in lines
        assert 'countermand_http_requests_total{method="POST",route="send_prompt",status="202"} 1.0' in lines
        assert 'countermand_http_requests_total{method="GET",route="get_workspace",status="404"} 1.0' in lines
        assert any(line.startswith("countermand_log_committed_total ") for line in lines)
        assert NOBODY not in answer.body.decode()


async def test_answers_are_not_kept_and_not_guessed_at(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        for target in ("/v1/version", "/v1/docs", api.w):
            headers = (await api.client.get(target)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "no-store" in headers["cache-control"]
        page = (await api.client.get("/v1/docs")).headers["content-security-policy"]
        assert "default-src 'none'" in page
        assert "script-src 'sha256-" in page
        root = await api.client.get("/")
        assert (root.status, root.headers["location"]) == (302, "/v1/docs")
