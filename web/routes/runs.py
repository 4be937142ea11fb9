"""Runs: what became of the prompts."""

from web.routes.call import Call, Nothing, Reply, json_reply
from web.routes.table import RouteTable, W
from web.wire import runs as wire

table = RouteTable("runs")


@table.get(f"{W}/runs", query=wire.RunListQuery, answer=wire.RunList)
async def list_runs(call: Call[wire.RunListQuery, Nothing]) -> Reply:
    """Runs, the newest first. `state` may be repeated; `next` of one answer is `before` of the request for the next."""
    query = call.query
    # One more than asked for tells whether there is a next page.
    found = await call.workspace().runs(
        session_id=query.session_id or None, states=query.state, before=query.before, limit=query.limit + 1
    )
    page = found[: query.limit]
    following = page[-1].seq if len(found) > query.limit else None
    return json_reply(wire.RunList(tuple(map(wire.run_shape, page)), following))


@table.get(f"{W}/runs/{{rid}}", query=wire.RunQuery, answer=wire.Run)
async def get_run(call: Call[wire.RunQuery, Nothing]) -> Reply:
    """One run. With `wait_s` the answer comes when it has ended, or when the time is up."""
    return json_reply(wire.run_shape(await call.workspace().wait_run(call.path["rid"], call.query.wait_s)))


@table.add("POST", f"{W}/runs/{{rid}}/cancel", access="run", query=Nothing, body=Nothing, answer=wire.CanceledRun)
async def cancel_run(call: Call[Nothing, Nothing]) -> Reply:
    """Cancel one run, and no other. A run that has ended stays as it is: `canceled` is empty, and `state` says how."""
    answer = await call.workspace().cancel_run(call.path["rid"])
    return json_reply(wire.CanceledRun(answer.canceled, answer.state))
