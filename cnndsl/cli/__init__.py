"""The command line: `main` chooses a command; each command is a module of its name."""
