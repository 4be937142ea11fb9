-- What is open is found by the index of what is open. Left to itself, SQLite takes the primary key, and every ending reads
-- all that was ever asked in its workspace.

DROP TRIGGER runs_end_with_their_requests;

CREATE TRIGGER runs_end_with_their_requests
BEFORE UPDATE OF state ON runs
WHEN NEW.state IN ('completed', 'canceled', 'failed', 'interrupted')
    AND EXISTS (
        SELECT 1 FROM requests INDEXED BY requests_open
        WHERE workspace_id = NEW.workspace_id AND run_id = NEW.id AND decision IS NULL
    )
BEGIN
    SELECT RAISE(ABORT, 'no request outlives its run (R10)');
END;
