"""Durable rows and the numbered event log."""
