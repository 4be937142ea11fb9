"""Language servers, MCP servers and skills: there are none yet. What asks for all gets nothing, a name is not found."""

from engine.errors import ConfigRefused, NotFound
from web.routes.call import EMPTY, Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable, W
from web.wire import extensions as wire

table = RouteTable("extensions")


@table.get(f"{W}/lsps", query=Nothing, answer=dict[str, wire.LspClient])
def list_lsps(call: Call[Nothing, Nothing]) -> Reply:
    """The language servers, by name: none."""
    call.workspace()
    return json_reply({})


@table.get(f"{W}/lsps/{{name}}/diagnostics", query=Nothing, answer=dict[str, list[str]])
def get_lsp_diagnostics(call: Call[Nothing, Nothing]) -> Reply:
    """What a language server says about files: there is none of any name."""
    call.workspace()
    raise NotFound("lsp", call.path["name"])


@table.add("POST", f"{W}/lsps/start", access="run", query=Nothing, body=wire.LspPath)
def start_lsps(call: Call[Nothing, wire.LspPath]) -> Reply:
    """Start the language servers for a file: there is nothing to start."""
    call.workspace()
    return EMPTY


@table.add("POST", f"{W}/lsps/stop", access="run", query=Nothing, body=Nothing)
def stop_lsps(call: Call[Nothing, Nothing]) -> Reply:
    """Stop the language servers: there is nothing to stop."""
    call.workspace()
    return EMPTY


@table.get(f"{W}/skills", query=Nothing, answer=list[wire.SkillInfo])
def list_skills(call: Call[Nothing, Nothing]) -> Reply:
    """The skills: none."""
    call.workspace()
    return json_reply([])


@table.add("POST", f"{W}/skills/read", access="run", query=Nothing, body=wire.SkillName)
def read_skill(call: Call[Nothing, wire.SkillName]) -> Reply:
    """Read a skill: there is none of any name."""
    call.workspace()
    raise NotFound("skill", call.body.skill_id)


@table.get(f"{W}/mcp/states", query=Nothing, answer=dict[str, wire.McpClient])
def list_mcp_states(call: Call[Nothing, Nothing]) -> Reply:
    """The MCP servers, by name: none."""
    call.workspace()
    return json_reply({})


@table.get(f"{W}/mcp/prompts", query=Nothing, answer=list[wire.McpPrompt])
def list_mcp_prompts(call: Call[Nothing, Nothing]) -> Reply:
    """The prompts of the MCP servers: none."""
    call.workspace()
    return json_reply([])


@table.get(f"{W}/mcp/pending-auth", query=Nothing, answer=list[wire.PendingAuth])
def list_pending_auth(call: Call[Nothing, Nothing]) -> Reply:
    """The MCP servers that wait for somebody to sign in: none."""
    call.workspace()
    return json_reply([])


@table.get(f"{W}/mcp/auth-url", query=wire.McpQuery, answer=None)
def get_mcp_auth_url(call: Call[wire.McpQuery, Nothing]) -> Reply:
    """Where to sign in to an MCP server: there is none of any name."""
    call.workspace()
    raise NotFound("mcp", call.query.name)


@table.add("POST", f"{W}/mcp/auth", access="run", query=Nothing, body=wire.McpName)
def sign_in_to_mcp(call: Call[Nothing, wire.McpName]) -> Reply:
    """Sign in to an MCP server: there is none of any name."""
    return _no_mcp(call, call.body.name)


@table.add("POST", f"{W}/mcp/refresh-tools", access="run", query=Nothing, body=wire.McpName)
def refresh_mcp_tools(call: Call[Nothing, wire.McpName]) -> Reply:
    """Ask an MCP server again for its tools: there is none of any name."""
    return _no_mcp(call, call.body.name)


@table.add("POST", f"{W}/mcp/refresh-prompts", access="run", query=Nothing, body=wire.McpName)
def refresh_mcp_prompts(call: Call[Nothing, wire.McpName]) -> Reply:
    """Ask an MCP server again for its prompts: there is none of any name."""
    return _no_mcp(call, call.body.name)


@table.add("POST", f"{W}/mcp/refresh-resources", access="run", query=Nothing, body=wire.McpName)
def refresh_mcp_resources(call: Call[Nothing, wire.McpName]) -> Reply:
    """Ask an MCP server again for its resources: there is none of any name."""
    return _no_mcp(call, call.body.name)


@table.add("POST", f"{W}/mcp/read-resource", access="run", query=Nothing, body=wire.McpResource)
def read_mcp_resource(call: Call[Nothing, wire.McpResource]) -> Reply:
    """Read a resource of an MCP server: there is none of any name."""
    return _no_mcp(call, call.body.name)


@table.add("POST", f"{W}/mcp/get-prompt", access="run", query=Nothing, body=wire.McpPromptCall)
def get_mcp_prompt(call: Call[Nothing, wire.McpPromptCall]) -> Reply:
    """Fill in a prompt of an MCP server: there is none of any name."""
    return _no_mcp(call, call.body.client_id)


@table.add("POST", f"{W}/mcp/docker/enable", access="admin", query=Nothing, body=Nothing)
def enable_docker_mcp(call: Call[Nothing, Nothing]) -> Reply:
    """Refused: no program is started because somebody asks for it through the API."""
    call.workspace()
    raise ConfigRefused("mcp.docker")


@table.add("POST", f"{W}/mcp/docker/disable", access="admin", query=Nothing, body=Nothing)
def disable_docker_mcp(call: Call[Nothing, Nothing]) -> Reply:
    """There is nothing to disable."""
    call.workspace()
    return EMPTY


def _no_mcp(call: Call[Nothing, wire.McpName] | Call[Nothing, wire.McpResource] | Call[Nothing, wire.McpPromptCall],
            name: str) -> Reply:  # fmt: skip
    call.workspace()
    raise NotFound("mcp", name)
