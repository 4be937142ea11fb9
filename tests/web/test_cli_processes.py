"""The real command, as processes: servers and callers, signals and pipes. On the real clock, each under a deadline."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).with_name("countermand"))
DEADLINE_S = 60.0  # of each process: starting one takes seconds on a machine that is busy
TALK = '[[{"text": "word ", "repeat": 10000, "every": 0.05}]]'  # goes on for minutes, unless it is stopped


def script(actions: str) -> str:
    """A prompt that tells the model `offline/script` what to do."""
    return f"```script\n{actions}\n```"


class Done:
    """A process that has ended."""

    def __init__(self, process: subprocess.CompletedProcess[bytes]) -> None:
        self.code = process.returncode
        self.out = process.stdout.decode()
        self.err = process.stderr.decode()

    def __repr__(self) -> str:
        return f"exit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"


class Place:
    """Directories of a test's own, and the command run in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data"
        self.work = root / "work"
        self.work.mkdir()
        self.socket = root / "s.sock"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "COUNTERMAND_DATA_DIR": str(self.data_dir),
            "PYTHONWARNINGS": "error",
        }

    def popen(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start the command; whatever becomes of the test, its process ends with it."""
        process = subprocess.Popen(
            [COMMAND, *arguments],
            cwd=self.work,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.processes.append(process)
        return process

    def run(self, *arguments: str, stdin: bytes | None = None) -> Done:
        """Run the command to its end."""
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return Done(
            subprocess.run(
                [COMMAND, *arguments],
                cwd=self.work,
                env=self.environ,
                capture_output=True,
                timeout=DEADLINE_S,
                **source,
            )
        )


class Server:
    """A server process. The command finds it by the environment."""

    def __init__(self, place: Place, *options: str) -> None:
        self.place = place
        hosts = ("--host", f"unix://{place.socket}", "--host", "tcp://127.0.0.1:0")
        self.process = place.popen("serve", *hosts, *options)
        self.ready = ""
        while not self.ready.endswith("\n"):
            self.ready += read_some(self.process)
        found = re.search(r"http://127\.0\.0\.1:([0-9]+)", self.ready)
        assert found, self.ready + self.end().err
        self.tcp = f"tcp://127.0.0.1:{found[1]}"
        place.environ["COUNTERMAND_HOST"] = f"unix://{place.socket}"

    def end(self, *signals: int) -> Done:
        for number in signals or (signal.SIGTERM,):
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=DEADLINE_S)
        code = self.process.returncode
        return Done(subprocess.CompletedProcess([], code, self.ready.encode() + out, err))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for process in place.processes:
        process.kill()
        with process:  # closes its pipes, and waits
            pass


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    """A server that ends well with the test."""
    server = Server(place, "--log-level", "warning")
    yield server
    if server.process.poll() is None:
        done = server.end(signal.SIGTERM, signal.SIGTERM)
        assert done.code == 0, done
        assert not place.socket.exists()


def read_some(process: subprocess.Popen[bytes]) -> str:
    """The first words that a process says."""
    assert process.stdout is not None
    # Past Python's buffer, which `communicate` does not look into.
    said = os.read(process.stdout.fileno(), 65536).decode()
    assert said, "it ended without a word"
    return said


def finish(process: subprocess.Popen[bytes]) -> Done:
    out, err = process.communicate(timeout=DEADLINE_S)
    return Done(subprocess.CompletedProcess([], process.returncode, out, err))


# --- without a server ---


def test_a_prompt_is_answered_without_a_server_and_the_answer_is_all_there_is_on_stdout(place: Place) -> None:
    done = place.run("run", "-m", "offline/script", script('[[{"text": "forty-"}, {"text": "two"}]]'))
    assert (done.code, done.out, done.err) == (0, "forty-two\n", "")


def test_a_session_is_gone_on_with(place: Place) -> None:
    assert place.run("run", "the first").code == 0
    done = place.run("run", "--continue", "--json", "the second")
    assert done.code == 0, done
    lines = [msgspec.json.decode(line) for line in done.out.splitlines()]
    assert lines[-1]["type"] == "result"
    again = place.run("run", "--session", lines[-1]["session_id"], "--json", "the third")
    assert msgspec.json.decode(again.out.splitlines()[-1])["session_id"] == lines[-1]["session_id"]


def test_what_is_piped_in_is_added_to_the_prompt(place: Place) -> None:
    done = place.run("run", "--json", "summarize this:", stdin="größer\n".encode())
    first = msgspec.json.decode(done.out.splitlines()[0])
    assert first["payload"]["payload"]["prompt"] == "summarize this:\n\ngrößer"


def test_a_prompt_may_come_from_stdin_alone(place: Place) -> None:
    done = place.run("run", "-m", "offline/script", "-", stdin=script('[[{"text": "hello"}]]').encode())
    assert (done.code, done.out) == (0, "hello\n")


@pytest.mark.parametrize("stdin", [None, b"", b" \n", b"\xff\xfe"])
def test_without_a_prompt_nothing_is_run(place: Place, stdin: bytes | None) -> None:
    done = place.run("run", stdin=stdin)
    assert done.code == 2, done
    assert "no prompt" in done.err or "no UTF-8" in done.err
    assert not place.data_dir.exists()


def test_a_run_that_fails_says_why_and_exits_with_one(place: Place) -> None:
    prompt = script('[[{"text": "so far"}, {"fail": "authentication", "title": "Bad key", "details": "Set another."}]]')
    done = place.run("run", "-m", "offline/script", prompt)
    assert (done.code, done.out) == (1, "so far\n"), done
    assert re.fullmatch(r"countermand: run \S+ failed: Bad key: Set another\.\n", done.err), done


def test_ctrl_c_cancels_the_run_and_says_so(place: Place) -> None:
    process = place.popen("run", "-m", "offline/script", script(TALK))
    assert "word" in read_some(process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130, done
    assert done.err.endswith("countermand: canceled\n")
    assert "Traceback" not in done.err


def test_a_second_ctrl_c_leaves_at_once(place: Place) -> None:
    process = place.popen("run", "-m", "offline/script", script(TALK))
    assert "word" in read_some(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    done = finish(process)
    assert done.code == 130, done
    assert "Traceback" not in done.err


def test_nobody_reading_the_answer_is_the_end_of_it(place: Place) -> None:
    process = place.popen("run", "-m", "offline/script", script(TALK))
    assert "word" in read_some(process)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read().decode()
    assert (process.wait(DEADLINE_S), said) == (141, "")
    process.stderr.close()


# --- with a server ---


def test_the_first_start_makes_a_token_and_prints_it_once(place: Place) -> None:
    server = Server(place)
    place.environ["COUNTERMAND_HOST"] = server.tcp
    refused = place.run("run", "hi")
    assert refused.code == 4, refused
    assert "COUNTERMAND_TOKEN" in refused.err
    done = server.end()
    assert done.code == 0, done
    found = re.search(r"export COUNTERMAND_TOKEN=(\S+)", done.out)
    assert found, done
    assert found[1] not in done.err

    server = Server(place)
    place.environ |= {"COUNTERMAND_HOST": server.tcp, "COUNTERMAND_TOKEN": found[1]}
    assert place.run("run", "-q", "hi").code == 0
    done = server.end()
    assert "export" not in done.out
    assert found[1] not in done.err


def test_many_things_are_asked_of_one_server(place: Place, server: Server) -> None:
    """One server for all of this, since each start of a process takes its time."""
    done = place.run("run", "-m", "offline/script", script('[[{"text": "hello"}]]'))
    assert (done.code, done.out, done.err) == (0, "hello\n", "")

    locked = place.run("run", "--host", "", "hi")
    assert locked.code == 4, locked
    assert "in use by" in locked.err
    assert "--host" in locked.err

    unknown = place.run("run", "--session", "no-such", "hi")
    assert (unknown.code, unknown.err) == (4, "countermand: there is no session 'no-such'\n")

    runs = place.run("runs", "--json")
    [run] = [msgspec.json.decode(line) for line in runs.out.splitlines()]
    assert run["state"] == "completed"
    table = place.run("runs", "--state", "completed", "--session", run["session_id"])
    assert run["id"] in table.out
    sessions = place.run("sessions")
    assert run["session_id"] in sessions.out

    late = place.run("cancel", "no-such")
    assert (late.code, "no run 'no-such'" in late.err) == (4, True)


def test_a_run_is_canceled_from_elsewhere_and_its_caller_told(place: Place, server: Server) -> None:
    process = place.popen("run", "-m", "offline/script", script(TALK))
    assert "word" in read_some(process)
    [run] = [msgspec.json.decode(line) for line in place.run("runs", "--json", "--state", "active").out.splitlines()]
    busy = place.run("run", "--session", run["session_id"], "--if-busy", "reject", "hi")
    assert busy.code == 4, busy
    assert "is busy" in busy.err

    canceled = place.run("cancel", run["id"])
    assert (canceled.code, canceled.out) == (0, run["id"] + "\n")
    done = finish(process)
    assert (done.code, done.err) == (130, "countermand: canceled\n")


def test_everything_in_a_session_is_canceled(place: Place, server: Server) -> None:
    process = place.popen("run", "-m", "offline/script", script(TALK))
    assert "word" in read_some(process)
    [run] = [msgspec.json.decode(line) for line in place.run("runs", "--json", "--state", "active").out.splitlines()]
    canceled = place.run("cancel", "--session", run["session_id"], "--json")
    assert msgspec.json.decode(canceled.out)["canceled"] == [run["id"]]
    assert finish(process).code == 130


def test_ctrl_c_cancels_the_run_on_the_server(place: Place, server: Server) -> None:
    process = place.popen("run", "-m", "offline/script", script(TALK))
    assert "word" in read_some(process)
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 130, done
    [run] = [msgspec.json.decode(line) for line in place.run("runs", "--json").out.splitlines()]
    assert run["state"] == "canceled"


def test_a_server_that_leaves_cancels_what_it_does_not_wait_for(place: Place, server: Server) -> None:
    process = place.popen("run", "-m", "offline/script", script(TALK))
    assert "word" in read_some(process)
    ended = server.end(signal.SIGTERM, signal.SIGTERM)
    assert ended.code == 0, ended
    assert not place.socket.exists()
    done = finish(process)
    assert (done.code, done.err) == (130, "countermand: canceled\n")


def test_a_second_server_says_who_has_the_data(place: Place, server: Server) -> None:
    second = place.run("serve", "--host", "tcp://127.0.0.1:0")
    assert second.code == 1, second
    assert re.search(r"countermand: the data directory .* is in use by", second.err), second
    there = place.run("serve", "--host", f"unix://{place.socket}", "--data-dir", str(place.root / "other"))
    assert there.code == 2
    assert "live server" in there.err
    assert place.socket.exists()


def test_logs_are_json_if_wanted_and_hold_no_token(place: Place) -> None:
    server = Server(place, "--log-json")
    found = re.search(r"COUNTERMAND_TOKEN=(\S+)", server.ready)
    assert found
    place.environ |= {"COUNTERMAND_HOST": server.tcp, "COUNTERMAND_TOKEN": found[1]}
    assert place.run("sessions").code == 0
    place.environ["COUNTERMAND_TOKEN"] = "cmd_not-a-token-that-is-known"
    assert place.run("sessions").code == 4
    done = server.end()
    lines = [msgspec.json.decode(line) for line in done.err.splitlines()]
    assert {"request", "shutdown_begun"} <= {line["event"] for line in lines}
    assert found[1] not in done.err
    assert "not-a-token" not in done.err


async def test_readers_that_stall_do_not_keep_a_server_process_alive(place: Place) -> None:
    server = Server(place, "--log-level", "warning")
    with trio.fail_after(DEADLINE_S):
        stalled = [await trio.open_unix_socket(str(place.socket)) for _ in range(3)]
        for stream in stalled:
            await stream.send_all(b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)
        done = await trio.to_thread.run_sync(server.end)
        for stream in stalled:
            await stream.aclose()
    assert done.code == 0, done
