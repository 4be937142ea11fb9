"""`bash` and its jobs, with real processes: what they give, and that nothing is left of them (R10)."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.clock import Clock
from engine.records.ids import RunId
from engine.tools.bash import BashTool
from engine.tools.environment import command_environment
from engine.tools.job_kill import JobKillTool
from engine.tools.job_output import JobOutputTool
from engine.tools.jobs import Jobs, open_jobs
from tests.engine.tools.calling import Person, call

pytestmark = pytest.mark.slow
BOUND_S = 30.0


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Jobs, BashTool]]:
    with trio.fail_after(BOUND_S):
        async with open_jobs(Clock().now_us) as jobs:
            yield jobs, BashTool(jobs, command_environment(os.environ))


def mark() -> str:
    """An argument for `sleep` by which its processes can be found."""
    return f"9{uuid.uuid4().int % 10**7}.{uuid.uuid4().int % 10**6:06}"


def alive(marked: str) -> list[int]:
    """The processes that sleep for so long."""
    found = subprocess.run(["pgrep", "-f", f"^sleep {marked}$"], capture_output=True, text=True, check=False).stdout
    return [int(pid) for pid in found.split()]


async def until_alive(marked: str, count: int) -> None:
    """Wait for processes of other programs, which no event tells of."""
    while len(await trio.to_thread.run_sync(alive, marked)) < count:  # noqa: ASYNC110
        await trio.sleep(0.02)


async def test_bash_gives_output_errors_exit_code_and_where_it_ran(tmp_path: Path) -> None:
    async with opened() as (_, bash):
        said = await call(bash, tmp_path, command="echo out; echo err >&2; exit 3", description="talk")
        assert said.content == f"out\nerr\nExit code 3\n\n<cwd>{tmp_path}</cwd>"
        drawn = json.loads(said.metadata)
        assert (drawn["output"], drawn["description"]) == ("out\nerr\nExit code 3", "talk")
        assert drawn["working_directory"] == str(tmp_path)
        assert drawn["start_time"] <= drawn["end_time"]
        assert not said.is_error
        quiet = await call(bash, tmp_path, command="true", description="nothing")
        assert quiet.content.startswith("The command has written nothing.")


async def test_bash_keeps_the_beginning_and_the_end_of_a_long_output(tmp_path: Path) -> None:
    async with opened() as (_, bash):
        said = await call(bash, tmp_path, command="echo begin; yes | head -c 300000; echo end", description="much")
        assert said.content.startswith("begin\ny\n")
        assert "bytes cut out here]" in said.content
        assert "\nend\n\n<cwd>" in said.content
        assert len(said.content) < 32_000


async def test_bash_has_nothing_to_read_and_no_secrets(tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "OPENAI_API_KEY": "k", "MY_TOKEN": "t", "COUNTERMAND_X": "c", "PLAIN": "p"}
    with trio.fail_after(BOUND_S):
        async with open_jobs(Clock().now_us) as jobs:
            bash = BashTool(jobs, command_environment(environ, secrets={"PLAIN_TOO"}))
            said = await call(bash, tmp_path, command="cat; env", description="read")
    names = {line.partition("=")[0] for line in said.content.splitlines()}
    assert "PLAIN" in names
    assert not names & {"OPENAI_API_KEY", "MY_TOKEN", "COUNTERMAND_X", "PLAIN_TOO"}


async def test_r31_what_only_looks_is_not_asked_for_and_the_rest_is(tmp_path: Path) -> None:
    person = Person(allows=False)
    (tmp_path / "sub").mkdir()
    (tmp_path / "out").symlink_to("/")
    async with opened() as (_, bash):
        assert not (await call(bash, tmp_path, person, command="ls sub", description="look")).is_error
        assert person.asked == []
        refused = await call(bash, tmp_path, person, command="touch made", description="make", working_dir="sub")
        assert (refused.content, refused.is_error, refused.ends_turn) == ("User denied permission", True, True)
        assert person.asked[0][:2] == ("execute", tmp_path / "sub")
        assert person.asked[0][2] == {
            "description": "make", "command": "touch made", "working_dir": str(tmp_path / "sub"),
            "run_in_background": False, "auto_background_after": 60,
        }  # fmt: skip
        for outside in ({"working_dir": ".."}, {"working_dir": "out"}, {"command": "ls out/etc"}):
            await call(bash, tmp_path, person, **({"command": "ls", "description": "look"} | outside))
        assert len(person.asked) == 4
        assert not (tmp_path / "sub" / "made").exists()


@pytest.mark.parametrize("arguments", [{}, {"command": ""}, {"working_dir": "nowhere"}, {"auto_background_after": 0}])
async def test_bad_arguments_are_the_models_to_mend(tmp_path: Path, arguments: dict[str, Any]) -> None:
    async with opened() as (_, bash):
        good = {"command": "true", "description": "x"} if arguments else {}
        assert (await call(bash, tmp_path, **(good | arguments))).is_error


async def test_a_command_that_takes_long_goes_on_as_a_job_and_can_be_read_and_killed(tmp_path: Path) -> None:
    async with opened() as (jobs, bash):
        command = "trap 'echo bye; exit 0' TERM; echo hi; while true; do sleep 0.05; done"
        said = await call(bash, tmp_path, command=command, description="serve", run_in_background=True)
        assert "job 001" in said.content
        assert json.loads(said.metadata)["shell_id"] == "001"
        so_far = await call(JobOutputTool(jobs), tmp_path, shell_id="1")
        assert so_far.content == "Job 001 is running.\n\nhi"
        killed = await call(JobKillTool(jobs), tmp_path, shell_id="001")
        assert killed.content.startswith("Job 001 is ended.\n\nhi\nbye\n")
        assert killed.content.endswith("The command was killed.")
        again = await call(JobKillTool(jobs), tmp_path, shell_id="001")
        assert again.content.startswith("Job 001 had ended already.")
        assert (await call(JobOutputTool(jobs), tmp_path, shell_id="002")).is_error


async def test_a_job_that_ignores_sigterm_is_killed_all_the_same(tmp_path: Path) -> None:
    marked = mark()
    async with opened() as (jobs, bash):
        await call(
            bash, tmp_path, command=f"trap '' TERM; sleep {marked} & sleep {marked}", description="x",
            auto_background_after=1,
        )  # fmt: skip
        await until_alive(marked, 2)
        await call(JobKillTool(jobs), tmp_path, shell_id="001")
        assert alive(marked) == []


TREES = {
    "plain": "sleep {0}",
    "ignores": "trap '' TERM INT HUP; sleep {0} & sleep {0}",
    "forked twice": "(setsid bash -c 'sleep {0} & disown; exec sleep {0}' &) ; sleep {0}",
    "forgets its environment": "env -i setsid sleep {0} & sleep {0}",
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
async def test_r10_a_cancel_leaves_no_process(tmp_path: Path, tree: str) -> None:
    marked = mark()
    async with opened() as (_, bash), trio.open_nursery() as nursery:

        async def run() -> None:
            await call(bash, tmp_path, command=tree.format(marked), description="sleep")

        nursery.start_soon(run)
        await until_alive(marked, tree.count("{0}"))
        nursery.cancel_scope.cancel()
    assert alive(marked) == []


@pytest.mark.parametrize("way", ["run", "workspace"])
async def test_r10_a_job_ends_with_a_canceled_run_and_with_its_workspace(tmp_path: Path, way: str) -> None:
    marked = mark()
    async with opened() as (jobs, bash):
        for run_id in ("mine", "other"):
            command = f"sleep {marked}"
            await call(bash, tmp_path, run_id=run_id, command=command, description="x", auto_background_after=1)
        await until_alive(marked, 2)
        if way == "run":
            await jobs.end_run(RunId("mine"))
            assert len(alive(marked)) == 1
    assert alive(marked) == []


async def test_what_a_command_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    marked = mark()
    async with opened() as (_, bash):
        said = await call(bash, tmp_path, command=f"(setsid sleep {marked} &); echo done", description="x")
        assert said.content.startswith("done")
        assert alive(marked) == []


SERVER = """
import os, sys, trio
from pathlib import Path
from engine.tools.bash import BashTool
from engine.tools.jobs import open_jobs
from tests.engine.tools.calling import call

async def main():
    async with open_jobs(lambda: 0) as jobs:
        await call(BashTool(jobs, os.environ), Path.cwd(), command=sys.argv[1], description="x")

trio.run(main)
"""


async def test_r25_a_command_does_not_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    marked = mark()
    command = f"(setsid sleep {marked} &); trap '' TERM; sleep {marked}"
    with trio.fail_after(BOUND_S):
        server = await trio.lowlevel.open_process([sys.executable, "-c", SERVER, command])
        await until_alive(marked, 2)
        server.send_signal(signal.SIGKILL)
        await server.wait()
        while await trio.to_thread.run_sync(alive, marked):  # noqa: ASYNC110
            await trio.sleep(0.02)
