"""Clients: the programs that keep a workspace open, and what they look at."""

from uuid import UUID

from engine.records.ids import ClientId
from web.problems import Refused
from web.routes.call import EMPTY, Call, Nothing, Reply
from web.routes.table import RouteTable, W
from web.wire.sessions import CurrentSession
from web.wire.workspaces import ClientQuery, required_client

table = RouteTable("clients")


@table.add("DELETE", "/v1/clients/{client_id}", access="run", query=Nothing, body=Nothing)
async def retire_client(call: Call[Nothing, Nothing]) -> Reply:
    """Say goodbye: the claims of the client end at once, and its id cannot be used again."""
    try:
        client_id = UUID(call.path["client_id"])
    except ValueError:
        raise Refused(400, "invalid_path", "client_id: it must be a UUID", field="client_id") from None
    await call.backend.retire_client(ClientId(str(client_id)))
    return EMPTY


@table.add("POST", f"{W}/current-session", access="run", query=ClientQuery, body=CurrentSession)
def set_current_session(call: Call[ClientQuery, CurrentSession]) -> Reply:
    """Say which session the client is looking at; an empty id says none. The client needs an open event stream."""
    client_id = required_client(call.query)
    call.workspace().claims.set_current_session(client_id, call.body.session_id)
    return EMPTY
