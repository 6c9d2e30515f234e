"""The command line: parse, call wiring, return an exit code."""
