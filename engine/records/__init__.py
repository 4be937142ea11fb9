"""Immutable data that is stored and sent. No I/O, no Trio."""
