"""Sessions: the conversations of a workspace, and what was said in them."""

from engine.records import session as records
from engine.workspace import Workspace
from web.problems import Refused
from web.routes.call import EMPTY, Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable, W
from web.wire import sessions as wire
from web.wire.messages import Message, message_shape

table = RouteTable("sessions")


@table.add("POST", f"{W}/sessions", access="run", query=Nothing, body=wire.NewSession, answer=wire.Session)
async def create_session(call: Call[Nothing, wire.NewSession]) -> Reply:
    """Begin a session."""
    workspace = call.workspace()
    return json_reply(_shape(workspace, await workspace.sessions.create(call.body.title)))


@table.get(f"{W}/sessions", query=Nothing, answer=list[wire.Session])
async def list_sessions(call: Call[Nothing, Nothing]) -> Reply:
    """The sessions that are nobody's children, the most recently changed first."""
    workspace = call.workspace()
    return json_reply([_shape(workspace, session) for session in await workspace.sessions.all()])


@table.get(f"{W}/sessions/{{sid}}", query=Nothing, answer=wire.Session)
async def get_session(call: Call[Nothing, Nothing]) -> Reply:
    """One session."""
    return await _session_reply(call)


@table.add("PUT", f"{W}/sessions/{{sid}}", access="run", query=Nothing, body=wire.SavedSession, answer=wire.Session)
async def save_session(call: Call[Nothing, wire.SavedSession]) -> Reply:
    """Change a session's title or to-do list. What is not sent stays; counters and costs are nobody's to write."""
    workspace, body = call.workspace(), call.body
    if body.id and body.id != call.path["sid"]:
        raise Refused(400, "invalid_body", "id: it is not the id in the path", field="id")
    todos = body.todos
    session = await workspace.sessions.update(
        call.path["sid"],
        title=body.title if isinstance(body.title, str) else None,
        todos=_todo_records(todos) if isinstance(todos, tuple) else None,
    )
    return json_reply(_shape(workspace, session))


@table.add("DELETE", f"{W}/sessions/{{sid}}", access="run", query=Nothing, body=Nothing)
async def delete_session(call: Call[Nothing, Nothing]) -> Reply:
    """Delete a session with its messages. Its runs are canceled first, and have ended when this answers."""
    await call.workspace().delete_session(call.path["sid"])
    return EMPTY


@table.get(f"{W}/sessions/{{sid}}/messages", query=Nothing, answer=list[Message])
async def list_messages(call: Call[Nothing, Nothing]) -> Reply:
    """The messages of a session, turn by turn, the oldest first."""
    workspace = call.workspace()
    await workspace.sessions.get(call.path["sid"])
    return json_reply([message_shape(each) for each in await workspace.sessions.messages(call.path["sid"])])


@table.get(f"{W}/sessions/{{sid}}/messages/user", query=Nothing, answer=list[Message])
async def list_user_messages_of_session(call: Call[Nothing, Nothing]) -> Reply:
    """What people said in a session, the newest first."""
    workspace = call.workspace()
    await workspace.sessions.get(call.path["sid"])
    return json_reply([message_shape(each) for each in await workspace.sessions.user_messages(call.path["sid"])])


@table.get(f"{W}/messages/user", query=Nothing, answer=list[Message])
async def list_user_messages(call: Call[Nothing, Nothing]) -> Reply:
    """What people said in any session, the newest first."""
    return json_reply([message_shape(each) for each in await call.workspace().sessions.user_messages(None)])


@table.get(f"{W}/agent/sessions/{{sid}}", query=Nothing, answer=wire.Session)
async def get_agent_session(call: Call[Nothing, Nothing]) -> Reply:
    """One session, and whether it is busy. (Crush fills in no more than its id and title; here it is all there.)"""
    return await _session_reply(call)


async def _session_reply(call: Call[Nothing, Nothing]) -> Reply:
    workspace = call.workspace()
    return json_reply(_shape(workspace, await workspace.sessions.get(call.path["sid"])))


def _shape(workspace: Workspace, session: records.Session) -> wire.Session:
    return wire.session_shape(
        session,
        is_busy=workspace.is_session_busy(session.id),
        attached_clients=workspace.claims.attached_clients(session.id),
    )


def _todo_records(todos: tuple[wire.Todo, ...]) -> tuple[records.Todo, ...]:
    return tuple(records.Todo(each.content, each.status, each.active_form) for each in todos)
