"""Log lines: where they go, and what never stands in them."""

import io
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from web.logs import REDACTED, LogLevel, Redactor, configure_logs

SECRET = "s3cr3t-9f8e7d6c5b4a"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Where the lines of a test go. What is configured for the process is put back."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    yield io.StringIO()
    root.handlers, root.level = before, level
    structlog.reset_defaults()


def decoded(lines: io.StringIO) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in lines.getvalue().splitlines()]


def test_a_line_of_json_has_its_time_its_level_and_what_was_said(lines: io.StringIO) -> None:
    configure_logs(as_json=True, stream=lines, environ={})
    structlog.get_logger().info("run_settled", run_id="r1", seconds=1.5)
    [line] = decoded(lines)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "run_settled", "level": "info", "run_id": "r1", "seconds": 1.5}


def test_lines_of_libraries_look_like_ours(lines: io.StringIO) -> None:
    configure_logs(as_json=True, stream=lines, environ={})
    logging.getLogger("hypercorn.error").warning("something %s", "odd")
    [line] = decoded(lines)
    assert (line["event"], line["level"], line["logger"]) == ("something odd", "warning", "hypercorn.error")


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_lines_below_the_level_are_not_written(lines: io.StringIO, level: LogLevel, count: int) -> None:
    configure_logs(level=level, as_json=True, stream=lines, environ={})
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger(), name)("ours")
        getattr(logging.getLogger("theirs"), name)("theirs")
    assert len(decoded(lines)) == 2 * count


def test_libraries_that_tell_of_every_request_are_silenced(lines: io.StringIO) -> None:
    configure_logs(level="debug", as_json=True, stream=lines, environ={})
    logging.getLogger("httpx2").info("HTTP Request: POST https://api.example.org")
    assert not lines.getvalue()


def test_lines_for_people_have_no_colors_unless_on_a_terminal(lines: io.StringIO) -> None:
    configure_logs(stream=lines, environ={})
    structlog.get_logger().info("ready", port=2180)
    assert "ready" in lines.getvalue()
    assert "port=2180" in lines.getvalue()
    assert "\x1b" not in lines.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Authorization",
        "proxy-authorization",
        "token",
        "tokens",
        "access_token",
        "accessToken",
        "api_key",
        "apiKey",
        "x-api-key",
        "OPENAI_API_KEY",
        "cookie",
        "set-cookie",
        "env",
        "environ",
        "creator_env",
        "password",
        "client_secret",
        "private_key",
        "credentials",
    ],
)
@pytest.mark.parametrize("as_json", [True, False])
def test_what_stands_under_a_telling_name_is_redacted(lines: io.StringIO, name: str, as_json: bool) -> None:
    configure_logs(as_json=as_json, stream=lines, environ={})
    log = structlog.get_logger()
    log.info("said", **{name: SECRET})
    log.info("nested", request={"headers": [{name: [SECRET]}]})
    log.info("bytes", **{name: SECRET.encode()})
    assert SECRET not in lines.getvalue()
    assert lines.getvalue().count(REDACTED) == 3


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"sent bearer {SECRET} to the provider",
        f"GET /v1/events?token={SECRET}&deltas=1",
        f'{{"api_key": "{SECRET}"}}',
        f"{{'password': '{SECRET}'}}",
        f"Cookie: countermand={SECRET}",
        f"postgres://user:{SECRET}@db.example.org/x",
        f"OPENAI_API_KEY={SECRET}",
        "the token cmd_Zm9vYmFyZm9vYmFyZm9vYmFy is not known",
        "Incorrect API key provided: sk-Zm9vYmFyZm9vYmFyZm9v",
    ],
)
def test_what_looks_like_a_secret_is_redacted_in_any_text(lines: io.StringIO, text: str) -> None:
    configure_logs(as_json=True, stream=lines, environ={})
    structlog.get_logger().info("said", problem=text)
    structlog.get_logger().info(text)
    logging.getLogger("theirs").error("%s", text)
    for secret in (SECRET, "Zm9vYmFy"):
        assert secret not in lines.getvalue()


def test_tracebacks_are_redacted_and_show_no_variables(lines: io.StringIO) -> None:
    configure_logs(as_json=True, stream=lines, environ={})
    password = SECRET
    try:
        raise RuntimeError(f"refused: token={password}")
    except RuntimeError:
        structlog.get_logger().exception("failed")
        logging.getLogger("theirs").exception("failed")
    assert "RuntimeError: refused" in lines.getvalue()
    assert SECRET not in lines.getvalue()


def test_the_secrets_of_the_environment_are_redacted_wherever_they_turn_up(lines: io.StringIO) -> None:
    environ = {"OPENAI_API_KEY": SECRET, "MY_TOKEN": SECRET + "-and-more", "HOME": "/home/ann", "A_SECRET": "short"}
    configure_logs(as_json=True, stream=lines, environ=environ)
    structlog.get_logger().info("odd", url=f"https://x/{SECRET}/y", home="/home/ann", word="shortly")
    structlog.get_logger().info("odd", url=f"{SECRET}-and-more")
    first, second = decoded(lines)
    assert (first["url"], first["home"], first["word"]) == (f"https://x/{REDACTED}/y", "/home/ann", "shortly")
    assert second["url"] == REDACTED


def test_counts_and_names_are_not_secrets(lines: io.StringIO) -> None:
    configure_logs(as_json=True, stream=lines, environ={})
    said = {"tokens": 12, "prompt_tokens": 7, "token_name": "ci", "cookie": None, "environment_id": "e", "keys": "a"}
    structlog.get_logger().info("counted", **said)
    [line] = decoded(lines)
    assert {name: line[name] for name in said} == said


def test_values_that_cannot_be_encoded_are_written_as_text(lines: io.StringIO) -> None:
    configure_logs(as_json=True, stream=lines, environ={})
    deep: list[Any] = []
    for _ in range(50):
        deep = [deep]
    structlog.get_logger().info("odd", error=ValueError(f"token={SECRET}"), kind={1, 2}, deep=deep)
    [line] = decoded(lines)
    assert line["error"] == f"token={REDACTED}"
    assert sorted(line["kind"]) == [1, 2]


def test_a_reader_that_has_gone_is_no_reason_to_fail(lines: io.StringIO) -> None:
    configure_logs(as_json=True, stream=lines, environ={})
    lines.close()
    structlog.get_logger().info("nobody reads this")
    logging.getLogger("theirs").error("nor this")


@given(st.text(alphabet="abc:=/@ '\"{}Bearer\n", max_size=60))
def test_redacting_twice_is_redacting_once(text: str) -> None:
    redactor = Redactor({})
    once = redactor.text(text)
    assert redactor.text(once) == once
