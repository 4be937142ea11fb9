"""WorkspaceStatistics: what a workspace is doing."""

import msgspec


class WorkspaceStatistics(msgspec.Struct, frozen=True):
    """How many runs are where, and who watches."""

    active: int
    waiting: int
    clients: int
    feeds: int
