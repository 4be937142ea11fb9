"""Every route of the API."""

from web.routes import (
    clients,
    config,
    document,
    events,
    files,
    health,
    metrics,
    permissions,
    preferences,
    prompts,
    questions,
    runs,
    sessions,
    sign_in,
    workspaces,
)
from web.routes.table import Route

ROUTES: tuple[Route, ...] = tuple(
    route
    for module in (
        health,
        document,
        metrics,
        sign_in,
        workspaces,
        clients,
        config,
        preferences,
        sessions,
        prompts,
        runs,
        permissions,
        files,
        questions,
        events,
    )
    for route in module.table.routes
)
