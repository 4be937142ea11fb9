"""The state machine: what clients do, and the model, the clock and the operator."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, ClassVar, TypeVar

import msgspec
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, multiple, precondition, rule

from tests.explorer.scenario import Disk
from tests.machine.drawn import ANSWERS, BAD_BODIES, BRIEFLY, CHANGES, LAGS, LATE, NAMED, PAUSES, POLICIES, SCRIPTS
from tests.machine.ledger import Call, Sent
from tests.machine.promises import broken
from tests.machine.pump import Pump
from tests.machine.readers import Reader
from tests.machine.world import OPEN, World

T = TypeVar("T")

MOST_SESSIONS = 3


class ServiceMachine(RuleBasedStateMachine):
    """The whole service, and everybody who deals with it."""

    sessions: Bundle[str] = Bundle("sessions")
    prompts: Bundle[Sent] = Bundle("prompts")
    attached: Bundle[Reader] = Bundle("attached")
    played: ClassVar[int] = 0  # examples of this process

    def __init__(self) -> None:
        super().__init__()
        ServiceMachine.played += 1
        self.pump: Pump | None = None
        self.world: World
        self._has_failed = False

    @initialize(
        target=sessions, seed=st.integers(0, 999), before=LAGS, after=LATE, slots=st.sampled_from((64, 1)),
        queue=st.sampled_from((100, 2)),
    )  # fmt: skip
    def begin(self, seed: int, before: Any, after: Any, slots: int, queue: int) -> str:
        """Start the service on a disk that lags so, and open a workspace and a session."""
        self.pump = Pump(seed)
        lags = Disk(before_commit=before, after_commit=after, before_read=before)

        async def start() -> str:
            assert self.pump is not None
            self.world = World(self.pump.nursery, lags=lags, slots=slots, queue=queue)
            await self.world.begin()
            self.world.server.disk.is_at_once = False
            return str((await self._create_session()).told["id"])

        return self.pump.do(start)

    # -- prompts ------------------------------------------------------------------------------------------------------

    @rule(
        target=prompts, session=sessions, script=SCRIPTS, if_busy=POLICIES, named=NAMED,
        timeout_s=st.sampled_from((None, None, 0.5, 20.0)), on_crash=st.sampled_from((None, "retry")), pause=PAUSES,
    )  # fmt: skip
    def post(
        self, session: str, script: Any, if_busy: Any, named: str, timeout_s: Any, on_crash: Any, pause: Any
    ) -> Sent:
        """Send a prompt."""
        if self.world.server.is_gone.is_set():
            self.start_server(None)  # who has something to do does not wait for whoever looks after the server
        name = f"p{len(self.world.ledger.sent)}"
        sent = Sent(
            name=name, session_id=session, text=" ".join((name, *script)), if_busy=if_busy, timeout_s=timeout_s,
            on_crash=on_crash, run_id=f"run-{name}" if named in ("id", "both") else None,
            key=f"key-{name}" if named in ("key", "both") else None,
        )  # fmt: skip
        self.world.ledger.sent.append(sent)
        self._send_prompt(sent, pause)
        return sent

    @rule(
        target=prompts, session=sessions, pause=PAUSES,
        row=st.lists(st.tuples(SCRIPTS, POLICIES, NAMED, BRIEFLY), min_size=2, max_size=4),
    )  # fmt: skip
    def post_in_a_row(self, session: str, row: Any, pause: Any) -> Any:
        """Send several prompts, so that they wait for each other (R14, R15)."""
        sent = [
            self.post(session, script, if_busy, named, None, None, briefly) for script, if_busy, named, briefly in row
        ]
        self._do(pause)
        return multiple(*sent)

    @rule(prompt=prompts, pause=PAUSES)
    def post_again(self, prompt: Sent, pause: Any) -> None:
        """Send a prompt again, as it was. Without an id or a key it would be another one."""
        if prompt.is_safe:
            self._send_prompt(prompt, pause)

    @rule(target=prompts, prompt=prompts, change=CHANGES, other=sessions, pause=PAUSES)
    def post_another(self, prompt: Sent, change: str, other: str, pause: Any) -> Any:
        """Send another prompt under the same id or key (R06)."""
        if not prompt.is_safe or (change == "session" and other == prompt.session_id):
            return multiple()
        name = f"p{len(self.world.ledger.sent)}"
        text = f"{name} say" if change == "text" else prompt.text
        session = other if change == "session" else prompt.session_id
        policy = prompt.if_busy if change != "if_busy" else "steer" if prompt.policy == "enqueue" else "enqueue"
        sent = Sent(
            name=name, session_id=session, text=text, if_busy=policy, timeout_s=prompt.timeout_s,
            on_crash=prompt.on_crash, run_id=prompt.run_id, key=prompt.key,
        )  # fmt: skip
        if any(one.content == sent.content for one in self.world.ledger.sent):
            return multiple()
        self.world.ledger.sent.append(sent)
        self._send_prompt(sent, pause)
        return sent

    @rule(session=sessions, bad=st.sampled_from(BAD_BODIES), pause=PAUSES)
    def post_bad_body(self, session: str, bad: tuple[int, bytes], pause: Any) -> None:
        """Send what is no prompt (R03)."""
        status, body = bad
        self._send("bad", "POST", "agent", pause, target=str(status), body=body.replace(b"S", session.encode()))

    @rule(prompt=prompts, pause=PAUSES)
    def hang_up(self, prompt: Sent, pause: Any) -> None:
        """Close the connection over which a prompt was sent, if nobody has answered yet (R05)."""
        for call in prompt.calls:
            if not call.status:
                call.scope.cancel()
        self._do(pause)

    # -- cancels ------------------------------------------------------------------------------------------------------

    @rule(session=sessions, pause=PAUSES)
    def cancel_session(self, session: str, pause: Any) -> None:
        """Cancel everything in a session."""
        self._cancel_session(session, pause)

    @rule(prompt=prompts, pause=PAUSES)
    def cancel_run(self, prompt: Sent, pause: Any) -> None:
        """Cancel the run of a prompt, if its id is known."""
        if prompt.told_id is not None:
            self._send("cancel run", "POST", f"runs/{prompt.told_id}/cancel", pause, target=prompt.told_id)

    @rule(
        target=prompts, session=sessions, script=SCRIPTS, if_busy=POLICIES, named=NAMED, briefly=BRIEFLY,
        cancel=st.sampled_from(("session", "run", "queue")), pause=PAUSES,
    )  # fmt: skip
    def post_and_cancel(
        self, session: str, script: Any, if_busy: Any, named: str, briefly: int, cancel: str, pause: Any
    ) -> Sent:
        """Send a prompt, and cancel it on its way in (R07, R09)."""
        sent = self.post(session, script, if_busy, named, None, None, briefly)
        assert isinstance(sent, Sent)
        match cancel:
            case "session":
                self.cancel_session(session, pause)
            case "run":
                self.cancel_run(sent, pause)
            case "queue":
                self.clear_queue(session, pause)
        return sent

    @rule(session=sessions, pause=PAUSES)
    def clear_queue(self, session: str, pause: Any) -> None:
        """Cancel what waits in a session."""
        self._send("clear", "POST", f"agent/sessions/{session}/prompts/clear", pause, target=session)

    # -- sessions and the workspace -----------------------------------------------------------------------------------

    @precondition(lambda self: self.world.is_reachable)
    @rule(target=sessions)
    def create_session(self) -> Any:
        """Begin another session."""
        if len(self.world.ledger.of("create session")) >= MOST_SESSIONS:
            return multiple()
        call = self._step(self._create_session)
        return call.told["id"] if call.status == 200 else multiple()

    @rule(session=sessions, pause=PAUSES)
    def delete_session(self, session: str, pause: Any) -> None:
        """Delete a session with what was said in it."""
        self._send("delete session", "DELETE", f"sessions/{session}", pause, target=session)

    @rule(pause=PAUSES)
    def close_workspace(self, pause: Any) -> None:
        """Close the workspace (R23)."""
        self._send("close", "DELETE", "", pause)

    @rule(pause=PAUSES)
    def open_workspace(self, pause: Any) -> None:
        """Open it, or find it open."""
        self._do(pause, partial(self.world.send, Call(kind="open", method="POST", path="/v1/workspaces", body=OPEN)))

    # -- looking ------------------------------------------------------------------------------------------------------

    @rule(prompt=prompts, wait_s=st.sampled_from((0, 5, 60)), pause=PAUSES)
    def get_run(self, prompt: Sent, wait_s: int, pause: Any) -> None:
        """Ask for a run, now or when it has ended."""
        if prompt.told_id is not None:
            self._send("run", "GET", f"runs/{prompt.told_id}?wait_s={wait_s}", pause, target=prompt.told_id)

    @rule(session=sessions, states=st.sampled_from(("", "&state=active&state=queued", "&state=canceled")), pause=PAUSES)
    def list_runs(self, session: str, states: str, pause: Any) -> None:
        """Ask for the runs of a session."""
        self._send("runs", "GET", f"runs?session_id={session}{states}", pause, target=session)

    @rule(session=sessions, what=st.sampled_from(("list", "queued")), pause=PAUSES)
    def look_at_queue(self, session: str, what: str, pause: Any) -> None:
        """Ask what waits in a session."""
        self._send(what, "GET", f"agent/sessions/{session}/prompts/{what}", pause, target=session)

    @rule(target=attached, start=st.sampled_from(("earliest", "latest", None)), deltas=st.booleans(), pause=PAUSES)
    def attach(self, start: str | None, deltas: bool, pause: Any) -> Reader:
        """Read along in the workspace."""
        return self._attach(None, start, deltas, pause)

    @rule(target=attached, prompt=prompts, start=st.sampled_from((None, "latest")), deltas=st.booleans(), pause=PAUSES)
    def attach_to_run(self, prompt: Sent, start: str | None, deltas: bool, pause: Any) -> Any:
        """Read along what happens to a run, if its id is known."""
        return multiple() if prompt.told_id is None else self._attach(prompt.told_id, start, deltas, pause)

    @rule(reader=attached, pause=PAUSES)
    def detach(self, reader: Reader, pause: Any) -> None:
        """Stop reading."""
        if reader.is_attached:
            reader.detach()
        self._do(pause)

    @rule(reader=attached, by_header=st.booleans(), pause=PAUSES)
    def resume(self, reader: Reader, by_header: bool, pause: Any) -> None:
        """Go on reading behind the last event that was seen (R28)."""
        if not reader.is_attached:
            start = str(reader.last) if reader.last is not None else "earliest"
            self._do(pause, partial(self.world.connect, reader, start, by_header=by_header and start.isdecimal()))

    # -- the model, the clock, the operator ---------------------------------------------------------------------------

    @rule(prompt=prompts, answer=ANSWERS, pause=PAUSES)
    def let_model_answer(self, prompt: Sent, answer: tuple[str, ...], pause: Any) -> None:
        """Let the model go on with a prompt that it holds, now or when it comes to it."""
        self._do(pause, partial(self.world.model.release, prompt.name, answer))

    @rule(seconds=st.sampled_from((0.03, 1.0, 20.0)))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._step(partial(self.world.sleep, seconds))

    @precondition(lambda self: self.world.is_reachable and not self.world.server.is_ending)
    @rule(drain_s=st.sampled_from((0.0, 5.0)), pause=PAUSES)
    def stop_server(self, drain_s: float, pause: Any) -> None:
        """Stop the server."""
        self._do(pause, partial(self.world.server.stop, drain_s))

    @precondition(lambda self: self.world.is_reachable)
    @rule()
    def kill_server(self) -> None:
        """Kill the server."""
        self._step(self.world.kill)

    @precondition(lambda self: self.world.is_reachable)
    @rule(session=sessions)
    def cancel_and_kill(self, session: str) -> None:
        """Cancel everything in a session, and kill the server as soon as it has answered (R11)."""
        self._step(partial(self.world.kill, once=self._cancel_session(session, 0)))

    @precondition(lambda self: self.world.server.is_gone.is_set())
    @rule(pause=PAUSES)
    def start_server(self, pause: Any) -> None:
        """Start the next one over the same store."""
        self._do(pause, self.world.start_server)

    # -- what must hold -----------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        """Bring everything to its end, and look at all of it."""
        if self.pump is None:
            return
        try:
            if not self._has_failed:
                account = self.pump.do(self.world.rest)
                self._check([*self.world.ledger.violations, *broken(self.world, account)])
                self.pump.do(self.world.end)
        finally:
            self.pump.close()

    def _check(self, violations: list[str]) -> None:
        if violations:
            for line in self.world.ledger.story:
                note(line)
        assert not violations, "\n".join(violations)

    async def _create_session(self) -> Call:
        body = msgspec.json.encode({"title": "a session"})
        return await self.world.ask(
            Call(kind="create session", method="POST", path=f"{self.world.w}/sessions", body=body)
        )

    def _send_prompt(self, sent: Sent, pause: Any) -> None:
        fields = {
            "session_id": sent.session_id, "prompt": sent.text, "run_id": sent.run_id, "if_busy": sent.if_busy,
            "timeout_s": sent.timeout_s, "on_crash": sent.on_crash,
        }  # fmt: skip
        body = msgspec.json.encode({name: value for name, value in fields.items() if value is not None})
        headers = {"Idempotency-Key": sent.key} if sent.key is not None else {}
        call = self._send("prompt", "POST", "agent", pause, target=sent.session_id, body=body, headers=headers)
        if call.began:
            sent.calls.append(call)

    def _send(self, kind: str, method: str, place: str, pause: Any, **more: Any) -> Call:
        path = f"{self.world.w}/{place}" if place else self.world.w
        call = Call(kind=kind, method=method, path=path, **more)
        self._do(pause, partial(self.world.send, call))
        return call

    def _cancel_session(self, session: str, pause: Any) -> Call:
        return self._send("cancel session", "POST", f"agent/sessions/{session}/cancel", pause, target=session)

    def _attach(self, run_id: str | None, start: str | None, deltas: bool, pause: Any) -> Reader:
        reader = Reader(self.world.ledger, f"r{len(self.world.readers)}", run_id=run_id, deltas=deltas)
        self.world.readers.append(reader)
        self._do(pause, partial(self.world.connect, reader, start, by_header=False))
        return reader

    def _do(self, pause: int | None, act: Any = lambda: None) -> None:
        """Do this, then let others run."""

        async def step() -> None:
            act()
            await self.world.pause(pause)

        self._step(step)

    def _step(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do this, and look whether anything was violated so far."""
        assert self.pump is not None
        self._has_failed = True
        result = self.pump.do(work)
        self._check(self.world.ledger.violations)
        self._has_failed = False
        return result
