"""The story, told over HTTP: what Ann asks for, what she is asked, and what she says in between."""

from collections.abc import Callable
from typing import Any

import msgspec
import trio

from engine.records.run import IfBusy
from tests.doubles.live_server import LiveServer
from tests.story import developer
from web.client import CountermandClient, open_client
from web.client_events import ClientEvent
from web.wire.messages import Message, TextPart, ToolCallPart, ToolResultPart
from web.wire.requests import PermissionRequest
from web.wire.runs import Run

TASK = 'Wrong total: `parse_amount` makes 1.0 of "1,234.50". Find out why, and mend it.'
NOTES_TASK = f"Notes: write down in {developer.NOTES} which functions there are."
STEER = "And put a line into the changelog, please."
STORY_S = 60.0  # bound of it all; it takes seconds

Narrate = Callable[[str, str, str], None]  # who, what kind of line, the line


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How the three runs ended, what was asked and answered, and the order in which things happened."""

    mending: Run
    steered: Run
    notes: Run
    answers: tuple[tuple[str, str, str], ...]  # of whom, for what, the answer
    lines: tuple[tuple[str, str, str], ...]


class Ann:
    """The person at the client. She works on two things at once, and answers whoever asks."""

    def __init__(self, client: CountermandClient, server: LiveServer, workspace_id: str, narrate: Narrate) -> None:
        self._client = client
        self._server = server
        self._workspace_id = workspace_id
        self._narrate = narrate
        self.names: dict[str, str] = {}  # of sessions
        self.runs: dict[str, str] = {}  # the ids, by what they are for
        self.answers: list[tuple[str, str, str]] = []
        self.lines: list[tuple[str, str, str]] = []
        self._shown: dict[str, int] = {}  # how many parts of a message
        self._ended: set[str] = set()
        self._notes_asked = trio.Event()
        self._all_ended = trio.Event()

    async def work(self, mending: str, notes: str) -> None:
        """Ask for two things in two sessions, and return when all of it is over."""
        client, workspace_id = self._client, self._workspace_id
        self.names = {mending: "mending", notes: "notes"}
        async with client.open_events(workspace_id) as events, trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, events, nursery)
            self.runs["mending"] = (await client.send_prompt(workspace_id, mending, TASK)).run_id
            self.runs["notes"] = (await client.send_prompt(workspace_id, notes, NOTES_TASK)).run_id
            await self._all_ended.wait()
            nursery.cancel_scope.cancel()

    async def _watch(self, events: Any, nursery: trio.Nursery) -> None:
        async for event in events:
            if event.type == "permission_request":
                nursery.start_soon(self._answer, event.payload)
            else:
                self._see(event)

    async def _answer(self, asked: PermissionRequest) -> None:
        """Read what is asked, and decide."""
        who = self.names[asked.session_id]
        what = asked.params.get("command") or asked.params.get("file_path", "").rpartition("/")[2]
        self._tell(who, "asks", f"may I {asked.tool_name}: {what}")
        decision = "allow"
        if who == "notes":
            self._notes_asked.set()
            decision = "deny" if what == developer.COMMIT else "allow"
        elif what == developer.TESTS and not self._has_answered(who, what):
            # The other session has work to do: this one waits for her meanwhile, and that one does not.
            await self._notes_asked.wait()
        elif what == developer.TESTS:
            await self._steer(asked.session_id)
            decision = "allow_session"
        self.answers.append((who, what, decision))
        self._tell("ann", "answers", f"{who}: {decision.replace('_', ' for the ')}")
        await self._grant(asked.id, decision)

    def _has_answered(self, who: str, what: str) -> bool:
        return any(answer[:2] == (who, what) for answer in self.answers)

    async def _steer(self, session_id: str) -> None:
        accepted = await self._client.send_prompt(self._workspace_id, session_id, STEER, if_busy=IfBusy.STEER)
        self.runs["steered"] = accepted.run_id

    async def _grant(self, request_id: str, decision: str) -> None:
        body = {"permission": {"id": request_id}, "action": decision}
        target = f"/v1/workspaces/{self._workspace_id}/permissions/grant"
        answer = await self._server.ask("POST", target, body)
        assert answer.json() == {"resolved": True}, answer

    def _see(self, event: ClientEvent) -> None:
        payload = event.payload
        if isinstance(payload, Message) and payload.session_id in self.names:
            self._see_message(self.names[payload.session_id], payload)
        elif event.type == "run_complete":
            name = next((name for name, run_id in self.runs.items() if run_id == payload.run_id), "?")  # type: ignore[union-attr]
            self._ended.add(payload.run_id)  # type: ignore[union-attr]
            self._tell(name, "ends", payload.state.value)  # type: ignore[union-attr]
            if "steered" in self.runs and self._ended >= set(self.runs.values()):
                self._all_ended.set()

    def _see_message(self, who: str, message: Message) -> None:
        """Tell of the parts that are complete, each once."""
        first = self._shown.get(message.id, 0)
        for index, part in enumerate(message.parts[first:], first):
            is_last = index == len(message.parts) - 1
            if isinstance(part, TextPart):
                if is_last and message.role != "user":
                    return  # it may grow
                self._tell("ann" if message.role == "user" else who, "says", part.data.text)
            elif isinstance(part, ToolCallPart):
                if not part.data.finished:
                    return
                self._tell(who, "calls", f"{part.data.name} {brief(part.data.input)}")
            elif isinstance(part, ToolResultPart):
                self._tell(who, "error" if part.data.is_error else "result", part.data.content)
            self._shown[message.id] = index + 1

    def _tell(self, who: str, kind: str, line: str) -> None:
        self.lines.append((who, kind, line))
        self._narrate(who, kind, line)


def brief(given: str) -> str:
    """The arguments of a call, short enough for a line."""
    arguments = msgspec.json.decode(given)
    if "old_string" in arguments:
        old, new = arguments["old_string"].strip(), arguments["new_string"].strip()
        return f"{arguments['file_path']}: {old!r} becomes {new!r}"
    said: str = next(arguments[name] for name in ("command", "pattern", "file_path") if name in arguments)
    return said


async def tell(server: LiveServer, root: str, narrate: Narrate) -> Told:
    """Tell the story on this server, in this directory."""
    with trio.fail_after(STORY_S):
        async with open_client(server.address.replace("http", "tcp")) as client:
            workspace_id = (await client.create_workspace(root)).id
            mending = await client.create_session(workspace_id, "mending")
            notes = await client.create_session(workspace_id, "notes")
            ann = Ann(client, server, workspace_id, narrate)
            await ann.work(mending.id, notes.id)
            runs = {name: await client.run(workspace_id, run_id) for name, run_id in ann.runs.items()}
            return Told(
                mending=runs["mending"], steered=runs["steered"], notes=runs["notes"], answers=tuple(ann.answers),
                lines=tuple(ann.lines),
            )  # fmt: skip
