"""The log, the bus and the feed."""
