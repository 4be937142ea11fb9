"""What the steps of an example are drawn from."""

from hypothesis import strategies as st

# How long others may run before the next step: until nothing moves any more, or for some turns of the scheduler.
PAUSES = st.sampled_from((None, 0, 1, 2, 3, 4, 6, 9, 13, 18, 25, 40))
BRIEFLY = st.integers(0, 25)  # turns, while something is on its way
LAGS = st.lists(st.sampled_from((0, 0, 1, 3, 7)), min_size=1, max_size=3).map(tuple)
# Some so long that a whole request comes in between: what is stored is known to nobody yet.
LATE = st.lists(st.sampled_from((0, 1, 7, 40)), min_size=1, max_size=3).map(tuple)
POLICIES = st.sampled_from(("enqueue", None, "steer", "interrupt", "reject"))
NAMED = st.sampled_from(("id", "", "key", "both"))  # what a prompt may be sent again under
CHANGES = st.sampled_from(("text", "session", "if_busy"))
SCRIPTS = st.sampled_from((
    ("hold",), (), ("say",), ("say", "hold"), ("say", "steered", "hold"), ("say", "hold", "steered", "further", "say"),
    ("hold", "say", "further", "hold"), ("fail",), ("say", "bug"), ("ms:50", "say"), ("say", "call:30", "further"),
    ("call:30", "hold"), ("think", "say:9", "turns:3", "hold"),
))  # fmt: skip
ANSWERS = st.sampled_from((("say",), ("fail",), ("steered", "further", "say"), ("call:20", "further", "say"), ("bug",)))
BAD_BODIES: tuple[tuple[int, bytes], ...] = (
    (400, b'{"session_id": "S", "prompt": " "}'),
    (400, b'{"session_id": "", "prompt": "bad"}'),
    (404, b'{"session_id": "nobody", "prompt": "bad"}'),
    (400, b'{"session_id": "S", "prompt": "bad", "if_busy": "perhaps"}'),
    (400, b'{"session_id": "S", "prompt": "bad", "timeout_s": -1}'),
    (400, b'{"session_id": "S", "prompt": "bad", "run_id": "a/b"}'),
    (400, b'{"session_id": "S", "prompt": "bad", "model": "nobody/nothing"}'),
    (400, b'{"session_id": "S", "prompt": "bad", "attachments": [{"mime_type": "text/plain", "content": "*"}]}'),
    (400, b'{"session_id": "S", "prompt": '),
)
