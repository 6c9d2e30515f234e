"""What the command line writes: bars, lines, JSON, logs, reports and tables."""
