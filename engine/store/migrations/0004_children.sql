-- The child sessions of a session go with it; without this, deleting one reads all sessions of its workspace.

CREATE INDEX sessions_by_parent ON sessions (workspace_id, parent_id) WHERE parent_id IS NOT NULL;
