"""What of the machine the rest stands on: event loop, threads, processes, files that are opened safely."""
