"""The subcommands, a module each; imported only when they are called."""
