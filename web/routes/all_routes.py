"""Every route of the API."""

from web.routes import (
    clients,
    config,
    document,
    events,
    extensions,
    files,
    health,
    metrics,
    permissions,
    preferences,
    project,
    prompts,
    questions,
    runs,
    sessions,
    shell,
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
        shell,
        runs,
        permissions,
        files,
        questions,
        project,
        extensions,
        events,
    )
    for route in module.table.routes
)
