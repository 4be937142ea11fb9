"""The engine: runs agents, keeps their record, and knows no HTTP."""

__version__ = "0.1.0"
