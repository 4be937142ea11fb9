"""A client of the server: what the command and the tests speak with. Trio, over TCP or a Unix socket.

    async with open_client("tcp://127.0.0.1:2180", token=…) as client:
        workspace = await client.create_workspace("/home/ann/project")
        session = await client.create_session(workspace.id, "a title")
        accepted = await client.send_prompt(workspace.id, session.id, "Fix it")
        async with client.open_run(workspace.id, accepted.run_id) as run:
            async for piece in run:
                print(piece.text, end="")
        print(run.result.state)

Every call raises ServerProblem when the server refuses, and ServerUnreachable when there is no answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import msgspec
import trio

from engine.records.ids import new_run_id
from engine.records.run import IfBusy, RunState
from web.address import UnixAddress, parse_address
from web.client_errors import NotUnderstood, ServerProblem, ServerUnreachable, problem_of_response
from web.client_events import SILENCE_S, EventReader
from web.client_patience import until_answered
from web.client_run import RunReader
from web.wire.events import RunComplete
from web.wire.messages import Message, TextPart
from web.wire.requests import PermissionRequest, QuestionResponse, Resolved
from web.wire.runs import AcceptedPrompt, CanceledRun, CanceledRuns, Run, RunList
from web.wire.sessions import Session
from web.wire.workspaces import Version, Workspace

T = TypeVar("T")

CONNECT_S = 5.0
ANSWER_S = 90.0  # no call takes longer: the longest waits 60 s for a run
CLOSE_S = 2.0  # bound of closing a connection to a server that may not be there any more


class _Empty(msgspec.Struct):
    """An answer of which nothing but the status is looked at."""


@asynccontextmanager
async def open_client(host: str, *, token: str | None = None) -> AsyncIterator["CountermandClient"]:
    """A client of the server at `host`, written as `tcp://host:port` or `unix:///path`. Nothing is sent yet.

    Raises ConfigInvalid for a host that cannot be read.
    """
    address = parse_address(host)
    is_unix = isinstance(address, UnixAddress)
    transport = httpx2.AsyncHTTPTransport(uds=str(address.path)) if isinstance(address, UnixAddress) else None
    client = httpx2.AsyncClient(
        transport=transport,
        base_url="http://localhost" if is_unix else str(address).replace("tcp", "http", 1),
        headers={"Authorization": f"Bearer {token}"} if token else None,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
        # A proxy is for the world outside; what is said here is for one server, and names its directories.
        trust_env=False,
    )
    try:
        yield CountermandClient(client, host)
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await client.aclose()


class CountermandClient:
    """One server, as seen from outside. Made by `open_client`."""

    def __init__(self, client: httpx2.AsyncClient, host: str) -> None:
        self._client = client
        self.host = host
        self._opened: dict[str, tuple[str, str | None]] = {}  # workspaces by id: their path, and for which client

    # --- the server ---

    async def version(self) -> Version:
        """Which server this is."""
        return await self._call("GET", "/v1/version", Version)

    # --- workspaces and clients ---

    async def create_workspace(self, path: str, *, client_id: str | None = None) -> Workspace:
        """Open a directory, or find it open. With a `client_id` the client has 30 s to open a stream with it; without,
        the workspace is kept until it is deleted."""
        body = {"path": path} | ({"client_id": client_id} if client_id else {})
        workspace = await self._call("POST", "/v1/workspaces", Workspace, body=body)
        self._opened[workspace.id] = (path, client_id)
        return workspace

    async def workspaces(self) -> list[Workspace]:
        """Every open workspace."""
        return await self._call("GET", "/v1/workspaces", list[Workspace])

    async def delete_workspace(self, workspace_id: str) -> None:
        """Close a workspace: its runs are canceled, and have ended when this returns."""
        await self._call("DELETE", _path("/v1/workspaces/{}", workspace_id), _Empty)

    async def attend(self, workspace_id: str, *, is_interactive: bool) -> None:
        """Say whether this client can answer what tools ask. If it is the only one and cannot, they are refused at
        once instead of waiting."""
        body = {"interactive": is_interactive}
        await self._call("POST", _path("/v1/workspaces/{}/agent/init", workspace_id), _Empty, body=body)

    async def permission_requests(self, workspace_id: str) -> list[PermissionRequest]:
        """What tools have asked for, and nobody has answered."""
        return await self._call("GET", _path("/v1/workspaces/{}/permissions", workspace_id), list[PermissionRequest])

    async def answer_permission(self, workspace_id: str, request_id: str, action: str) -> bool:
        """`allow`, `allow_session` or `deny` what a tool asks for; whether this answer decided."""
        body = {"permission": {"id": request_id}, "action": action}
        path = _path("/v1/workspaces/{}/permissions/grant", workspace_id)
        return (await self._call("POST", path, Resolved, body=body)).resolved

    async def answer_questions(self, workspace_id: str, batch_id: str, answers: list[QuestionResponse] | None) -> bool:
        """Answer questions, or None: do not; whether this decided."""
        body = {"batch_request_id": batch_id} | ({} if answers is None else {"responses": answers})
        path = _path(f"/v1/workspaces/{{}}/questions/{'cancel' if answers is None else 'answer'}", workspace_id)
        return (await self._call("POST", path, Resolved, body=body)).resolved

    async def retire(self, client_id: str) -> None:
        """Say goodbye: the client's claims end, and its id cannot come back."""
        await self._call("DELETE", _path("/v1/clients/{}", client_id), _Empty)

    # --- sessions ---

    async def create_session(self, workspace_id: str, title: str) -> Session:
        """Begin a session."""
        return await self._call(
            "POST", _path("/v1/workspaces/{}/sessions", workspace_id), Session, body={"title": title}
        )

    async def sessions(self, workspace_id: str) -> list[Session]:
        """The sessions of a workspace, the most recently changed first."""
        return await self._call("GET", _path("/v1/workspaces/{}/sessions", workspace_id), list[Session])

    async def session(self, workspace_id: str, session_id: str) -> Session:
        """One session."""
        return await self._call("GET", _path("/v1/workspaces/{}/sessions/{}", workspace_id, session_id), Session)

    async def messages(self, workspace_id: str, session_id: str) -> list[Message]:
        """What was said in a session, the oldest first."""
        path = _path("/v1/workspaces/{}/sessions/{}/messages", workspace_id, session_id)
        return await self._call("GET", path, list[Message])

    # --- runs ---

    async def send_prompt(
        self,
        workspace_id: str,
        session_id: str,
        prompt: str,
        *,
        run_id: str | None = None,
        if_busy: IfBusy | None = None,
        model: str | None = None,
        timeout_s: float | None = None,
    ) -> AcceptedPrompt:
        """Send a prompt. When this returns it is durable, and will have exactly one ending.

        It is sent again, for a minute, if there is no answer or the server is leaving: its run id, made here unless it
        is given, makes it run once (R06).
        """
        body: dict[str, object]
        body = {"session_id": session_id, "prompt": prompt, "run_id": run_id or new_run_id()}
        body |= {"if_busy": if_busy, "model": model, "timeout_s": timeout_s}  # null is the server's default
        path = _path("/v1/workspaces/{}/agent", workspace_id)
        return await self._ask_patiently(workspace_id, lambda: self._call("POST", path, AcceptedPrompt, body=body))

    async def run(self, workspace_id: str, run_id: str, *, wait_s: float = 0.0) -> Run:
        """One run; with `wait_s`, when it has ended or the time is up."""
        path = _path("/v1/workspaces/{}/runs/{}", workspace_id, run_id)
        return await self._call("GET", path, Run, query={"wait_s": wait_s} if wait_s else {})

    async def runs(
        self,
        workspace_id: str,
        *,
        session_id: str | None = None,
        states: tuple[RunState, ...] = (),
        limit: int = 50,
        before: int | None = None,
    ) -> RunList:
        """Runs, the newest first."""
        query: dict[str, Any] = {"limit": limit, "state": [state.value for state in states]}
        query |= {"session_id": session_id} if session_id else {}
        query |= {"before": before} if before is not None else {}
        return await self._call("GET", _path("/v1/workspaces/{}/runs", workspace_id), RunList, query=query)

    async def cancel_run(self, workspace_id: str, run_id: str) -> CanceledRun:
        """Cancel one run. When this returns the cancel is durable."""
        return await self._call("POST", _path("/v1/workspaces/{}/runs/{}/cancel", workspace_id, run_id), CanceledRun)

    async def cancel_session(self, workspace_id: str, session_id: str) -> CanceledRuns:
        """Cancel everything accepted for a session until now. Each run that is named ends `canceled`."""
        path = _path("/v1/workspaces/{}/agent/sessions/{}/cancel", workspace_id, session_id)
        return await self._call("POST", path, CanceledRuns)

    # --- streams ---

    @asynccontextmanager
    async def open_events(
        self,
        workspace_id: str,
        *,
        client_id: str | None = None,
        after: int | None = None,
        deltas: bool = False,
    ) -> AsyncIterator[EventReader]:
        """What happens in a workspace, after the event with this number, or from now on. When the context is entered
        the stream is open: nothing that happens from then on is missed."""
        query: dict[str, Any] = {"cursor": "latest" if after is None else after, "deltas": str(deltas).lower()}
        query |= {"client_id": client_id} if client_id else {}
        path = _path("/v1/workspaces/{}/events", workspace_id)
        async with _reading(EventReader(partial(self._connect, path, query), after=after)) as reader:
            await reader.connect()
            await reader.wait_placed()
            yield reader

    @asynccontextmanager
    async def open_run(
        self, workspace_id: str, run_id: str, *, client_id: str | None = None
    ) -> AsyncIterator[RunReader]:
        """The words of one run, each once, from its acceptance to its end, and then its result. With a `client_id` the
        stream is the client's claim on the workspace.

        A server that is away is waited for, for a minute. One that has started anew may have the workspace closed: if
        it was opened by this client, it is opened again.
        """
        query = {"deltas": "true"} | ({"client_id": client_id} if client_id else {})
        path = _path("/v1/workspaces/{}/runs/{}/events", workspace_id, run_id)

        async def connect(last: int | None) -> httpx2.Response:
            response = await self._connect(path, query, last)
            if response.status_code == 404 and workspace_id in self._opened:
                await response.aread()
                await self._reopen(problem_of_response(response), workspace_id)
                response = await self._connect(path, query, last)
            return response

        async with _reading(EventReader(connect, after=None)) as reader:
            await until_answered(reader.connect)
            yield RunReader(
                reader, run_id, partial(self._read_end, workspace_id), partial(self._run_messages, workspace_id, run_id)
            )

    async def _run_messages(self, workspace_id: str, run_id: str) -> list[Message]:
        """What a run has said so far, as it is stored."""
        run = await self._ask_patiently(workspace_id, lambda: self.run(workspace_id, run_id))
        messages = await self._ask_patiently(workspace_id, lambda: self.messages(workspace_id, run.session_id))
        return [message for message in messages if message.run_id == run_id]

    async def _read_end(self, workspace_id: str, run: Run) -> RunComplete:
        """How a run ended, from what is stored of it."""
        messages = await self._ask_patiently(workspace_id, lambda: self.messages(workspace_id, run.session_id))
        parts = next((message.parts for message in messages if message.id == run.message_id), ())
        error = f"{run.error.title}: {run.error.details}".removesuffix(": ") if run.error else ""
        return RunComplete(
            session_id=run.session_id,
            run_id=run.id,
            message_id=run.message_id or "",
            state=run.state,
            text="".join(part.data.text for part in parts if isinstance(part, TextPart)),
            error=error,
            cancelled=run.state is RunState.CANCELED,
            steered_into=run.steered_into or "",
        )

    async def _connect(self, path: str, query: Mapping[str, Any], last: int | None) -> httpx2.Response:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last is not None else {})
        return await self._send("GET", path, query=query, headers=headers, silence_s=SILENCE_S, stream=True)

    # --- calls ---

    async def _ask_patiently(self, workspace_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call that may be made again, until there is a server that answers it, and that has the workspace."""
        try:
            return await until_answered(call)
        except ServerProblem as problem:
            await self._reopen(problem, workspace_id)
        return await until_answered(call)

    async def _reopen(self, problem: ServerProblem, workspace_id: str) -> None:
        """Open a workspace again that this client has opened, if that is the problem; else raise the problem."""
        if problem.type != "workspace_not_found" or workspace_id not in self._opened:
            raise problem
        path, client_id = self._opened[workspace_id]
        await until_answered(lambda: self.create_workspace(path, client_id=client_id))

    async def _call(
        self, method: str, path: str, kind: type[T], *, body: object = None, query: Mapping[str, Any] | None = None
    ) -> T:
        content = None if body is None else msgspec.json.encode(body)
        response = await self._send(method, path, query=query or {}, content=content)
        if not response.is_success:
            raise problem_of_response(response)
        if kind is _Empty:
            return kind()
        try:
            return msgspec.json.decode(response.content, type=kind)
        except msgspec.DecodeError as error:
            raise NotUnderstood(f"{self.host} is no countermand server of this version: {error}") from None

    async def _send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any],
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float = ANSWER_S,
        stream: bool = False,
    ) -> httpx2.Response:
        patience = httpx2.Timeout(silence_s, connect=CONNECT_S)
        request = self._client.build_request(
            method, path, params=query, content=content, headers=headers, timeout=patience
        )
        try:
            return await self._client.send(request, stream=stream)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            advice = f"start one with: countermand serve --host {self.host}"
            raise ServerUnreachable(f"no countermand server is listening on {self.host}; {advice}") from None
        except httpx2.TransportError as error:
            what = str(error) or type(error).__name__
            raise ServerUnreachable(f"the connection to {self.host} broke before the answer came: {what}") from error


@asynccontextmanager
async def _reading(reader: EventReader) -> AsyncIterator[EventReader]:
    """The reader, closed at the end."""
    try:
        yield reader
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await reader.aclose()


def _path(template: str, *ids: str) -> str:
    """The path, with ids as single segments of it."""
    return template.format(*(quote(each, safe="$") for each in ids))
