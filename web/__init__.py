"""The web shell: the only place that knows HTTP."""
