"""What a monitoring system asks for."""

from web.metrics import CONTENT_TYPE
from web.routes.call import Call, Nothing, Reply
from web.routes.table import RouteTable

table = RouteTable("server")


@table.get("/metrics", query=Nothing, answer=str, media_type="text/plain")
def metrics(call: Call[Nothing, Nothing]) -> Reply:
    """Metrics in Prometheus's text format."""
    return Reply(body=call.services.metrics.render(), content_type=CONTENT_TYPE)
