"""What went wrong at a provider, as a `ModelError` that a person can act on (R20). No I/O, and never a key."""

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx2
import msgspec

from engine.errors import ModelError, ModelErrorKind
from engine.models.settings import Secret

SHOWN_CHARACTERS = 600  # of what the provider says

_TITLES: dict[ModelErrorKind, str] = {
    "authentication": "The provider refused the key",
    "rate_limit": "The provider's rate limit is reached",
    "overloaded": "The provider is overloaded",
    "server": "The provider has a problem of its own",
    "connection": "The provider cannot be reached",
    "protocol": "The provider sent something that cannot be read",
    "bad_request": "The provider refused the request",
    "context_length": "The conversation is too long for the model",
    "not_found": "The provider does not know the model",
    "content_filter": "The provider's content filter refused the request",
}
_KINDS: dict[int, ModelErrorKind] = {
    401: "authentication",
    403: "authentication",
    404: "not_found",
    408: "server",
    409: "server",
    425: "server",
    429: "rate_limit",
    503: "overloaded",
    529: "overloaded",
}
_KINDS_BY_CODE: dict[str, ModelErrorKind] = {
    "context_length_exceeded": "context_length",
    "string_above_max_length": "context_length",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "image_content_policy_violation": "content_filter",
    "misalignment_policy_violation": "content_filter",
    "bio_policy": "content_filter",
    "invalid_api_key": "authentication",
    "insufficient_quota": "authentication",
    "model_not_found": "not_found",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "overloaded_error": "overloaded",
    "server_is_overloaded": "overloaded",
    "slow_down": "overloaded",
    "server_error": "server",
    "api_error": "server",
    "timeout_error": "server",
    "gateway_timeout_error": "server",
    "authentication_error": "authentication",
    "permission_error": "authentication",
    "billing_error": "authentication",
    "not_found_error": "not_found",
    "API_KEY_INVALID": "authentication",
}
# Whatever else is wrong, it stays wrong.
_REFUSED = {
    "invalid_request_error", "request_too_large", "invalid_prompt", "data_residency_mismatch", "invalid_image",
    "invalid_image_format", "invalid_base64_image", "invalid_image_url", "invalid_image_mode", "image_too_large",
    "image_too_small", "image_parse_error", "image_file_too_large", "unsupported_image_media_type", "empty_image_file",
}  # fmt: skip
_TOO_LONG = re.compile(
    r"context.{0,3}(?:length|window|size|limit)|maximum context|too many (?:input )?tokens|(?:prompt|input) is too long"
    r"|reduce the length|exceeds? the (?:maximum|max|limit).{0,40}tokens|token limit",
    re.IGNORECASE,
)
_TRY_AGAIN = re.compile(r"try again in ([\d.]+s)\b", re.IGNORECASE)  # OpenAI, in a stream
_NO_CREDIT = "insufficient_quota"


class Blame(msgspec.Struct, frozen=True, kw_only=True):
    """Who answered, for what is said about it."""

    provider: str
    model: str
    base_url: str
    key_hint: str  # where its key is set
    secrets: tuple[Secret, ...] = ()

    def says(self, problem: str) -> str:
        """A sentence about this provider, with every key taken out whatever it came from."""
        text = f"{self.provider} ({self.base_url}): {problem}"
        for secret in self.secrets:
            text = secret.hide_in(text)
        return text


def error_of_status(status: int, headers: Mapping[str, str], body: bytes, blame: Blame) -> ModelError:
    """A response that is not 200."""
    message, codes, delay = _read_error(body)
    kind = _kind(status, message, codes)
    problem = f"it answered {status}" + (f": {message}" if message else "")
    if 300 <= status < 400:
        problem += f"; it points to {_one_line(headers.get('location', ''))!r}: set that as the base URL"
    asked = _retry_after(headers)
    return _error(kind, problem, codes, blame, status=status, retry_after=delay if asked is None else asked)


def error_in_stream(payload: bytes, blame: Blame) -> ModelError:
    """An error that came as an event, after a 200."""
    message, codes, delay = _read_error(payload)
    status = next((int(code) for code in codes if code.isdecimal() and 400 <= int(code) < 600), None)
    known = status is not None or any(code in _KINDS_BY_CODE or code in _REFUSED for code in codes)
    kind = _kind(status or 400, message, codes) if known or _TOO_LONG.search(message) else "server"
    problem = f"its answer broke off with an error: {message}"
    return _error(kind, problem, codes, blame, status=status, retry_after=delay)


