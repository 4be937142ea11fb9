"""The shell: commands that a person runs in a session."""

from engine.errors import ToolProblem
from web.problems import Refused
from web.routes.call import Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable, W
from web.wire import shell as wire

table = RouteTable("shell")


@table.add(
    "POST", f"{W}/agent/sessions/{{sid}}/shell", access="run", query=Nothing, body=wire.RunCommand,
    answer=wire.CommandResult,
)  # fmt: skip
async def run_command(call: Call[Nothing, wire.RunCommand]) -> Reply:
    """Run a command in the directory of the workspace, and answer when it has ended. Nobody is asked for permission.

    The session keeps the command and what it wrote, and the agent is shown both with the next prompt. Whoever drops
    the request kills the command, with all that it started; what it had written until then is kept too.
    """
    body = call.body
    try:
        result = await call.workspace().shell.run(call.path["sid"], body.command, columns=body.term_width)
    except ToolProblem as problem:
        raise Refused(409, "command_not_started", str(problem)) from None
    return json_reply(wire.CommandResult(result.output, result.exit_code))
