"""The token file: names, scopes, hashes; and the server that notices a change at once."""

import os
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from engine.errors import ConfigInvalid, NotFound
from web.auth import TokenStore

NOW = 1_770_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tokens.json"


def test_a_token_is_found_by_its_secret_and_by_nothing_else(path: Path) -> None:
    store = TokenStore(path)
    secret = store.create("ci", "run", now_us=NOW)
    found = store.find(secret)
    assert found is not None
    assert (found.name, found.scope, found.created_at_us) == ("ci", "run", NOW)
    assert store.find(secret + "x") is None
    assert store.find(found.sha256) is None
    assert store.find("") is None
    assert store.find("\ud800") is None


def test_the_file_holds_hashes_and_belongs_to_its_owner_alone(path: Path) -> None:
    secret = TokenStore(path).create("ci", "run", now_us=NOW)
    assert secret not in path.read_text()
    assert secret.removeprefix("cmd_") not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_secrets_are_long_and_never_the_same(path: Path) -> None:
    store = TokenStore(path)
    secrets = {store.create(f"t{number}", "read", now_us=NOW) for number in range(20)}
    assert len(secrets) == 20
    assert all(len(secret) >= 40 for secret in secrets)


def test_what_another_process_does_is_noticed(path: Path) -> None:
    server, command = TokenStore(path), TokenStore(path)
    assert server.list() == ()
    secret = command.create("ci", "run", now_us=NOW)
    assert server.find(secret) is not None
    command.revoke("ci")
    assert server.find(secret) is None
    command.create("ci", "read", now_us=NOW)
    assert [token.scope for token in server.list()] == ["read"]
    path.unlink()
    assert server.list() == ()


def test_tokens_are_listed_in_the_order_they_were_made(path: Path) -> None:
    store = TokenStore(path)
    for name in ("b", "a", "c"):
        store.create(name, "read", now_us=NOW)
    store.revoke("a")
    assert [token.name for token in store.list()] == ["b", "c"]


@pytest.mark.parametrize("name", ["", "a b", "-x", "ä", "a/b", "n" * 65, "a\n"])
def test_a_bad_name_is_refused(path: Path, name: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        TokenStore(path).create(name, "read", now_us=NOW)
    assert refused.value.field == "name"


def test_a_taken_name_is_refused_and_nothing_changes(path: Path) -> None:
    store = TokenStore(path)
    secret = store.create("ci", "run", now_us=NOW)
    with pytest.raises(ConfigInvalid, match="already"):
        store.create("ci", "admin", now_us=NOW)
    found = store.find(secret)
    assert found is not None
    assert found.scope == "run"


def test_revoking_what_is_not_there_is_an_error(path: Path) -> None:
    with pytest.raises(NotFound):
        TokenStore(path).revoke("ci")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"version": 2, "tokens": []}', b'{"tokens": [{"name": "x"}]}']
)
def test_a_file_that_cannot_be_understood_lets_nobody_in_and_is_not_overwritten(path: Path, content: bytes) -> None:
    store = TokenStore(path)
    secret = store.create("ci", "admin", now_us=NOW)
    path.write_bytes(content)
    assert store.find(secret) is None
    with pytest.raises(ConfigInvalid):
        store.create("other", "read", now_us=NOW)
    assert path.read_bytes() == content


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = TokenStore(path)
    secret = store.create("ci", "run", now_us=NOW)

    def broken(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no space"):
        store.create("other", "run", now_us=NOW)
    monkeypatch.undo()
    assert store.find(secret) is not None
    assert {each.name for each in path.parent.iterdir()} == {"tokens.json", "tokens.json.lock"}


def test_commands_that_run_at_once_lose_no_token(path: Path) -> None:
    def create(number: int) -> None:
        TokenStore(path).create(f"t{number}", "read", now_us=NOW)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(TokenStore(path).list()) == 16


def test_the_format_of_the_file_is_plain(path: Path) -> None:
    TokenStore(path).create("ci", "run", now_us=NOW)
    content = msgspec.json.decode(path.read_bytes())
    assert content["version"] == 1
    assert set(content["tokens"][0]) == {"name", "scope", "sha256", "created_at_us"}
