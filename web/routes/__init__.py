"""What the API does, a noun a file. Handlers know no web framework: they get a `Call` and give a `Reply`."""
