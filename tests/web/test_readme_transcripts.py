"""What the documents show in their console blocks is what a server and the command really print."""

import io
import signal
import subprocess
from contextlib import AsyncExitStack, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import trio

from tests.doubles.live_server import COMMAND, Answer, LiveServer, open_live_server
from tests.doubles.transcripts import Curl, Likeness, Step, expand, parse_curl, read_steps
from web.auth import TokenStore
from web.cli import run_cli

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = ["README.md", "web/README.md"]
DEADLINE_S = 60.0  # of a whole document, on a machine with much else to do

# What the documents say for what is a place of its own in each test.
PROJECT = "/home/ann/project"
DATA = "/home/ann/.local/share/countermand"
SERVER = "http://127.0.0.1:2180"
INTERRUPT = "^C"  # in what is shown: there, the person pressed Ctrl-C

SLOW_MODEL = '[[{"text": "tick ", "repeat": 600, "every": 1}]]'
"""The script that both documents tell their reader to start the server with."""


class Terminal:
    """Runs the commands of a transcript, in order, against one server."""

    def __init__(self, server: LiveServer, root: Path, variables: dict[str, str], stack: AsyncExitStack) -> None:
        self.likeness = Likeness({PROJECT: str(root / "project"), DATA: str(root / "data"), SERVER: server.address})
        self._server = server
        self._variables = variables
        self._stack = stack
        self._exit_code = 0
        self._behind: tuple[Step, Answer] | None = None  # a stream that goes on while other commands run

    async def type(self, step: Step) -> None:
        """Run one command, and compare what it prints with what is shown."""
        command = self.likeness.real(step.command)
        if command.endswith(" &"):
            self._behind = step, await self._begin(parse_curl(expand(command.removesuffix(" &"), self._variables)))
            return
        if "$SID/cancel" in command:
            await self._wait_for_words(step)
        self.compare(step, await self._output(expand(command, self._variables), step))
        if self._behind is not None:
            (begun, answer), self._behind = self._behind, None
            self.compare(begun, await read_frames(answer, begun.shown.count("\n\n") + 1))

    async def _wait_for_words(self, step: Step) -> None:
        """A person who cancels has read something first."""
        look = expand('curl -s -H "$A" $W/sessions/$SID/messages', self._variables)
        while "tick" not in await self._output(look, step):
            pass  # a request each time, until the deadline of the document

    def compare(self, step: Step, actual: str) -> None:
        """Fail, with both texts, unless they are alike."""
        shown = step.shown
        if shown.startswith("HTTP/"):
            actual = only_headers_of(shown, actual)
        assert self.likeness.is_alike(shown.replace(INTERRUPT, ""), actual.strip("\n")), (
            f"line {step.line}: $ {step.command}\n--- is shown\n{shown}\n--- is printed\n{actual}"
        )

    async def _output(self, words: list[str], step: Step) -> str:
        match words:
            case ["curl", *_]:
                return await self._curl(parse_curl(words))
            case ["countermand", "run", *_]:
                return await self._run(words[1:], is_interrupted=INTERRUPT in step.shown)
            case ["countermand", *arguments]:
                return await trio.to_thread.run_sync(self._run_here, arguments)
            case ["echo", _]:
                return str(self._exit_code)
            case [assignment] if "=" in assignment:
                name, _, value = assignment.partition("=")
                self._variables[name] = value
                return ""
        raise ValueError(f"line {step.line}: the transcripts do not know {words[0]!r}")

    async def _begin(self, curl: Curl) -> Answer:
        connection = await self._stack.enter_async_context(self._server.connect())
        target = curl.url.removeprefix(self._server.address)
        await connection.send(curl.method, target, curl.body, headers=curl.headers)
        return await connection.answer()

    async def _curl(self, curl: Curl) -> str:
        answer = await (await self._begin(curl)).read()
        body = answer.body.decode()
        if not curl.shows_head:
            return body
        head = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        return f"HTTP/1.1 {answer.status}\n{head}\n{body}"

    def _run_here(self, arguments: list[str]) -> str:
        """Run the command in this process: it starts in no time, and needs no signals."""
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            self._exit_code = run_cli(arguments)
        return said.getvalue()

    async def _run(self, arguments: list[str], *, is_interrupted: bool) -> str:
        """Run the command in a process; interrupt it once it has said something, if that is what is shown."""
        process = await trio.lowlevel.open_process(
            [str(COMMAND), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdout is not None
        said = b""
        async with process.stdout:
            while data := await process.stdout.receive_some():
                said += data
                if is_interrupted:
                    process.send_signal(signal.SIGINT)
                    is_interrupted = False
        self._exit_code = await process.wait()
        return said.decode()


def only_headers_of(shown: str, actual: str) -> str:
    """The actual response with those headers alone that are shown, in the order in which they are shown."""
    names = [line.partition(":")[0].lower() for line in shown.partition("\n\n")[0].splitlines()[1:]]
    head, _, body = actual.partition("\n\n")
    status, *lines = head.splitlines()
    found = [line for name in names for line in lines if line.startswith(f"{name}:")]
    return "\n".join([status.strip(), *found]) + f"\n\n{body}"


async def read_frames(answer: Answer, count: int) -> str:
    """So many frames of an event stream; blank lines that only keep it alive do not count."""
    text = ""
    while text.count("\n\n") < count:
        text = (text + (await answer.receive()).decode()).lstrip("\n")
    return "\n\n".join(text.split("\n\n")[:count])


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
async def test_what_a_document_shows_is_what_is_printed(
    document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = read_steps(ROOT / document)
    assert steps, f"{document} has no console blocks"
    for name in ("project", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "slow.json").write_text(SLOW_MODEL)
    token = TokenStore(tmp_path / "data" / "tokens.json").create("admin", "admin", now_us=0)
    environ = {"COUNTERMAND_OFFLINE_SCRIPT": str(tmp_path / "slow.json")}
    with trio.fail_after(DEADLINE_S):
        async with (
            open_live_server(tmp_path / "data", arguments=(), environ=environ) as server,
            AsyncExitStack() as stack,
        ):
            monkeypatch.chdir(tmp_path / "project")
            monkeypatch.setenv("COUNTERMAND_DATA_DIR", str(tmp_path / "data"))
            monkeypatch.setenv("COUNTERMAND_HOST", server.address.replace("http", "tcp", 1))
            monkeypatch.setenv("COUNTERMAND_TOKEN", token)
            terminal = Terminal(server, tmp_path, {"COUNTERMAND_TOKEN": token}, stack)
            for step in steps:
                await terminal.type(step)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_tells_with_which_model_it_was_written(document: str) -> None:
    assert SLOW_MODEL in (ROOT / document).read_text("utf-8")


def test_a_transcript_is_compared_word_for_word_but_for_what_differs_each_time() -> None:
    one, other = "25f3aff2-26c3-447a-a7d7-65968bf4db03", "9456ef43-9932-43d9-82b7-6e32b525596b"
    likeness = Likeness({"/home/ann": "/tmp/x"})
    assert likeness.is_alike(f'{{"id":"{one}","path":"/home/ann",…}}', f'{{"id":"{other}","path":"/tmp/x","a":1}}')
    assert likeness.real(f"/runs/{one}") == f"/runs/{other}"
    assert not likeness.is_alike(f'{{"id":"{one}"}}', f'{{"id":"{one}"}}')
    assert not likeness.is_alike('{"state":"canceled"}', '{"state":"completed"}')
    assert likeness.is_alike('"ended_at":"2026-11-22T19:30:20.764012Z"', '"ended_at":"2027-01-01T00:00:00.000001Z"')
    assert not likeness.is_alike('"ended_at":"2026-11-22T19:30:20.764012Z"', '"ended_at":null')
    assert likeness.is_alike("id: 7\ndata: a\n\nid: 9\ndata: b", "id: 3\ndata: a\n\nid: 4\ndata: b")
    assert likeness.real("Last-Event-ID: 7") == "Last-Event-ID: 3"
    assert not likeness.is_alike("id: 7\ndata: a", "id: 4\ndata: a")
