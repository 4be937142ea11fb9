"""The tokens of a server: a small file of names, scopes and hashes. The secrets themselves are kept nowhere."""

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from engine.errors import ConfigInvalid, NotFound

Scope = Literal["read", "run", "admin"]

PREFIX = "cmd_"  # so that a scanner for leaked secrets can know one
SECRET_BYTES = 32

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")

log = structlog.get_logger(__name__)


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One token, without its secret."""

    name: str
    scope: Scope
    sha256: str
    created_at_us: int


class _File(msgspec.Struct, frozen=True, kw_only=True):
    version: Literal[1] = 1
    tokens: tuple[Token, ...] = ()


class TokenStore:
    """The token file, read again whenever it has changed: a token that is revoked stops working at once.

    Synchronous throughout: a look at the file's time is microseconds, and the file is small.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def list(self) -> tuple[Token, ...]:
        """Every token, the oldest first."""
        self._refresh()
        return self._tokens

    def find(self, secret: str) -> Token | None:
        """The token that this is the secret of."""
        return self.find_hash(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest())

    def find_hash(self, sha256: str) -> Token | None:
        """The token with this hash. Every one is compared, in constant time, whichever matches."""
        self._refresh()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(token.sha256, sha256):
                found = token
        return found

    def create(self, name: str, scope: Scope, *, now_us: int) -> str:
        """Make a token; its secret is shown this once. Raises ConfigInvalid for a name that is bad or taken."""
        if not _NAME.fullmatch(name):
            raise ConfigInvalid("name", "must be 1 to 64 letters, digits, or any of . _ @ -, and begin with no sign")
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        sha256 = hashlib.sha256(secret.encode()).hexdigest()
        with self._locked():
            tokens = self._read()
            if any(token.name == name for token in tokens):
                raise ConfigInvalid("name", f"there is a token {name!r} already; revoke it, or choose another name")
            self._write((*tokens, Token(name=name, scope=scope, sha256=sha256, created_at_us=now_us)))
        return secret

    def revoke(self, name: str) -> None:
        """Make a token worthless. Raises NotFound."""
        with self._locked():
            tokens = self._read()
            left = tuple(token for token in tokens if token.name != name)
            if len(left) == len(tokens):
                raise NotFound("token", name)
            self._write(left)

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
        except OSError:
            seen = None
        else:
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._tokens = self._read() if seen else ()
        except ConfigInvalid as error:
            # Nobody is let in by a file that cannot be understood.
            log.error("token_file_unusable", problem=str(error))
            self._tokens = ()

    def _read(self) -> tuple[Token, ...]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_File).tokens
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigInvalid("token_file", f"{self._path}: {error}") from None

    def _write(self, tokens: tuple[Token, ...]) -> None:
        """Replace the file, all or nothing: a reader sees the old one or the new one."""
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".tokens-")  # made with mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(_File(tokens=tokens))) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        finally:
            with suppress(FileNotFoundError):  # when it has taken the file's place
                os.unlink(name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, on this machine: two commands may be started at once."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
