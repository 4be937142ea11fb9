"""The table from errors to answers."""

import inspect

import pytest

from engine import errors
from web.problems import MESSAGE_MAX, STATUSES, Error, Refused, problem_of

EVERY = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.CountermandError) and kind.__module__ == errors.__name__
]
LEAVES = [kind for kind in EVERY if not kind.__subclasses__()]

EXAMPLES: list[tuple[errors.CountermandError, int, str, str | None]] = [
    (errors.InvalidPrompt("prompt", "is empty"), 400, "invalid_prompt", "prompt"),
    (errors.AttachmentInvalid("attachments[2].content", "x"), 400, "invalid_attachment", "attachments[2].content"),
    (errors.NotFound("session", "s"), 404, "session_not_found", None),
    (errors.WorkspacePathInvalid("/x", "no"), 400, "invalid_path", "path"),
    (errors.WorkspaceFailed("w"), 500, "workspace_failed", None),
    (errors.WorkspaceUnavailable("w", "its directory is gone"), 503, "workspace_unavailable", None),
    (errors.WorkspaceClosing("w"), 409, "workspace_closing", None),
    (errors.ServerStopping(), 503, "server_stopping", None),
    (errors.SessionBusy("s"), 409, "session_busy", None),
    (errors.ChildSession("m$$c", "s"), 409, "child_session", "session_id"),
    (errors.QueueFull("session", 100), 429, "queue_full", None),
    (errors.IdempotencyConflict("run_id", "r"), 422, "idempotency_conflict", "run_id"),
    (errors.ClientRetired("c"), 409, "client_retired", "client_id"),
    (errors.ClientNotAttached("c"), 409, "client_not_attached", "client_id"),
    (errors.ConfigInvalid("model", "x"), 400, "invalid_config", "model"),
    (errors.ConfigRefused("providers.x.api_key"), 403, "config_refused", "key"),
    (errors.ModelError("server", "Broken", "try later"), 502, "model_error", None),
    (errors.ToolProblem("no such file"), 400, "tool_problem", None),
    (errors.PermissionDenied(by_person=True), 403, "permission_denied", None),
    (errors.InvalidAnswer("responses", "one too many"), 400, "invalid_answer", "responses"),
    (errors.StoreError("cannot hold this"), 500, "store_error", None),
    (errors.StoreLocked("/d", "pid 1"), 503, "store_locked", None),
    (errors.StoreNewer("/d", 9, 1), 503, "store_newer", None),
    (errors.StoreUnavailable("read-only"), 503, "store_unavailable", None),
    (errors.StoreFull("full"), 503, "store_full", None),
    (errors.StoreDamaged("damaged"), 500, "store_damaged", None),
    (errors.Conflict("twice"), 409, "conflict", None),
]


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_leaf_of_the_tree_has_a_status_and_an_example(kind: type[errors.CountermandError]) -> None:
    assert kind in STATUSES
    assert kind in {type(error) for error, *_ in EXAMPLES}


@pytest.mark.parametrize(("error", "status", "word", "field"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_is_answered_in_its_own_words(
    error: errors.CountermandError, status: int, word: str, field: str | None
) -> None:
    problem = problem_of(error)
    assert problem is not None
    assert (problem.status, problem.body) == (status, Error(str(error), word, field))


def test_who_should_try_again_is_told_when() -> None:
    full = problem_of(errors.QueueFull("workspace", 10, retry_after=7))
    leaving = problem_of(errors.ServerStopping())
    gone = problem_of(errors.NotFound("run", "r"))
    assert [each.headers for each in (full, leaving, gone) if each] == [{"Retry-After": "7"}, {"Retry-After": "5"}, {}]


def test_what_nobody_expected_has_no_answer_here() -> None:
    assert problem_of(ValueError("secret")) is None


def test_a_message_that_quotes_a_whole_book_is_shortened() -> None:
    problem = problem_of(Refused(400, "x", "m" * 100_000))
    assert problem is not None
    assert len(problem.body.message) == MESSAGE_MAX
