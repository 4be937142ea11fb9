"""R03: what is wrong with a prompt is found before anything happens, named by its field, and leaves no trace."""

import base64
import math
from typing import Any

import pytest
import trio.testing

from engine.backend import NewWorkspace
from engine.errors import InvalidPrompt, NotFound
from engine.records.ids import SessionId
from engine.records.message import Attachment
from engine.records.run import Prompt, RunState
from engine.settings import EngineSettings
from tests.doubles.engine import Watched, open_watched


def file(content: bytes | str, mime_type: str = "text/plain") -> Attachment:
    """An attachment; a `str` goes out as it is."""
    encoded = content if isinstance(content, str) else base64.b64encode(content).decode()
    return Attachment("/a/file", "file", mime_type, encoded)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"text": ""}),
    ("prompt", {"text": " \n\t"}),
    ("prompt", {"text": "", "attachments": (file(b"\x89PNG", "image/png"),)}),
    ("prompt", {"text": "x" * 1001}),
    ("prompt", {"text": "é" * 501}),
    ("prompt", {"text": "\udcff"}),
    ("run_id", {"run_id": ""}),
    ("run_id", {"run_id": "x" * 129}),
    ("run_id", {"run_id": "a\nb"}),
    ("run_id", {"run_id": "a/b"}),
    ("run_id", {"run_id": ".."}),
    ("run_id", {"run_id": "é"}),
    ("Idempotency-Key", {"idempotency_key": ""}),
    ("Idempotency-Key", {"idempotency_key": "x" * 256}),
    ("Idempotency-Key", {"idempotency_key": "\x00"}),
    ("timeout_s", {"timeout_s": 0.0}),
    ("timeout_s", {"timeout_s": -1.0}),
    ("timeout_s", {"timeout_s": math.nan}),
    ("timeout_s", {"timeout_s": math.inf}),
    ("timeout_s", {"timeout_s": 1e9}),
    ("model", {"model": "no-such-provider/model"}),
    ("model", {"model": "offline/no-such-model"}),
    ("model", {"model": "no slash"}),
    ("attachments[0].mime_type", {"attachments": (file(b"a", ""),)}),
    ("attachments[0].mime_type", {"attachments": (file(b"a", "text"),)}),
    ("attachments[0].content", {"attachments": (file("not base64!"),)}),
    ("attachments[0].content", {"attachments": (file("YQ"),)}),
    ("attachments[0].content", {"attachments": (file(b"\xff\xfe\xfd"),)}),
    ("attachments[1].content", {"attachments": (file(b"ok"), file(b"x" * 2001))}),
    ("session_id", {"session_id": ""}),
]


def bounded(path: object) -> Any:
    """An engine with small limits."""
    return open_watched(
        path=str(path),
        settings=EngineSettings(data_dir=None, max_prompt_bytes=1000, max_attachment_bytes=2000),
    )


@pytest.mark.parametrize(("field", "given"), BAD)
async def test_r03_prompt_is_refused_at_once_by_the_name_of_its_bad_field_and_leaves_no_trace(
    field: str, given: dict[str, Any], autojump_clock: object, tmp_path: object
) -> None:
    async with bounded(tmp_path) as watched:
        before = len(await watched.events())
        prompt = Prompt(**{"session_id": watched.session_id, "text": "hi", **given})
        with trio.testing.assert_no_checkpoints(), pytest.raises(InvalidPrompt) as refused:
            await watched.workspace.accept(prompt)
        assert refused.value.field == field
        assert field in str(refused.value)
        await check_no_trace(watched, before)


async def test_r03_prompt_for_an_unknown_session_is_refused(watched: Watched, autojump_clock: object) -> None:
    before = len(await watched.events())
    with pytest.raises(NotFound, match="no session 'nobody'"):
        await watched.workspace.accept(Prompt(session_id=SessionId("nobody"), text="hi"))
    await check_no_trace(watched, before)


async def test_r03_prompt_for_a_session_of_another_workspace_is_refused(
    watched: Watched, autojump_clock: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = await watched.backend.create_workspace(NewWorkspace(path=str(tmp_path_factory.mktemp("elsewhere"))))
    session = await elsewhere.sessions.create("theirs")
    with pytest.raises(NotFound, match="no session"):
        await watched.send("hi", session_id=session.id)


@pytest.mark.parametrize(
    "given",
    [
        {"text": "x" * 1000},
        {"text": "", "attachments": (file(b"words"),)},
        {"attachments": (file(b"\xff\xfe", "image/png"), file(b"x" * 2000))},
        {"run_id": "x" * 128, "idempotency_key": "x" * 255, "timeout_s": 0.5},
        {"run_id": "A ~.!*'()"},
        {"model": "offline/helper"},
    ],
)
async def test_r03_prompt_at_the_limits_is_accepted(
    given: dict[str, Any], autojump_clock: object, tmp_path: object
) -> None:
    async with bounded(tmp_path) as watched:
        prompt = Prompt(**{"session_id": watched.session_id, "text": "hi", **given})
        run = (await watched.workspace.accept(prompt)).run
        assert (await watched.ended(run)).state is RunState.COMPLETED


async def check_no_trace(watched: Watched, before: int) -> None:
    """No row, no event, no handle, no lane."""
    assert len(await watched.events()) == before
    assert await watched.workspace.runs() == []
    assert watched.workspace.lanes.all_runs() == ()
    assert watched.workspace.lanes.all_lanes() == ()
