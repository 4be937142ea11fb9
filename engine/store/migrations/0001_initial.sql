-- Moments are whole microseconds since the epoch. Columns that hold JSON are blobs of UTF-8.
-- What the run contract promises is a constraint here, not a habit of the code above.

PRAGMA application_id = 1129139780; -- engine.store.open.APPLICATION_ID

CREATE TABLE workspaces (
    id           TEXT NOT NULL PRIMARY KEY,
    path         TEXT NOT NULL UNIQUE,
    opened_at_us INTEGER NOT NULL,
    -- The last numbers given. Kept here and not taken from the rows, so that neither pruning nor deleting reuses one.
    last_seq     INTEGER NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    last_run_seq INTEGER NOT NULL DEFAULT 0 CHECK (last_run_seq >= 0)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER workspaces_count_upwards
BEFORE UPDATE OF last_seq, last_run_seq ON workspaces
WHEN NEW.last_seq < OLD.last_seq OR NEW.last_run_seq < OLD.last_run_seq
BEGIN
    SELECT RAISE(ABORT, 'a number that was given is never given again (R27)');
END;

CREATE TABLE sessions (
    workspace_id       TEXT NOT NULL REFERENCES workspaces (id),
    id                 TEXT NOT NULL,
    parent_id          TEXT,
    title              TEXT NOT NULL,
    message_count      INTEGER NOT NULL CHECK (message_count >= 0),
    prompt_tokens      INTEGER NOT NULL,
    completion_tokens  INTEGER NOT NULL,
    cost               REAL NOT NULL,
    summary_message_id TEXT,
    todos              BLOB NOT NULL,
    created_at_us      INTEGER NOT NULL,
    updated_at_us      INTEGER NOT NULL,
    PRIMARY KEY (workspace_id, id)
) STRICT;

CREATE INDEX sessions_by_update ON sessions (workspace_id, updated_at_us) WHERE parent_id IS NULL;

CREATE TABLE runs (
    workspace_id           TEXT NOT NULL REFERENCES workspaces (id),
    id                     TEXT NOT NULL,
    session_id             TEXT NOT NULL,
    seq                    INTEGER NOT NULL CHECK (seq > 0),
    state                  TEXT NOT NULL CHECK (state IN
        ('accepted', 'queued', 'active', 'completed', 'canceled', 'failed', 'interrupted')),
    request_hash           TEXT NOT NULL,
    idempotency_key        TEXT,
    prompt                 BLOB NOT NULL,
    model                  TEXT NOT NULL,
    provider               TEXT NOT NULL,
    attempt                INTEGER NOT NULL CHECK (attempt > 0),
    accepted_at_us         INTEGER NOT NULL,
    started_at_us          INTEGER,
    ended_at_us            INTEGER,
    cancel_requested_at_us INTEGER,
    cancel_reason          TEXT,
    error                  BLOB,
    message_id             TEXT,
    steered_into           TEXT,
    usage                  BLOB NOT NULL,
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, seq),
    FOREIGN KEY (workspace_id, session_id) REFERENCES sessions (workspace_id, id),
    CHECK ((ended_at_us IS NOT NULL) = (state IN ('completed', 'canceled', 'failed', 'interrupted'))),
    CHECK ((cancel_requested_at_us IS NULL) = (cancel_reason IS NULL)),
    CHECK (state <> 'active' OR started_at_us IS NOT NULL)
) STRICT;

CREATE UNIQUE INDEX runs_by_key ON runs (workspace_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX runs_by_session ON runs (workspace_id, session_id, seq);
CREATE INDEX runs_unsettled ON runs (workspace_id, seq) WHERE state IN ('accepted', 'queued', 'active');

CREATE TRIGGER runs_begin_accepted
BEFORE INSERT ON runs
WHEN NEW.state <> 'accepted'
BEGIN
    SELECT RAISE(ABORT, 'a run begins as accepted (R02)');
END;

CREATE TRIGGER runs_end_once
BEFORE UPDATE OF state ON runs
WHEN OLD.state IN ('completed', 'canceled', 'failed', 'interrupted')
BEGIN
    SELECT RAISE(ABORT, 'a run that has ended keeps its state (R18)');
END;

CREATE TRIGGER runs_go_forward
BEFORE UPDATE OF state ON runs
WHEN NEW.state = 'accepted'
    OR (NEW.state = 'queued' AND OLD.state <> 'accepted' AND NOT (OLD.state = 'active' AND OLD.steered_into IS NOT NULL))
BEGIN
    SELECT RAISE(ABORT, 'a run goes back to no earlier state, but from a turn that was not its own');
END;

CREATE TRIGGER runs_keep_their_cancel
BEFORE UPDATE OF cancel_requested_at_us, cancel_reason ON runs
WHEN OLD.cancel_requested_at_us IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'the first cancel of a run stands (R11)');
END;

CREATE TRIGGER runs_honour_their_cancel
BEFORE UPDATE OF state ON runs
WHEN OLD.cancel_requested_at_us IS NOT NULL AND NEW.state IN ('completed', 'failed', 'interrupted')
BEGIN
    SELECT RAISE(ABORT, 'a run whose cancel is recorded ends canceled (R11)');
END;

CREATE TRIGGER runs_stay_until_they_end
BEFORE DELETE ON runs
WHEN OLD.state IN ('accepted', 'queued', 'active')
BEGIN
    SELECT RAISE(ABORT, 'a run is not deleted before it has ended (R18)');
END;

CREATE TABLE messages (
    position      INTEGER PRIMARY KEY AUTOINCREMENT, -- the order of writing, inside a turn
    workspace_id  TEXT NOT NULL,
    id            TEXT NOT NULL,
    session_id    TEXT NOT NULL,
    turn          INTEGER NOT NULL,
    run_id        TEXT,
    role          TEXT NOT NULL CHECK (role IN ('user', 'assistant', 'tool', 'system')),
    parts         BLOB NOT NULL,
    model         TEXT NOT NULL,
    provider      TEXT NOT NULL,
    is_summary    INTEGER NOT NULL CHECK (is_summary IN (0, 1)),
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    UNIQUE (workspace_id, id),
    FOREIGN KEY (workspace_id, session_id) REFERENCES sessions (workspace_id, id)
) STRICT;

CREATE INDEX messages_by_session ON messages (workspace_id, session_id, turn, position);
CREATE INDEX messages_by_run ON messages (workspace_id, run_id, position) WHERE run_id IS NOT NULL;
CREATE INDEX messages_of_users ON messages (workspace_id, position) WHERE role = 'user';

CREATE TABLE events (
    workspace_id TEXT NOT NULL REFERENCES workspaces (id),
    seq          INTEGER NOT NULL CHECK (seq > 0),
    kind         TEXT NOT NULL,
    run_id       TEXT,
    session_id   TEXT,
    at_us        INTEGER NOT NULL,
    body         BLOB NOT NULL,
    PRIMARY KEY (workspace_id, seq)
) STRICT;

CREATE INDEX events_by_run ON events (workspace_id, run_id, seq) WHERE run_id IS NOT NULL;
CREATE UNIQUE INDEX events_one_ending ON events (workspace_id, run_id) WHERE kind = 'run_completed'; -- R18

CREATE TABLE settings (
    workspace_id TEXT NOT NULL, -- empty: for all workspaces
    key          TEXT NOT NULL,
    value        TEXT NOT NULL,
    PRIMARY KEY (workspace_id, key)
) STRICT, WITHOUT ROWID;
