"""The project: whether it tells agents about itself, and the prompt that has it told."""

from web.routes.call import EMPTY, Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable, W
from web.wire import project as wire

table = RouteTable("project")


@table.get(f"{W}/project/needs-init", query=Nothing, answer=wire.NeedsInit)
async def get_needs_init(call: Call[Nothing, Nothing]) -> Reply:
    """Whether a person should be asked to have the project described: no file does, and nobody was asked before."""
    return json_reply(wire.NeedsInit(await call.workspace().project.needs_init()))


@table.add("POST", f"{W}/project/init", access="run", query=Nothing, body=Nothing)
async def note_init(call: Call[Nothing, Nothing]) -> Reply:
    """The person was asked, whatever they said, and is not to be asked again."""
    await call.workspace().project.note_asked()
    return EMPTY


@table.get(f"{W}/project/init-prompt", query=Nothing, answer=wire.InitPrompt)
def get_init_prompt(call: Call[Nothing, Nothing]) -> Reply:
    """What to send to the agent to have the project described."""
    return json_reply(wire.InitPrompt(call.workspace().project.init_prompt()))
