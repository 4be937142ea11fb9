"""The exit codes of the command; part of its interface."""

COMPLETED = 0
FAILED = 1  # the run failed or was interrupted, or the store cannot be used
USAGE = 2  # the command line, or a setting, cannot be used
UNREACHABLE = 3  # no server answers
REFUSED = 4  # the server refused: busy, full, not found, not allowed, leaving
CANCELED = 130  # as after a SIGINT
PIPE_CLOSED = 141  # as after a SIGPIPE: whoever read the output has gone
