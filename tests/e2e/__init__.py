"""Whole runs of the command line against real peers."""
