"""From acceptance to the one ending."""