def error_of_transport(error: httpx2.HTTPError | httpx2.InvalidURL, blame: Blame, *, during_answer: bool) -> ModelError:
    """What the network did."""
    reason = _one_line(str(error)) or type(error).__name__
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        problem = f"{reason}; check its base URL"
        return ModelError("bad_request", "The provider's address cannot be used", blame.says(problem))
    if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        problem = "no connection in time; check the network, the proxy settings and the base URL"
    elif isinstance(error, httpx2.ConnectError):
        problem = f"no connection ({reason}); is the server running, and is the base URL right?"
    elif isinstance(error, httpx2.TimeoutException):
        problem = "it fell silent for longer than `read_timeout_s` of the provider's settings allows"
    else:
        problem = f"the connection was lost ({reason})"
    title = "The answer broke off" if during_answer else _TITLES["connection"]
    return ModelError("connection", title, blame.says(problem))


def error_of_early_end(blame: Blame, *, has_begun: bool) -> ModelError:
    """The body ended, and nobody said that the answer did."""
    problem = "the stream ended before the answer did"
    if not has_begun:
        problem = "the stream ended without a single event; is the base URL that of a model server?"
    return ModelError("connection", "The answer broke off", blame.says(problem))


def error_of_nonsense(problem: str, blame: Blame) -> ModelError:
    """The answer can be read, and makes no sense."""
    return ModelError("protocol", "The provider sent something that makes no sense", blame.says(problem))


def error_of_filter(problem: str, blame: Blame) -> ModelError:
    """What was asked is not let through."""
    return ModelError("content_filter", _TITLES["content_filter"], blame.says(problem))


def _error(
    kind: ModelErrorKind, problem: str, codes: list[str], blame: Blame, *, status: int | None,
    retry_after: float | None = None,
) -> ModelError:  # fmt: skip
    title = "The account has no credit" if _NO_CREDIT in codes or status == 402 else _TITLES[kind]
    advice = {
        "authentication": f"Check {blame.key_hint}, and what the account may use.",
        "rate_limit": "Wait, or use another model or account.",
        "not_found": f"Check the model's name, {blame.model!r}, and the base URL.",
        "context_length": "Begin a new session, or shorten what is sent.",
    }.get(kind, "")
    details = blame.says(problem.rstrip(". ") + "." + (f" {advice}" if advice else ""))
    return ModelError(kind, title, details, status=status, retry_after=retry_after)


def _kind(status: int, message: str, codes: list[str]) -> ModelErrorKind:
    by_code = next((_KINDS_BY_CODE[code] for code in codes if code in _KINDS_BY_CODE), None)
    if by_code is not None and (status in (400, 404, 413, 422, 429) or by_code == "authentication"):
        return by_code
    if status in (400, 413, 422) and _TOO_LONG.search(message):
        return "context_length"
    if status == 402:
        return "authentication"
    return _KINDS.get(status, "server" if status >= 500 else "bad_request")


def _read_error(body: bytes) -> tuple[str, list[str], float | None]:
    """What an error body says, the stable words in it, and the wait that it asks for. Providers agree on little: an
    `error` that is a table or a string, or the same fields without one around them, or no JSON at all."""
    try:
        data: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _one_line(re.sub(r"<[^>]*>", " ", body.decode("utf-8", "replace"))), [], None
    if isinstance(data, list) and data:
        data = data[0]  # Gemini wraps its errors in a list
    if isinstance(data, dict):
        data = data.get("error") or data
    if not isinstance(data, dict):
        return _one_line(str(data)), [], None
    message = next((str(data[key]) for key in ("message", "detail", "msg") if data.get(key)), "")
    listed = data.get("details")
    details = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    words = [data.get(key) for key in ("code", "type", "status")] + [each.get("reason") for each in details]
    codes = [str(word) for word in words if isinstance(word, str | int)]
    delays = [each.get("retryDelay") for each in details] + _TRY_AGAIN.findall(message)
    delay = next((_number(text[:-1]) for text in delays if isinstance(text, str) and text.endswith("s")), None)
    return _one_line(message or msgspec.json.encode(data).decode()), codes, delay


def _one_line(text: str) -> str:
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * SHOWN_CHARACTERS]).split())
    return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "…"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait that the provider asks for, in seconds. A date is compared with the provider's own clock, `Date`: ours
    may be wrong, and no test could hold it still."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    asked = headers.get("retry-after")
    if (seconds := _number(asked)) is not None or asked is None:
        return seconds
    try:
        wait = parsedate_to_datetime(asked) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError):  # no date, or one with a time zone and one without
        return None
    return max(wait.total_seconds(), 0.0)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
