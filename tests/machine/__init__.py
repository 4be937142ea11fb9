"""The state machine: hypothesis plays clients of the whole service, over HTTP, and every promise is checked after it.

`machine.py` has the rules: prompts, cancels, streams, servers that stop and die, a model that answers when it is told.
They drive the real application over the real engine, in one thread and on virtual time (`pump.py`), and let others run
for as many turns of the scheduler as is drawn, so that requests meet each other anywhere. What clients were told goes
into a *ledger* (`ledger.py`), and is laid beside what they read in the end, the *account* (`account.py`), by
`promises/`. A failing example is made as small as it can be, and printed as a program with the story of what happened.

    python -m tests.machine --examples 5000             play many
    python -m tests.machine --examples 5000 --seed 17   the same ones again
"""
