"""The race explorer (R34): accept, cancel, steer, close, crash and the rest run against each other under seeded
schedules of Trio, and after each of them everything that the run contract promises is checked.

A *scenario* (`scenario.py`) is data, drawn from a seed (`draw.py`): what each actor does and when, how each run's agent
behaves, and what the disk does. A *schedule* is a scenario with an order of Trio's tasks (`schedule.py`). What is told
to the callers while it runs is kept in a *ledger* (`ledger.py`), and laid beside what is stored in the end
(`rules/`). The engine is the real one, on the real SQLite store in memory.

    python -m tests.explorer --count 10000 --jobs 2     explore
    python -m tests.explorer --seed 17 -v               replay one, with everything that happened
    python -m tests.explorer --seed 17 --shrink         and leave out what its violation does not need
    python -m tests.explorer --planted --count 10000    look for the bugs in `planted/`, each planted in turn
"""
